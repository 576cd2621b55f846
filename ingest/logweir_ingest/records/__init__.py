"""Batches become records."""
