"""In front of the queue: answers a sender only when its events are safe."""
