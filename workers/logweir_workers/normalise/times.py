"""When an event happened, read from whatever a sender wrote, as one fixed spelling in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from dateutil import parser as dateutil_parser

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# The lower bound is 1973-03-03T09:46:40. From there to 2100 a number is a time in only one of seconds, milliseconds,
# microseconds and nanoseconds; and a clock that starts at 1970 is recognised as not set.
_SECONDS_MIN, _SECONDS_END = 100_000_000, 4_102_444_800

TEXT_LENGTH_MAX = 64
"""A longer text is not a time; it is not worth the slow readers' work."""

_NUMBER = re.compile(r"[0-9]{8,19}(?:\.[0-9]{0,30})?")
# 20260131 and 20260131120000: read as epoch numbers they would lie in 1970, or between the units.
_DATE_OF_DIGITS = re.compile(r"[0-9]{8}(?:[0-9]{6})?")
_RFC_3164 = re.compile(r"([A-Z][a-z]{2}) {1,2}([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?")
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_FINER = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")
_ACCESS_LOG = "%d/%b/%Y:%H:%M:%S %z"

# RFC 5322 section 4.3 names these; other abbreviations stand for several zones each.
_ZONE_HOURS = {"UTC": 0, "UT": 0, "GMT": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5}
_ZONE_HOURS |= {"MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "CET": 1, "CEST": 2}


def iso_of(time_us: int) -> str:
    """``time_us``, microseconds since 1970-01-01 UTC, as ``2026-01-31T12:00:00.000000+00:00``."""
    return f"{_second(time_us // 1_000_000)}.{time_us % 1_000_000:06d}+00:00"


@lru_cache(maxsize=1024)
def _second(time_s: int) -> str:
    # Events of one bulk lie close together: spelling each second once halves the cost.
    return (_EPOCH + timedelta(seconds=time_s)).strftime("%Y-%m-%dT%H:%M:%S")


def time_us_of(value: Any, received_us: int) -> int | None:
    """The time that ``value`` says, in microseconds since 1970-01-01 UTC.

    None when it says no time between 1973-03-03 and 2100. Understood: ISO 8601 (without a zone it is UTC), epoch
    seconds, milli-, micro- and nanoseconds as numbers or text, RFC 3164 (its year is the one that lies nearest to
    ``received_us``), access logs' ``31/Jan/2026:12:00:00 +0100``, and what dateutil reads in one way only: a date that
    could be of two days is not guessed. Digits beyond microseconds are cut; see is_finer.
    """
    if type(value) is str:
        time_us = _from_text(value.strip(), received_us)
    elif type(value) is float or type(value) is int:
        time_us = _from_number(value)
    else:
        return None
    return time_us if time_us is not None and _SECONDS_MIN <= time_us // 1_000_000 < _SECONDS_END else None


def is_finer(value: Any) -> bool:
    """Whether a time that time_us_of could read says more than microseconds hold."""
    if type(value) is str:
        if "." in value or "," in value:
            # The common spellings are settled without the search: their seventh digit is a "+", a "Z" or the end.
            fraction = value.rpartition("." if "." in value else ",")[2]
            return fraction[6:7].isdigit() and _FINER.search(value) is not None
        value = int(value) if value.strip().isdigit() else None
    return type(value) is int and value >= _SECONDS_MIN * 10**9 and value % 1000 != 0


def _from_number(value: float) -> int | None:
    if value < _SECONDS_MIN:
        return None
    if value < _SECONDS_END:
        return round(value * 1_000_000)
    if value < _SECONDS_END * 1_000:
        return round(value * 1_000)
    if value < _SECONDS_END * 1_000_000:
        return round(value)
    if value < _SECONDS_END * 1_000_000_000:
        return int(value) // 1000
    return None


def _from_text(text: str, received_us: int) -> int | None:
    if len(text) > TEXT_LENGTH_MAX:
        return None
    if text[4:5] == "-":
        try:
            return _since_epoch(datetime.fromisoformat(text))
        except ValueError:
            return _from_rare_text(text)
    if match := _RFC_3164.fullmatch(text):
        return _without_year(match, received_us)
    if _DATE_OF_DIGITS.fullmatch(text):
        return _from_rare_text(f"{text[:8]}T{text[8:] or '000000'}")
    if _NUMBER.fullmatch(text):
        return _from_number(float(text) if "." in text else int(text))
    return _from_rare_text(text)


def _since_epoch(moment: datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _without_year(match: re.Match[str], received_us: int) -> int | None:
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
    return _since_epoch(min(moments, key=lambda moment: abs(moment - received))) if moments else None


def _from_rare_text(text: str) -> int | None:
    """The slow readers, tens of microseconds each."""
    for read in (datetime.fromisoformat, _read_access_log):
        try:
            return _since_epoch(read(text))
        except ValueError:
            continue
    # What is read in two ways must agree: then no part of it came from the default, and no order of day and month was
    # guessed. Behind a year nobody writes the day first.
    one = _reading(text, datetime(2001, 2, 3), dayfirst=False)
    other = _reading(text, datetime(2004, 5, 6), dayfirst=not text[:4].isdigit())
    return _since_epoch(one) if one is not None and one == other else None


def _read_access_log(text: str) -> datetime:
    return datetime.strptime(text, _ACCESS_LOG)


def _reading(text: str, default: datetime, *, dayfirst: bool) -> datetime | None:
    try:
        return dateutil_parser.parse(text, default=default, dayfirst=dayfirst, tzinfos=_zone)
    # Beside ParserError (a ValueError) dateutil lets others through on odd text.
    except (ValueError, OverflowError, TypeError, IndexError, AttributeError, ArithmeticError):
        return None


def _zone(name: str | None, offset_s: int | None) -> timezone | None:
    """The zone of a name; without this dateutil would take the machine's own for some names, and ignore others."""
    if offset_s is not None:
        return timezone(timedelta(seconds=offset_s))
    if name is None:
        return None
    if name.upper() not in _ZONE_HOURS:
        raise ValueError(f"{name} is not the name of one zone")
    return timezone(timedelta(hours=_ZONE_HOURS[name.upper()]))
