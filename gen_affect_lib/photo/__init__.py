"""From a photograph of a person to the factors of an avatar."""
