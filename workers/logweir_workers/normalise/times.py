"""When an event happened, read from whatever a sender wrote, as one fixed spelling in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from logweir.clock import DAY_US
from logweir_workers.normalise.time_forms import FORMS, ZONES_H

Time = tuple[int, bool]
"""Microseconds since 1970-01-01 UTC, and whether they are all that was said: not so where digits were cut."""

# The lower bound is 1973-03-03T09:46:40. A clock that starts at 1970 is recognised as not set.
_SECONDS_MIN, _SECONDS_END = 100_000_000, 4_102_444_800
_MIN_US, _END_US = _SECONDS_MIN * 1_000_000, _SECONDS_END * 1_000_000

UNITS = (
    ("seconds", _SECONDS_MIN, _SECONDS_END, 6),
    ("milliseconds", 10**12, _SECONDS_END * 10**3, 3),
    ("microseconds", 10**15, _SECONDS_END * 10**6, 0),
    ("nanoseconds", 10**18, _SECONDS_END * 10**9, -3),
)
"""Since 1970: unit, its smallest number, the first that is too large, and by which power of ten microseconds are more.

Each unit has a number of digits of its own: 9 or 10, 13, 16, 19. Fewer would be milliseconds before 2001, but are dates
(202601311200), seconds after 2100 and Windows' 100 nanoseconds since 1601, too.
"""

TEXT_LENGTH_MAX = 100
"""A longer text is not a time; it is not worth the work of all forms."""

EARLY_US = 7 * DAY_US
"""How far a time without a year may lie ahead of its receipt: zones and wrong clocks. Logs are late, seldom early."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_OF_NO_ZONE = datetime(1970, 1, 1)
_EPOCH_DAY = _EPOCH.toordinal()
_MICROSECOND = timedelta(microseconds=1)
_SECOND_US, _MINUTE_US, _HOUR_US = 1_000_000, 60_000_000, 3_600_000_000
_OFFSET_MAX_US = 14 * _HOUR_US

_FINER = re.compile("[0-9]*[1-9]")
_NUMBER = re.compile(r"[1-9][0-9]{8,18}(?:\.[0-9]{0,30})?")
_EXPONENT = re.compile(r"[1-9](?:\.[0-9]{1,30})?[eE]\+?(?:[89]|1[0-8])")
_OFFSET = re.compile("(UTC|GMT|UT)? ?([+-])([0-9]{1,2})(:?)([0-9]{2})?")
_PATTERNS = tuple(pattern for form in FORMS for pattern in form.compiled())

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_WEEKDAYS = {name: number for number, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}


def iso_of(time_us: int) -> str:
    """``time_us``, microseconds since 1970-01-01 UTC, as ``2026-01-31T12:00:00.000000+00:00``."""
    return f"{_second(time_us // 1_000_000)}.{time_us % 1_000_000:06d}+00:00"


@lru_cache(maxsize=1024)
def _second(time_s: int) -> str:
    # Events of one bulk lie close together: spelling each second once halves the cost.
    return (_EPOCH + timedelta(seconds=time_s)).strftime("%Y-%m-%dT%H:%M:%S")


def time_of(value: Any, received_us: int) -> Time | None:
    """The time that ``value`` says; None when it says none between 1973-03-03 and 2100, or could say two.

    Read are the forms of ``time_forms.FORMS``, and numbers of UNITS, as numbers and as text. Without a zone it is UTC;
    without a year it is the latest that is not more than EARLY_US after ``received_us``. Digits beyond microseconds are
    cut. 24:00:00 is the end of the day; a leap second is the last microsecond of the second before it.
    """
    if type(value) is str:
        text = value.strip()
        time = _of_rfc_3339(text) or _of_text(text, received_us)
    elif type(value) is int:
        time = _of_number(value, "") or _of_text(str(value), received_us)
    elif type(value) is float:
        time = _of_text(repr(value), received_us)
    else:
        return None
    return time if time is not None and _MIN_US <= time[0] < _END_US else None


