"""MozDef's alert scripts, run as they are: as scheduled rules over the stored events.

Written from MozDef's public documentation, and from what its scripts call.
"""
