"""Times as people write them: ``15m``, ``2026-01-31``, ``2026-01-31T12:05``, seconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from logweir.clock import DAY_US, duration_us
from logweir.errors import PARAMETER_BAD, TIME_BAD, LogweirError


def within_years(time_us: int) -> int:
    """The nearest time that is in the years 1970 to 9999, of which there are daily indices."""
    return max(0, min(time_us, END_US - 1))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_US = 253_402_300_800_000_000
"""The beginning of the year 10000, which no event knows."""
_TIME = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[T ](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"(?P<zone>Z|[+-]\d\d:?\d\d)?)?)?)?",
    re.ASCII,
)
_EPOCH_SECONDS = re.compile(r"\d{9,11}(\.\d{1,9})?", re.ASCII)
_EPOCH_MILLISECONDS = re.compile(r"\d{12,14}", re.ASCII)


def time_bounds(start: str | None, end: str | None, now_us: int) -> tuple[int | None, int | None]:
    """Both ends of a time range in microseconds, None for one that is not given.

    The same time for both is all of what it names: the day of 2026-01-31, the second of 2026-01-31T12:00:00.
    Raises LogweirError(TIME_BAD), and (PARAMETER_BAD) for a range that ends before it begins, or where it begins.
    """
    from_us = time_of(start, now_us) if start else None
    to_us = time_of(end, now_us) if end else None
    if start and end and start.strip() == end.strip():
        named = interval_us(end.strip())
        to_us = to_us if named is None else named[1]
    if from_us is not None and to_us is not None and from_us >= to_us:
        raise LogweirError(
            PARAMETER_BAD, name="to", value=end, expected=f"a time after {start!r}, where the range begins"
        )
    return from_us, to_us


def time_of(text: str, now_us: int) -> int:
    """Microseconds since 1970 of an ISO time (its first moment), epoch seconds or milliseconds, or an age such as 15m.

    Raises LogweirError(TIME_BAD).
    """
    age_us = duration_us(text.strip())
    if age_us is not None:
        return max(0, now_us - age_us)
    interval = interval_us(text.strip())
    if interval is None:
        # In a URL, a plus stands for a space.
        plus = re.fullmatch(r"(\d{4}-.*) (\d\d:?\d\d)", text.strip(), re.ASCII)
        hint = f" Is it {plus[1]}+{plus[2]}? In a URL, + is written %2B." if plus else ""
        raise LogweirError(TIME_BAD, value=text, hint=hint)
    return interval[0]


def time_from_now(text: str, now_us: int) -> int:
    """As ``time_of``; an age such as 2h is so long from now on. Raises LogweirError(TIME_BAD)."""
    ahead_us = duration_us(text.strip())
    return time_of(text, now_us) if ahead_us is None else now_us + ahead_us


def interval_us(text: str) -> tuple[int, int] | None:
    """From and to (not included) in microseconds: a day for 2026-01-31, a second for 2026-01-31T12:00:00, …"""
    if _EPOCH_SECONDS.fullmatch(text):
        seconds, _, fraction = text.partition(".")
        start = int(seconds) * 1_000_000 + int(f"{fraction:0<6}"[:6])
        return start, start + (1000 if fraction else 1_000_000)
    if _EPOCH_MILLISECONDS.fullmatch(text):
        return int(text) * 1000, int(text) * 1000 + 1000
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    parts = [int(value) for name in ("year", "month", "day", "hour", "minute", "second") if (value := match[name])]
    try:
        zone = datetime.strptime(match["zone"], "%z").tzinfo if match["zone"] else UTC
        moment = datetime(*[*parts, 1, 1][: max(3, len(parts))], tzinfo=zone)  # type: ignore[misc,arg-type]
    except ValueError:
        return None
    start = (moment - _EPOCH) // timedelta(microseconds=1) + int(f"{match['fraction'] or '':0<6}"[:6])
    return start, _end_us(start, moment, len(parts), fraction=match["fraction"] is not None)


def _end_us(start: int, moment: datetime, parts: int, *, fraction: bool) -> int:
    if fraction:
        return start + 1000
    if parts >= 3:
        return start + (DAY_US, 3_600_000_000, 60_000_000, 1_000_000)[parts - 3]
    months = moment.year * 12 + moment.month - 1 + (12 if parts == 1 else 1)
    if months >= 120_000:
        return END_US
    return (datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
