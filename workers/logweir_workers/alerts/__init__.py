"""The engine of alerts: every rule asked of every event, and what was found written down. alerter.py is its command."""
