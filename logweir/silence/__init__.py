"""Who has fallen silent."""
