"""What the kit reads from a face: who it is, and what it does."""