def _of_rfc_3339(text: str) -> Time | None:
    """What most senders write, quickly; None for all else, and for what is to be looked at closely."""
    if len(text) < 19 or text[4] != "-" or text[10] not in "Tt " or text[13] != ":" or text[16] != ":":
        return None
    rest = text[19:]
    is_plain = rest == "" or rest == "Z"
    if is_plain or (rest[0] == "." and rest[-1] == "Z" and len(rest) < 9 and rest.isascii() and rest[1:-1].isdigit()):
        second_us = _of_second(text[:19])
        if second_us is not None:
            return second_us + (0 if is_plain else int(rest[1:-1]) * 10 ** (8 - len(rest))), True
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # 24:00:00, a leap second, a zone's name, or no time
        return None
    if moment.tzinfo is None:
        since = moment - _EPOCH_OF_NO_ZONE
    # ``datetime`` takes offsets of seconds, and of up to 24 hours, which no zone has.
    elif moment.tzinfo is UTC or (text[-6] in "+-" and text[-5:-3] <= "14"):
        since = moment - _EPOCH
    else:
        return None
    is_finer = len(text) > 26 and text[20:27].isdigit() and _FINER.match(text, 26) is not None
    return since // _MICROSECOND, not is_finer


@lru_cache(maxsize=1024)  # A second's events say the same.
def _of_second(text: str) -> int | None:
    """The time of a day and a time of day without fraction and zone; None when that is none."""
    try:
        return (datetime.fromisoformat(text) - _EPOCH_OF_NO_ZONE) // _MICROSECOND
    except (ValueError, TypeError):
        return None


