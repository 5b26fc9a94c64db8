"""A checkpoint as one HTML page or one picture; nothing here draws on the terminal."""
