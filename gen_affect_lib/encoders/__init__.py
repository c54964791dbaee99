"""Encoders of faces: from a picture to the identity and the expression."""
