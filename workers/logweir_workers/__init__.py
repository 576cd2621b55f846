"""Behind the queue: everything that reads it. Read pipeline.py first."""
