"""What is written down about events."""
