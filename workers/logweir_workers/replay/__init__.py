"""Records read again."""
