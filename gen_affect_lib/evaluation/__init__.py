"""How good the pictures are, measured against faces whose factors are known."""
