"""Scheduled rules: called with the stored events of a time that is over, and their alerts written down."""
