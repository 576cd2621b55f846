"""The table of time forms: its examples, that no two forms disagree, and that the zone names are of one zone each."""

from __future__ import annotations

import time
import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logweir_workers.normalise.time_forms import FORMS, ZONES_H, ZONES_OF_SEVERAL
from logweir_workers.normalise.times import (
    EARLY_US,
    TEXT_LENGTH_MAX,
    UNITS,
    _of_parts,
    _of_rfc_3339,
    _of_text,
    time_of,
)

NOON_US = 1_769_860_800_000_000
"""2026-01-31T12:00:00Z, of which the forms' examples speak."""
RECEIVED_US = NOON_US + 3_600_000_000
_DAY = RECEIVED_US // 86_400_000_000 + 7


@pytest.mark.parametrize("example", [example for form in FORMS for example in form.examples])
def test_example_of_a_form_is_read(example: str) -> None:
    """Each says noon, with or without a quarter of a second, or the day alone."""
    time = time_of(example, RECEIVED_US)

    assert time is not None
    assert time[0] in (NOON_US, NOON_US + 250_000, NOON_US - 12 * 3_600_000_000)


@pytest.mark.parametrize("example", [example for form in FORMS for example in form.examples])
def test_forms_that_fit_the_same_text_agree(example: str) -> None:
    """The order of the table decides nothing."""
    text = example.strip("[]") if example.startswith("[") else example
    matches = [pattern.fullmatch(text) for form in FORMS for pattern in form.compiled()]
    times = {time for match in matches if match and (time := _of_parts(match.groupdict(), _DAY)) is not None}

    assert len(times) == 1


def test_quick_way_and_table_agree() -> None:
    """Whatever the quick way reads, the table reads alike."""
    texts = st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]([.,][0-9]{0,9})?"
        r"(Z|z| Z|[+-][0-2][0-9]:?[0-9]{0,2}(:[0-9]{2})?)?",
        fullmatch=True,
    )

    @given(texts)
    @example("2026-01-31T12:00:00.1+01:00")
    @example("2026-01-31T12:00:00+23:59")
    @example("2026-01-31T12:00:00-08:00:30")
    @example("2026-01-31T12:00:00.123456000Z")
    @example("2026-01-31T12:00:00.1234560001Z")
    def agree(text: str) -> None:
        assert _of_rfc_3339(text) in (None, _of_text(text, RECEIVED_US))

    agree()


@given(
    st.datetimes(datetime(1974, 1, 1), datetime(2099, 12, 30)),
    st.sampled_from(
        [
            "%Y-%m-%dT%H:%M:%S.%fZ",
            "%Y%m%dT%H%M%S.%f",
            "%Y%m%d%H%M%S.%fZ",
            "%Y/%m/%d %H:%M:%S.%f",
            "%d/%b/%Y:%H:%M:%S.%f +0000",
            "%a %b %d %H:%M:%S.%f %Y",
            "%a, %d %b %Y %H:%M:%S.%f GMT",
            "%B %d, %Y %I:%M:%S.%f %p UTC",
            "%b %d %Y %H:%M:%S.%f",
            "%Y-%jT%H:%M:%S.%fZ",
            "%G-W%V-%uT%H:%M:%S.%fZ",
            "I%Y%m%d %H:%M:%S.%f",
            "%d-%b-%Y %H:%M:%S.%f",
            "%Y-%m-%d-%H.%M.%S.%f",
        ],
    ),
)
def test_what_is_written_in_a_form_is_read_back(moment: datetime, form: str) -> None:
    """Any time of any day, to the microsecond."""
    time_us = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    assert time_of(moment.strftime(form), RECEIVED_US) == (time_us, True)


@given(st.integers(NOON_US - 300 * 86_400_000_000, NOON_US + EARLY_US // 2))
def test_time_without_a_year_is_the_latest_that_is_not_early(time_us: int) -> None:
    """Months late, or days early: the year is right."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)

    assert time_of(moment.strftime("%b %d %H:%M:%S.%f"), NOON_US) == (time_us, True)


@given(st.text(max_size=40) | st.from_regex(r"[0-9TZ:./ +-]{1,40}", fullmatch=True))
def test_any_text_is_a_time_or_none(text: str) -> None:
    """Nothing raises."""
    time_of(text, RECEIVED_US)


def test_each_unit_has_its_own_number_of_digits() -> None:
    """So that a number is in one unit only, and dates of digits are in none."""
    digits = [{len(str(smallest)), len(str(end - 1))} for _, smallest, end, _ in UNITS]

    assert digits == [{9, 10}, {13}, {16}, {19}]


def test_name_of_a_zone_has_one_meaning_in_the_tz_database() -> None:
    """Each name of the table is one offset, wherever it has been in use since 2019; the others are not in the table."""
    offsets: dict[str, set[float]] = {}
    for name in zoneinfo.available_timezones():
        zone = zoneinfo.ZoneInfo(name)
        for month in range(0, 84, 3):
            moment = datetime(2019 + month // 12, month % 12 + 1, 15, tzinfo=zone)
            offset = moment.utcoffset()
            if offset is not None:
                offsets.setdefault(str(moment.tzname()), set()).add(offset.total_seconds() / 3600)

    for name in set(ZONES_H) - {"UT", "Z"}:
        assert offsets[name] == {ZONES_H[name]}, name
    several = {name for name, found in offsets.items() if len(found) > 1 and name.isalpha()}
    assert several <= set(ZONES_OF_SEVERAL)
    assert not set(ZONES_OF_SEVERAL) & set(ZONES_H)


@pytest.mark.parametrize(
    "text", ["1" * 200_000, "2026-01-31T" * 9, " " * 99 + "x", "Jan " * 25, "[" * 99 + "]", "x" * 100]
)
def test_no_text_takes_long(text: str) -> None:
    """The forms are bounded, and no longer text is looked at."""
    begun = time.perf_counter()
    for number in range(100):
        time_of(text[: TEXT_LENGTH_MAX - 3] + str(number), RECEIVED_US)
        time_of(text + str(number), RECEIVED_US)

    assert (time.perf_counter() - begun) / 100 < 0.01
