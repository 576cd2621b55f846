"""What could not be indexed or read: kept, and tried again."""
