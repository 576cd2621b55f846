"""The eight severities of RFC 5424 (section 6.2.1), and the ways in which senders spell them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers with which some senders say a severity."""

    name: str
    """Whose numbers they are."""
    severities: dict[int, str]
    """What each number means; nothing where the scale's steps are none of SEVERITIES: then its numbers are not read."""
    told_by: tuple[str, ...] = ()
    """Names in lower case: an event with all names of one of these texts is of this scale; without any, each is."""
    numbers: range = range(1_000_000)
    """The numbers that are then of this scale; of others, a later scale may know."""


SCALES = (
    Scale(
        "Windows, Azure",
        {0: "INFO", 1: "CRITICAL", 2: "ERROR", 3: "WARNING", 4: "INFO", 5: "DEBUG"},
        (
            "leveldisplayname",
            "winlog",
            "providername id",
            "providername eventid",
            "provider_name event_id",
            "provider eventid",
            "sourcename eventid",
            "channel eventid",
            "logname id",
            "logname eventid",
            "operationname resourceid",
        ),
    ),
    Scale(".NET", {0: "DEBUG", 1: "DEBUG", 2: "INFO", 3: "WARNING", 4: "ERROR", 5: "CRITICAL"}, ("loglevel eventid",)),
    Scale(
        "pino, bunyan",
        {60: "CRITICAL", 50: "ERROR", 40: "WARNING", 30: "INFO", 20: "DEBUG", 10: "DEBUG"},
        ("level msg time",),
        range(10, 61),
    ),
    Scale(
        "Monolog",
        {
            600: "EMERGENCY",
            550: "ALERT",
            500: "CRITICAL",
            400: "ERROR",
            300: "WARNING",
            250: "NOTICE",
            200: "INFO",
            100: "DEBUG",
        },
        ("level_name",),
    ),
    Scale("CEF", {}, ("devicevendor", "device_vendor", "deviceproduct", "cefversion", "cef")),
    Scale("LEEF", {}, ("leefversion", "leef_version")),
    Scale("findings of AWS", {}, ("accountid schemaversion", "awsaccountid schemaversion")),
    Scale("Suricata, Snort", {}, ("signature_id", "sig_id", "gid sid")),
    Scale("Zabbix", {}, ("clock eventid", "triggerid")),
    Scale("OpenTelemetry", {}, ("severitytext", "severity_text", "severitynumber", "severity_number")),
    Scale("syslog", dict(enumerate(SEVERITIES)), numbers=range(8)),
    Scale("Python", {50: "CRITICAL", 40: "ERROR", 30: "WARNING", 20: "INFO", 10: "DEBUG"}, numbers=range(10, 51)),
    # No other scale here has it.
    Scale("pino, bunyan", {60: "CRITICAL"}, numbers=range(60, 61)),
)
"""In the order in which they are tried; the last ones are those of an event that has no such names."""

_BY_TEXT = {spelling: name for name, spellings in SPELLINGS.items() for spelling in (name, name.lower(), *spellings)}
_NUMBER = re.compile("[0-9]{1,3}")
_PRI = re.compile(r"<?([0-9]{1,3})>?")
_MARKS = tuple((scale, tuple(frozenset(names.split()) for names in scale.told_by)) for scale in SCALES)
_MARKING = frozenset(name for _, sets in _MARKS for names in sets for name in names)
_UNTOLD = tuple(scale for scale in SCALES if not scale.told_by)


def severity_of(value: Any, names: Iterable[str] = ()) -> str | None:
    """One of SEVERITIES from a name, a spelling or a whole number, as a number or text; None from all else.

    ``names``: those of the event. They tell which of SCALES the number is of. A fraction is of none that has our names.
    """
    if type(value) is str:
        severity = _BY_TEXT.get(value) or _BY_TEXT.get(value.strip().lower())
        if severity is not None or not _NUMBER.fullmatch(value.strip()):
            return severity
        value = int(value)
    if type(value) is not int:
        return None
    for scale in _scales_of(names):
        if value in scale.numbers:
            return scale.severities.get(value)
    return None


def _scales_of(names: Iterable[str]) -> Iterable[Scale]:
    marking = _MARKING.intersection(map(str.lower, names))
    if not marking:
        return _UNTOLD
    return [scale for scale, sets in _MARKS if not sets or any(names <= marking for names in sets)]


def severity_of_pri(value: Any) -> str | None:
    """The severity in a syslog PRI: 0 to 191, as a number or text, bare or in angle brackets."""
    # RFC 5424 section 6.2.1: PRIVAL = facility * 8 + severity, with facilities 0 to 23.
    match = _PRI.fullmatch(str(value).strip()) if type(value) in (int, str) else None
    number = int(match[1]) if match else None
    return None if number is None or number > 191 else SEVERITIES[number & 7]
