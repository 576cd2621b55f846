"""What all sides of logweir agree on: events, records, outcomes, problems, settings and the two ports."""

__version__ = "0.1.0"
