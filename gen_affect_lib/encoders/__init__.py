"""Readers of faces: identity and expression."""
