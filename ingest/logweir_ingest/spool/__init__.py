"""Records on disk while the queue is away."""
