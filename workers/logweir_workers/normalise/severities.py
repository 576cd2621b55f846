"""The eight severities of RFC 5424 (section 6.2.1), and the ways in which senders spell them."""

from __future__ import annotations

import re
from typing import Any

SEVERITIES = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")
"""In the order of their numbers, 0 to 7."""

SPELLINGS = {
    "EMERGENCY": ("emerg", "panic"),
    "ALERT": (),
    "CRITICAL": ("crit", "fatal"),
    "ERROR": ("err", "severe"),
    "WARNING": ("warn",),
    "NOTICE": ("notification",),
    "INFO": ("information", "informational"),
    "DEBUG": ("trace", "verbose", "fine", "finer", "finest"),
}
"""Spellings beside the name itself, in lower case; case does not count."""

PYTHON_NUMBERS = {50: "CRITICAL", 40: "ERROR", 30: "WARNING", 20: "INFO", 10: "DEBUG"}
"""The levels of Python's logging."""

_BY_NUMBER: dict[float, str] = dict([*enumerate(SEVERITIES), *PYTHON_NUMBERS.items()])
_BY_TEXT = {
    spelling: name for name, spellings in SPELLINGS.items() for spelling in (name, name.lower(), *spellings)
} | {str(number): name for number, name in _BY_NUMBER.items()}
_PRI = re.compile(r"<?([0-9]{1,3})>?")


def severity_of(value: Any) -> str | None:
    """One of SEVERITIES from a name, a spelling, a digit 0-7 or a level of Python's logging; None from all else."""
    if type(value) is str:
        return _BY_TEXT.get(value) or _BY_TEXT.get(value.strip().lower())
    if type(value) is int or type(value) is float:
        return _BY_NUMBER.get(value)
    return None


def severity_of_pri(value: Any) -> str | None:
    """The severity in a syslog PRI: 0 to 191, as a number or text, bare or in angle brackets."""
    # RFC 5424 section 6.2.1: PRIVAL = facility * 8 + severity, with facilities 0 to 23.
    match = _PRI.fullmatch(str(value).strip()) if type(value) in (int, str) else None
    number = int(match[1]) if match else None
    return None if number is None or number > 191 else SEVERITIES[number & 7]
