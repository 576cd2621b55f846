"""When an event happened, read from whatever a sender wrote, as one fixed spelling in UTC."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from dateutil import parser as dateutil_parser

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The lower bound is epoch second 100,000,000. From there to 2100 the same number is a time in only one of seconds,
# milliseconds, microseconds and nanoseconds; and a clock that starts at 1970 is recognised as not set.
_EARLIEST, _END = "1973-03-03T09:46:40", "2100-01-01"
_SECONDS_MIN, _SECONDS_END = 100_000_000, 4_102_444_800

TEXT_LENGTH_MAX = 64
"""A longer text is not a time; it is not worth the slow readers' work."""

_NUMBER = re.compile(r"[0-9]{8,19}(?:\.[0-9]{0,30})?")
_RFC_3164 = re.compile(r"([A-Z][a-z]{2}) {1,2}([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?")
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_FINER = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")
_ALL_FORMATS_BUT_ISO = ("%d/%b/%Y:%H:%M:%S %z", "%Y%m%d%H%M%S")

# RFC 5322 section 4.3 names these; other abbreviations stand for several zones each.
_ZONE_HOURS = {"UTC": 0, "UT": 0, "GMT": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5}
_ZONE_HOURS |= {"MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "CET": 1, "CEST": 2}


def iso_of(time_us: int) -> str:
    """``time_us``, microseconds since 1970-01-01 UTC, as ``2026-01-31T12:00:00.000000+00:00``."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")


def utc_of(value: Any, received_us: int) -> str | None:
    """The time that ``value`` says, spelled as by iso_of; None when it says none between 1973-03-03 and 2100.

    Understood: ISO 8601 (without a zone it is UTC), epoch seconds, milli-, micro- and nanoseconds as numbers or text,
    RFC 3164 (its year is the one that lies nearest to ``received_us``), access logs' ``31/Jan/2026:12:00:00 +0100``,
    and what dateutil reads in one way only: a date that could be of two days is not guessed.
    Digits beyond microseconds are cut; see is_finer.
    """
    if type(value) is str:
        return _utc_of_text(value.strip(), received_us)
    if type(value) is float or type(value) is int:
        return _utc_of_number(value)
    return None


def is_finer(value: Any) -> bool:
    """Whether a time that utc_of could read says more than microseconds hold."""
    if type(value) is int:
        return value >= 10**17 and value % 1000 != 0
    if type(value) is not str or len(value) <= len("2026-01-31T12:00:00.000000"):
        return type(value) is str and len(value) == 19 and value.isdigit() and not value.endswith("000")
    return _FINER.search(value) is not None


def _utc_of_number(value: float) -> str | None:
    for per_second, to_us in ((1, 1_000_000), (1_000, 1_000), (1_000_000, 1)):
        if _SECONDS_MIN * per_second <= value < _SECONDS_END * per_second:
            return iso_of(round(value * to_us))
    if _SECONDS_MIN * 10**9 <= value < _SECONDS_END * 10**9:
        return iso_of(int(value) // 1000)
    return None


def _utc_of_text(text: str, received_us: int) -> str | None:
    if len(text) > TEXT_LENGTH_MAX:
        return None
    if text[4:5] == "-":
        try:
            return _within_bounds(datetime.fromisoformat(text))
        except ValueError:
            return _utc_of_rare(text)
    if _NUMBER.fullmatch(text):
        utc = _utc_of_number(float(text) if "." in text else int(text))
        return utc or _utc_of_rare(text)
    if match := _RFC_3164.fullmatch(text):
        return _utc_without_year(match, received_us)
    return _utc_of_rare(text)


def _within_bounds(moment: datetime) -> str | None:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elif moment.tzinfo is not UTC:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:
            return None
    utc = moment.isoformat(timespec="microseconds")
    return utc if _EARLIEST <= utc < _END else None


def _utc_without_year(match: re.Match[str], received_us: int) -> str | None:
    """RFC 3164 section 4.1.2 leaves the year out: the nearest to the receipt is right around New Year, too."""
    name, *numbers, fraction = match.groups()
    month, (day, hour, minute, second) = _MONTHS.get(name, 0), map(int, numbers)
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    received = _EPOCH + timedelta(microseconds=received_us)
    moments = []
    for year in (received.year, received.year - 1, received.year + 1):
        try:
            moments.append(datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC))
        except ValueError:  # 29 February of another year, or no time at all
            continue
    return _within_bounds(min(moments, key=lambda moment: abs(moment - received))) if moments else None


def _utc_of_rare(text: str) -> str | None:
    """The slow readers, tens of microseconds each."""
    for form in _ALL_FORMATS_BUT_ISO:
        try:
            return _within_bounds(datetime.strptime(text, form))
        except ValueError:
            continue
    readings = {_reading(text, default, dayfirst) for default, dayfirst in _TWO_WAYS}
    reading = readings.pop()
    return None if readings or reading is None else _within_bounds(reading)


# What is read in two ways must agree: then no part of the date came from the default, and no order was guessed.
_TWO_WAYS: Iterable[tuple[datetime, bool]] = (
    (datetime(2001, 2, 3), False),
    (datetime(2004, 5, 6), True),
)


def _reading(text: str, default: datetime, dayfirst: bool) -> datetime | None:
    try:
        return dateutil_parser.parse(text, default=default, dayfirst=dayfirst, tzinfos=_zone)
    # Beside ParserError (a ValueError) dateutil lets others through on odd text.
    except (ValueError, OverflowError, TypeError, IndexError, AttributeError, ArithmeticError):
        return None


def _zone(name: str | None, offset_s: int | None) -> timezone:
    """The zone of a name; without this dateutil would take the machine's own for some names, and ignore others."""
    if offset_s is not None:
        return timezone(timedelta(seconds=offset_s))
    if name is None or name.upper() not in _ZONE_HOURS:
        raise ValueError(f"{name} is not the name of one zone")
    return timezone(timedelta(hours=_ZONE_HOURS[name.upper()]))
