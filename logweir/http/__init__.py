"""A server that holds under hostile clients."""
