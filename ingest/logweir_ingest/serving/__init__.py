"""The processes of the door."""
