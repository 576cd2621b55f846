"""What a process has around it."""