def _of_text(text: str, received_us: int) -> Time | None:
    if _NUMBER.fullmatch(text):
        whole, _, fraction = text.partition(".")
        if (time := _of_number(int(whole), fraction)) is not None:
            return time
    elif _EXPONENT.fullmatch(text):
        whole, _, fraction = format(Decimal(text), "f").partition(".")
        return _of_number(int(whole), fraction)
    return _of_form(text, (received_us + EARLY_US) // DAY_US) if len(text) <= TEXT_LENGTH_MAX else None


def _of_number(whole: int, fraction: str) -> Time | None:
    for _, smallest, end, power in UNITS:
        if smallest <= whole < end:
            if power < 0:
                return whole // 1000, whole % 1000 == 0 and not fraction.strip("0")
            return whole * 10**power + int("0" + fraction[:power].ljust(power, "0")), not fraction[power:].strip("0")
    return None


@lru_cache(maxsize=1024)  # A second's events say the same.
def _of_form(text: str, latest_day: int) -> Time | None:
    """The time that ``text`` says in one of FORMS; ``latest_day``, since 1970: the last one that has no year."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    for pattern in _PATTERNS:
        if (match := pattern.fullmatch(text)) is not None and (time := _of_parts(match.groupdict(), latest_day)):
            return time
    return None


# --- the parts of a form ---------------------------------------------------------------------------------------------

Parts = Mapping[str, str | None]
"""What the named groups of a form have found; None for what was left out."""


def _of_parts(parts: Parts, latest_day: int) -> Time | None:
    if milliseconds := parts.get("milliseconds"):
        return int(milliseconds) * 1000, True
    day, clock_us, offset_us = _day(parts, latest_day), _clock_us(parts), _offset_us(parts)
    if day is None or clock_us is None or offset_us is None:
        return None
    time_us = (day.toordinal() - _EPOCH_DAY) * DAY_US + clock_us - offset_us
    if parts.get("second") == "60" and not _is_before_leap(time_us):
        return None
    finer = (parts.get("fraction") or "")[6:].strip("0")
    return time_us, not finer and not parts.get("mark") and parts.get("second") != "60"


def _clock_us(parts: Parts) -> int | None:
    """Microseconds since midnight."""
    hour, minute, second = (int(parts.get(name) or 0) for name in ("hour", "minute", "second"))
    fraction_us = int((parts.get("fraction") or "")[:6].ljust(6, "0"))
    if half := parts.get("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half in "Pp" else 0)
    if second == 60:
        second, fraction_us = 59, 999_999
    clock_us = hour * _HOUR_US + minute * _MINUTE_US + second * _SECOND_US + fraction_us
    return clock_us if minute < 60 and second < 60 and clock_us <= DAY_US else None


def _is_before_leap(time_us: int) -> bool:
    """Whether ``time_us`` is in the last second of a month in UTC: the only place where a second 60 can follow."""
    day, second = divmod(time_us // _SECOND_US + 1, 86_400)
    return second == 0 and date.fromordinal(_EPOCH_DAY + day).day == 1


def _offset_us(parts: Parts) -> int | None:
    """How far the zone is ahead of UTC; 0 where none is said, None where it is not known."""
    if minutes := parts.get("offset_minutes"):
        return int(minutes) * _MINUTE_US
    zone, aside = parts.get("zone"), parts.get("aside")
    if zone is None:
        return 0
    offset_us = _zone_us(zone)
    if aside is None or aside[1] == "(" or aside[0] == "[":
        return offset_us
    # Of an offset and a name, the offset counts: +0800 CST. But the two must not contradict each other.
    other_us = _zone_us(aside.strip())
    return offset_us if other_us == offset_us or (other_us is None and zone[0] in "+-") else None


def _zone_us(zone: str) -> int | None:
    match = _OFFSET.fullmatch(zone.upper())
    if match is None:
        hours = ZONES_H.get(zone.upper())
        return None if hours is None else int(hours * _HOUR_US)
    name, sign, hour, colon, minute = match.groups()
    # RFC 3339 and ISO 8601 have two digits for the hour; UTC+3 and GMT+3:30 are what people write.
    if len(hour) == 1 and (name is None or (minute and not colon)):
        return None
    offset_us = int(hour) * _HOUR_US + int(minute or 0) * _MINUTE_US
    if int(minute or 0) > 59 or offset_us > _OFFSET_MAX_US:
        return None
    # Not the POSIX variable TZ, which counts to the west: in a time, +0100 is east behind GMT as it is alone.
    return offset_us if sign == "+" else -offset_us


def _day(parts: Parts, latest_day: int) -> date | None:
    """The day that is meant, if it is only one. A day of the week that is said must be its own."""
    days = {day for day in _days(parts, latest_day) if day is not None}
    if weekday := parts.get("weekday"):
        days = {day for day in days if day.weekday() == _WEEKDAYS[weekday[:3].lower()]}
    return days.pop() if len(days) == 1 else None


def _days(parts: Parts, latest_day: int) -> Iterable[date | None]:
    """The days that may be meant; None for one that no calendar has."""
    number = {name: int(text) for name, text in parts.items() if text and text.isdigit()}
    if "week" in number:
        return [_made(date.fromisocalendar, number["week_year"], number["week"], number["day_of_week"])]
    if "day_of_year" in number:
        return [_made(_day_of_year, number["year"], number["day_of_year"])]
    if "last" in number:
        return _days_in_any_order(number["first"], number["second_number"], str(parts["last"]))
    month = number["month"] if "month" in number else _MONTHS[str(parts["month_name"])[:3].lower()]
    if "year" in number:
        return [_made(date, number["year"], month, number["day"])]
    if "year_of_century" in number:
        return [_made(date, century + number["year_of_century"], month, number["day"]) for century in (1900, 2000)]
    # RFC 3164 section 4.1.2 leaves the year out.
    latest = date.fromordinal(_EPOCH_DAY + latest_day)
    days = (_made(date, year, month, number["day"]) for year in (latest.year, latest.year - 1))
    return [day for day in days if day is not None and day <= latest][:1]


def _days_in_any_order(first: int, second: int, last: str) -> Iterable[date | None]:
    """The days that three numbers may be, if nobody says which of them is which."""
    year = int(last)
    if len(last) == 4:
        return [_made(date, year, second, first), _made(date, year, first, second)]
    day_last = _made(date, _year_of_century(first), second, year)
    year = _year_of_century(year)
    return [_made(date, year, second, first), _made(date, year, first, second), day_last]


def _year_of_century(number: int) -> int:
    # POSIX strptime %y.
    return number + (1900 if number >= 69 else 2000)


def _day_of_year(year: int, number: int) -> date:
    day = date(year, 1, 1) + timedelta(days=number - 1)
    if day.year != year:
        raise ValueError(f"{year} has no day {number}")
    return day


def _made(make: Callable[..., date], *numbers: int) -> date | None:
    try:
        return make(*numbers)
    except (ValueError, OverflowError):
        return None
