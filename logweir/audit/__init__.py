"""The books read: what became of every event, and whether both sides' words agree."""
