"""Changes of a saved checkpoint, given as words."""
