"""A record's way to the queue."""
