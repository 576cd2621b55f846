"""What a process counts, and where it is asked for it."""
