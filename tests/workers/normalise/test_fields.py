"""One event as sent -> as stored: every rule of docs/reference/event.md, hostile forms, and that nothing is lost."""

import copy
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.config import WorkerSettings
from logweir.event import FIELDS, KEYWORD_LENGTH_MAX
from logweir.query.words import BOUNDARY, WORD_LENGTH_MAX, words_of
from logweir_workers.decode import event_of
from logweir_workers.enrich import load
from logweir_workers.normalise import details
from logweir_workers.normalise.fields import (
    LEVELS_MAX,
    NAME_SIZE_BYTES_MAX,
    RENAMED,
    SYNONYMS,
    TAGS_MAX,
    TIME_UNREADABLE,
    WORDS_MAX,
    Context,
    normalise,
    words_for,
)
from logweir_workers.normalise.severities import SCALES, SEVERITIES, SPELLINGS
from logweir_workers.normalise.times import iso_of

RECEIVED_US = 1_767_614_400_500_000
RECEIVED = "2026-01-05T12:00:00.500000+00:00"
CONTEXT = Context(RECEIVED_US, "web")
GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "events").glob("*.json"))
PROVENANCE = {"ingest_stream", "ingest_number", "content_hash"}


def stored(event: dict[str, Any], context: Context = CONTEXT) -> dict[str, Any]:
    """What is stored of ``event``, without the fields that every event of this context has."""
    result = normalise(event, context)
    assert result.pop("receivedtimestamp") == RECEIVED
    assert result.pop("key") == "web"
    assert result["utctimestamp"] == result.pop("timestamp")
    if result["utctimestamp"] == RECEIVED:
        del result["utctimestamp"]
    return result


def time_of(value: Any, received_us: int = RECEIVED_US) -> str | None:
    """How a sent timestamp is stored; None when it could not be read."""
    result = normalise({"timestamp": value}, Context(received_us, "web"))
    if TIME_UNREADABLE in result.get("tags", ()):
        assert result["timestamp"] == result["receivedtimestamp"]
        assert result["details"]["timestamp"] == value
        return None
    return str(result["timestamp"])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_event_is_stored_as_its_file_says(path: Path) -> None:
    """Real senders' events: the raw bytes and what is known of the batch, and the document in full, enriched."""
    golden = json.loads(path.read_text(encoding="utf-8"))
    context = Context(**golden["context"])

    event = normalise(event_of(golden["raw"].encode()), context)
    load(WorkerSettings())(event, context)

    assert event == golden["stored"]


def test_empty_event_has_only_what_the_door_knows() -> None:
    """Absent fields are absent, never UNKNOWN; the time is that of receipt."""
    context = Context(RECEIVED_US, "web", emitter="api", source_address="192.0.2.7")

    assert normalise({}, context) == {
        "timestamp": RECEIVED,
        "utctimestamp": RECEIVED,
        "receivedtimestamp": RECEIVED,
        "key": "web",
        "emitter": "api",
        "sourceaddress": "192.0.2.7",
    }


@pytest.mark.parametrize("name", ["key", "emitter", "sourceaddress", "receivedtimestamp", *sorted(PROVENANCE)])
def test_event_cannot_say_what_only_the_door_knows(name: str) -> None:
    """A sent key, address or receipt time is kept under details and never believed."""
    context = Context(RECEIVED_US, "web", emitter="api", source_address="192.0.2.7")

    result = normalise({name: "forged"}, context)

    assert result.get(name) != "forged"
    assert result["details"] == {name: "forged"}


@pytest.mark.parametrize(("field", "name"), [(field, name) for field, names in SYNONYMS.items() for name in names])
def test_every_synonym_fills_its_field(field: str, name: str) -> None:
    """Each name of the table works alone, in its own spelling and, but for those in upper case, in any."""
    values = {
        "timestamp": (1_700_000_000, "2023-11-14T22:13:20.000000+00:00"),
        "severity": ("ERROR", "ERROR"),
        "tags": (["a"], ["a"]),
        "details": ({"a": 1}, {"a": 1}),
    }
    sent, expected = values.get(field, ("x", "x"))

    for spelling in {name} if name.isupper() else {name, name.upper(), name.title()}:
        result = normalise({spelling: sent}, CONTEXT)
        assert result[field] == expected
        assert field == "details" or "details" not in result


def test_stronger_name_wins_whatever_the_order() -> None:
    """The table's order decides, not the sender's; what loses keeps its name under details."""
    event = {"msg": "three", "MESSAGE": "two and a half", "message": "two", "summary": "one"}
    expected = {"summary": "one", "details": {"message": "two", "MESSAGE": "two and a half", "msg": "three"}}

    assert stored(event) == expected
    assert stored(dict(reversed(event.items()))) == expected


def test_weaker_name_steps_in_when_the_stronger_does_not_fit() -> None:
    """An empty or unfit value of the stronger name is no reason to go without."""
    assert stored({"hostname": None, "host": "web1"}) == {"hostname": "web1"}
    assert stored({"hostname": " ", "host": "web1"}) == {"hostname": "web1"}
    assert stored({"hostname": ["a", "b"], "host": "web1"}) == {
        "hostname": "web1",
        "details": {"hostname": ["a", "b"]},
    }
    assert stored({"level": "loud", "lvl": "warn"}) == {
        "severity": "WARNING",
        "details": {"level": "loud", "lvl": "warn"},
    }


def test_name_that_says_the_same_is_not_kept_twice() -> None:
    """MozDef's own events carry their time under two names."""
    assert stored({"summary": "x", "message": " x "}) == {"summary": "x"}
    assert stored({"utctimestamp": "2023-11-14T22:13:20+00:00", "timestamp": 1_700_000_000}) == {
        "utctimestamp": "2023-11-14T22:13:20.000000+00:00"
    }


def test_objects_of_the_elastic_common_schema_are_understood() -> None:
    """Members with a field here move there; the others stay where they are."""
    event = {
        "@timestamp": "2023-11-14T22:13:20Z",
        "host": {"name": "web1", "ip": ["192.0.2.7"]},
        "log": {"level": "warning", "file": {"path": "/x"}},
        "process": {"pid": 7, "name": "app"},
        "log.logger": "app.db",
        "message": "hello",
        "source": {"ip": "192.0.2.9"},
    }

    assert stored(event) == {
        "utctimestamp": "2023-11-14T22:13:20.000000+00:00",
        "hostname": "web1",
        "severity": "WARNING",
        "processid": "7",
        "processname": "app",
        "source": "app.db",
        "summary": "hello",
        "details": {
            "host": {"ip": ["192.0.2.7"]},
            "log": {"file": {"path": "/x"}},
            "sourceipaddress": "192.0.2.9",
        },
    }
    assert stored({"host": {"name": "a"}, "host.name": "b"}) == {
        "hostname": "b",
        "details": {"host": {"name": "a"}},
    }
    assert stored({"host": {"name": {"a": 1}}}) == {"details": {"host.name": {"a": 1}}}
    assert stored({"host": {}, "log": {"x": 1}}) == {"details": {"log": {"x": 1}}}


def test_unknown_names_move_under_details() -> None:
    """Names with blanks, dots and signs stay as they are; null is kept where it has no field."""
    event = {"message id": "-", "PRI-Text": "auth.info", "a.b": 1, "x": None, "": "empty"}

    assert stored(event) == {"details": event}


def test_name_taken_in_details_gets_a_number() -> None:
    """What is in details keeps its name; what moves there takes the next that is free, and says which it had."""
    assert stored({"details": {"a": 1, "a_2": 2}, "a": 3}) == {
        "details": {"a": 1, "a_2": 2, "a_3": 3, RENAMED: {"a_3": "a"}}
    }
    assert stored({RENAMED: "x", "details": {"a": 1}, "a": 2})["details"] == {
        "a": 1,
        RENAMED: "x",
        "a_2": 2,
        f"{RENAMED}_2": {"a_2": "a"},
    }


@pytest.mark.parametrize("details", ["text", 7, True, [1, {"a": 2}]])
def test_details_that_are_no_object_are_kept_below_details(details: object) -> None:
    """The field is always an object."""
    assert stored({"details": details, "a": 1}) == {"details": {"details": details, "a": 1}}


@pytest.mark.parametrize("nothing", [None, "", "  ", [], {}])
@pytest.mark.parametrize("field", sorted(SYNONYMS))
def test_value_that_says_nothing_leaves_the_field_absent(field: str, nothing: object) -> None:
    """Null, blanks and empty containers in a known field leave no trace, not even a tag about the time."""
    assert stored({field: nothing}) == {}


@pytest.mark.parametrize(
    "field", ["category", "hostname", "fqdn", "processid", "processname", "source", "type", "version"]
)
def test_text_field_takes_scalars_and_sends_containers_to_details(field: str) -> None:
    """Numbers and booleans become text; what is not one value, or is very long, moves under details whole."""
    assert stored({field: "  x y "}) == {field: "x y"}
    assert stored({field: ["x"]}) == {field: "x"}
    assert stored({field: 1234}) == {field: "1234"}
    assert stored({field: 12.0}) == {field: "12" if field == "processid" else "12.0"}
    assert stored({field: 1.5}) == {field: "1.5"}
    assert stored({field: False}) == {field: "false"}
    assert stored({field: "x" * KEYWORD_LENGTH_MAX}) == {field: "x" * KEYWORD_LENGTH_MAX}
    for unfit in ("x" * (KEYWORD_LENGTH_MAX + 1), ["x", "y"], [["x"]], [None], {"x": 1}):
        assert stored({field: unfit}) == {"details": {field: unfit}}


@pytest.mark.parametrize("field", ["hostname", "fqdn", "processid", "processname"])
def test_syslog_nil_is_absent(field: str) -> None:
    """RFC 5424 writes "-" for a header field that is not known."""
    assert stored({field: "-"}) == stored({field: " - "}) == {}


def test_dash_is_a_value_elsewhere() -> None:
    """A message may be a dash."""
    assert stored({"summary": "-", "category": "-"}) == {"summary": "-", "category": "-"}


def test_summary_takes_anything() -> None:
    """Text is trimmed, whatever its length; everything else is written as JSON."""
    assert stored({"summary": " \n x\n"}) == {"summary": "x"}
    assert stored({"summary": "x" * 200_000}) == {"summary": "x" * 200_000}
    assert stored({"summary": {"a": [1, "ü"]}}) == {"summary": '{"a":[1,"ü"]}'}
    assert stored({"summary": [None]}) == {"summary": "[null]"}
    assert stored({"summary": 0}) == {"summary": "0"}


def test_tags_are_a_list_of_text() -> None:
    """One text is one tag, commas or not; scalars become text, the rest moves under details."""
    assert stored({"tags": "a,b c"}) == {"tags": ["a,b c"]}
    assert stored({"tags": 7}) == {"tags": ["7"]}
    assert stored({"tags": ["a", 1, True, None, "", " b "]}) == {"tags": ["a", "1", "true", "b"]}
    assert stored({"tags": ["a", ["b"], {"c": 1}]}) == {"tags": ["a"], "details": {"tags": [["b"], {"c": 1}]}}
    assert stored({"tags": {"a": 1}}) == {"details": {"tags": {"a": 1}}}


def test_tags_beyond_the_limit_move_under_details() -> None:
    """A tag too many or too long is kept, not searched as a tag."""
    tags = [f"t{number}" for number in range(TAGS_MAX + 2)]
    long = "x" * (KEYWORD_LENGTH_MAX + 1)

    assert stored({"tags": tags}) == {"tags": tags[:TAGS_MAX], "details": {"tags": tags[TAGS_MAX:]}}
    assert stored({"tags": [long, "a"]}) == {"tags": ["a"], "details": {"tags": [long]}}


@pytest.mark.parametrize(
    ("sent", "severity"),
    [
        *((name, name) for name in SEVERITIES),
        *((name.lower(), name) for name in SEVERITIES),
        *((f" {name.title()} ", name) for name in SEVERITIES),
    ],
)
def test_severity_by_its_name_leaves_nothing_in_details(sent: str, severity: str) -> None:
    """Case and blanks around are no difference worth keeping."""
    assert stored({"severity": sent}) == {"severity": severity}


@pytest.mark.parametrize(
    ("sent", "severity"),
    [
        *((spelling, name) for name, spellings in SPELLINGS.items() for spelling in spellings),
        *((spelling.upper(), name) for name, spellings in SPELLINGS.items() for spelling in spellings),
        *((number, name) for number, name in enumerate(SEVERITIES)),
        *((str(number), name) for number, name in enumerate(SEVERITIES)),
        *((number, name) for scale in SCALES if not scale.told_by for number, name in scale.severities.items()),
        ("40", "ERROR"),
        (" 3 ", "ERROR"),
        (["warn"], "WARNING"),
    ],
)
def test_severity_in_another_spelling_keeps_it_in_details(sent: Any, severity: str) -> None:
    """What was really sent stays visible, under the name it was sent with."""
    assert stored({"severity": sent}) == {"severity": severity, "details": {"severity": sent}}
    assert stored({"level": sent}) == {"severity": severity, "details": {"level": sent}}


@pytest.mark.parametrize(
    "sent", ["loud", "8", 8, -1, 35, 6.5, 6.0, "6.0", True, ["INFO", "INFO"], {"a": 1}, "INFO INFO", "x" * 9000]
)
def test_unreadable_severity_is_absent_and_kept_in_details(sent: object) -> None:
    """No guess: the sent value stays findable below details."""
    assert stored({"severity": sent}) == {"details": {"severity": sent}}


@pytest.mark.parametrize(
    ("pri", "severity"),
    [
        ("38", "INFO"),
        (0, "EMERGENCY"),
        (191, "DEBUG"),
        ("<13>", "NOTICE"),
        (192, None),
        ("x", None),
        (None, None),
        (-1, None),
        (1.0, None),
    ],
)
@pytest.mark.parametrize("name", ["PRI", "pri"])
def test_pri_gives_the_severity_when_nothing_else_does(name: str, pri: object, severity: str | None) -> None:
    """PRI stays under details: it also says the facility."""
    expected: dict[str, Any] = {"details": {name: pri}}

    assert stored({name: pri}) == (expected | {"severity": severity} if severity else expected)
    assert stored({name: pri, "severity": "ALERT"}) == expected | {"severity": "ALERT"}


NOON = "2026-01-05T12:00:00.000000+00:00"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("2026-01-05T12:00:00Z", NOON),
        ("2026-01-05T12:00:00+00:00", NOON),
        ("2026-01-05T13:00:00+01:00", NOON),
        ("2026-01-05T13:00:00+0100", NOON),
        ("2026-01-05T06:30:00-05:30", NOON),
        ("2026-01-05T12:00:00", NOON),
        ("2026-01-05 12:00:00", NOON),
        ("2026-01-05 12:00:00 UTC", NOON),
        ("2026-01-05 13:00:00 +0100", NOON),
        ("2026-01-05T12:00", NOON),
        ("20260105T120000Z", NOON),
        ("20260105120000", NOON),
        ("20260105", "2026-01-05T00:00:00.000000+00:00"),
        ("2026-01-05", "2026-01-05T00:00:00.000000+00:00"),
        (" 2026-01-05T12:00:00Z ", NOON),
        ("2026-01-05T12:00:00.1Z", "2026-01-05T12:00:00.100000+00:00"),
        ("2026-01-05 12:00:00,123", "2026-01-05T12:00:00.123000+00:00"),
        ("2026-01-05T12:00:00.123456Z", "2026-01-05T12:00:00.123456+00:00"),
        ("2026-01-05T12:00:00.123456000Z", "2026-01-05T12:00:00.123456+00:00"),
        (1767614400, NOON),
        (1767614400.0, NOON),
        (1767614400.25, "2026-01-05T12:00:00.250000+00:00"),
        ("1767614400", NOON),
        ("1767614400.25", "2026-01-05T12:00:00.250000+00:00"),
        (1767614400250, "2026-01-05T12:00:00.250000+00:00"),
        (1767614400250.5, "2026-01-05T12:00:00.250500+00:00"),
        ("1767614400250", "2026-01-05T12:00:00.250000+00:00"),
        (1767614400250001, "2026-01-05T12:00:00.250001+00:00"),
        ("1767614400250001", "2026-01-05T12:00:00.250001+00:00"),
        (1767614400250001000, "2026-01-05T12:00:00.250001+00:00"),
        ("1767614400250001000", "2026-01-05T12:00:00.250001+00:00"),
        ("Jan  5 12:00:00", NOON),
        ("Jan 5 12:00:00", NOON),
        ("Jan  5 12:00:00.25", "2026-01-05T12:00:00.250000+00:00"),
        ("05/Jan/2026:13:00:00 +0100", NOON),
        ("Mon Jan  5 12:00:00 2026", NOON),
        ("Mon, 05 Jan 2026 12:00:00 GMT", NOON),
        ("Mon, 5 Jan 2026 07:00:00 EST", NOON),
        ("Jan 5, 2026 12:00:00 PM", NOON),
        ("2026/01/25 12:00:00", "2026-01-25T12:00:00.000000+00:00"),
        ("01/25/2026 12:00:00", "2026-01-25T12:00:00.000000+00:00"),
        ("25.01.2026 12:00:00", "2026-01-25T12:00:00.000000+00:00"),
        (100_000_000, "1973-03-03T09:46:40.000000+00:00"),
        ("2099-12-31T23:59:59.999999Z", "2099-12-31T23:59:59.999999+00:00"),
    ],
)
def test_time_is_read_from_what_senders_write(sent: Any, expected: str) -> None:
    """Both time fields are in UTC, to the microsecond, in one spelling; nothing of it is left in details."""
    result = normalise({"timestamp": sent}, CONTEXT)

    assert result["timestamp"] == result["utctimestamp"] == expected
    assert result["receivedtimestamp"] == RECEIVED
    assert "details" not in result


@pytest.mark.parametrize(
    "sent",
    [
        "yesterday",
        "12:00:00",
        "Jan 5",
        "01/02/2026 12:00:00",
        "2026-13-05T12:00:00Z",
        "2026-01-05T25:00:00Z",
        "Feb 30 12:00:00",
        "Xyz  5 12:00:00",
        "2026-01-05 12:00:00 XYZ",
        "0000-00-00 00:00:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1970-01-01T00:00:05Z",
        "2100-01-01T00:00:00Z",
        "1.2s",
        "7",
        "²0260105",
        "x" * 100_000,
        0,
        -1,
        7,
        99_999_999,
        4_102_444_800,
        50_000_000_000,
        2**64 - 1,
        1e300,
        -1e308,
        -1767614400.5,
        True,
        ["a"],
        {"a": 1},
    ],
)
def test_unreadable_time_keeps_the_event_with_receipt_time_and_a_tag(sent: Any) -> None:
    """A clock that is not set, a date of two readings, a zone of two meanings: nothing is guessed, nothing is lost."""
    assert time_of(sent) is None


def test_unreadable_time_keeps_the_tags_that_were_sent() -> None:
    """The tag is added behind the emitter's own."""
    assert stored({"tags": ["a"], "time": "soon"}) == {"tags": ["a", TIME_UNREADABLE], "details": {"time": "soon"}}
    assert stored({"time": "soon", "ts": 1_700_000_000}) == {
        "utctimestamp": "2023-11-14T22:13:20.000000+00:00",
        "details": {"time": "soon"},
    }


@pytest.mark.parametrize(
    "sent", ["2026-01-05T12:00:00.123456789Z", "1767614400123456789", 1767614400123456789, "1767614400.1234567"]
)
def test_time_finer_than_a_microsecond_is_kept_as_sent(sent: object) -> None:
    """The field holds microseconds; the rest of the digits stays under details."""
    result = stored({"timestamp": sent})

    assert result["utctimestamp"].startswith("2026-01-05T12:00:00.12345")
    assert result["details"] == {"timestamp": sent}


@pytest.mark.parametrize(
    ("received", "sent", "expected"),
    [
        ("2026-01-01T00:00:05", "Dec 31 23:59:59", "2025-12-31T23:59:59"),
        ("2025-12-31T23:59:58", "Jan  1 00:00:01", "2026-01-01T00:00:01"),
        ("2026-03-01T00:00:00", "Feb 29 12:00:00", None),
        ("2025-01-01T00:00:00", "Feb 29 12:00:00", "2024-02-29T12:00:00"),
        ("2024-03-01T00:00:00", "Feb 29 12:00:00", "2024-02-29T12:00:00"),
    ],
)
def test_time_without_year_takes_the_latest_that_is_not_early(received: str, sent: str, expected: str | None) -> None:
    """Around New Year, and for 29 February, the receipt's own year may be wrong."""
    received_us = int(datetime.fromisoformat(received + "Z").timestamp()) * 1_000_000

    assert time_of(sent, received_us) == (expected and expected + ".000000+00:00")


def test_stamp_fills_only_what_the_event_does_not_say() -> None:
    """What the door adds is weaker than what the event says, and obeys the same rules."""
    context = Context(RECEIVED_US, "web", stamp={"category": "web", "severity": "warn", "details": "x", "rack": "7"})

    assert stored({}, context) == {
        "category": "web",
        "severity": "WARNING",
        "details": {"severity": "warn", "details": "x", "rack": "7"},
    }
    assert stored({"category": "app", "severity": "INFO", "rack": "8"}, context) == {
        "category": "app",
        "severity": "INFO",
        "details": {"rack": "8", "details": "x"},
    }


# --- hostile names and depths ---------------------------------------------------------------------------------------


def test_names_that_a_store_refuses_are_changed_and_listed() -> None:
    """NUL in a name and very long names are refused by Elasticsearch; the sent names stay readable."""
    long = "n" * (NAME_SIZE_BYTES_MAX + 1)

    result = stored({"a\0b": 1, "a␀b": 2, "details": {long: {long: 3}, "n" * NAME_SIZE_BYTES_MAX: 4}})

    details = result["details"]
    names = details.pop(RENAMED)
    (cut,) = [name for name in details if "~" in name]
    assert len(cut) == NAME_SIZE_BYTES_MAX
    assert names == {"a␀b": "a\0b", "a␀b_2": "a␀b", cut: long}
    assert details == {"a␀b": 1, "a␀b_2": 2, cut: {cut: 3}, "n" * NAME_SIZE_BYTES_MAX: 4}


def test_long_names_are_cut_between_characters_and_stay_apart() -> None:
    """Names that differ only behind the cut get different hashes."""
    names = ["漢" * 300 + "a", "漢" * 300 + "b", "x" + "漢" * 300]

    details = stored(dict.fromkeys(names, 1))["details"]

    assert sorted(details.pop(RENAMED).values()) == sorted(names)
    assert len(details) == 3
    assert all(len(name.encode()) <= NAME_SIZE_BYTES_MAX for name in details)


def _nested(levels: int, *, lists: bool) -> Any:
    value: Any = "leaf"
    for _ in range(levels):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("lists", [False, True], ids=["objects", "arrays"])
@pytest.mark.parametrize("field", ["x", "details"])
def test_what_is_nested_too_deeply_becomes_json_text(field: str, lists: bool) -> None:
    """As deep as the door lets through at most nothing changes; deeper the rest is kept as text."""
    fits = _nested(LEVELS_MAX - 1, lists=lists)
    deeper = _nested(248, lists=lists)
    wrapped = {"details": {"details": fits}} if lists and field == "details" else {"details": fits}

    assert stored({field: fits}) == ({"details": {"x": fits}} if field == "x" else wrapped)

    value = stored({field: deeper})["details"]
    levels = 0
    while type(value) is not str:
        (value,) = value.values() if type(value) is dict else value
        levels += 1
    # One level more where the value had to be put below a name of its own.
    assert levels == LEVELS_MAX - 1 + (field == "x" or lists)
    assert orjson.loads(value) == _nested(248 - (LEVELS_MAX - 1), lists=lists)


# --- every JSON object ----------------------------------------------------------------------------------------------

_leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["", "-", "warn", "6", "2026-01-05T12:00:00Z", "Jan  5 12:00:00", "1767614400", "\0", BOUNDARY])
    | st.just("x" * 1500)
    | st.integers(0, 2_000_000_000)
)
_value = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=12,
)
_synonyms = [*SYNONYMS.values(), *details.SYNONYMS.values()]
_known = st.sampled_from(sorted({name for names in _synonyms for name in names} | {f.name for f in FIELDS}))
_name = _known | _known.map(str.upper) | st.sampled_from(["host", "log", "process", "PRI"]) | st.text(max_size=8)
_inner = st.sampled_from(["name", "level", "pid", "a.b", "n" * 300, "\0"]) | st.text(max_size=5)
_event = st.dictionaries(_name, _value | st.dictionaries(_inner, _value, max_size=4), max_size=8)


def _leaves(value: Any) -> list[Any]:
    """All values without names, but those that say nothing."""
    if type(value) in (dict, list):
        return [leaf for item in (value.values() if type(value) is dict else value) for leaf in _leaves(item)]
    return [] if value is None or value == "" else [value]


def _spellings(leaf: Any) -> set[str]:
    """As what a value may be found in the text of a stored event: as it is, trimmed, or as JSON inside a summary."""
    spellings = {
        str(leaf).strip(),
        json.dumps(leaf, ensure_ascii=False).strip('"'),
        orjson.dumps(leaf).decode().strip('"'),
    }
    return spellings | ({str(int(leaf))} if type(leaf) is float and leaf.is_integer() else set())


def _is_understood(leaf: Any) -> bool:
    """Whether another spelling of ``leaf`` is stored in its place."""
    return leaf == "-" or (type(leaf) is str and leaf.upper() in SEVERITIES) or time_of(leaf) is not None


@given(_event)
def test_any_json_object_is_normalised_and_nothing_of_it_is_lost(event: dict[str, Any]) -> None:
    """Only known fields, of the right type, bounded; the same again for the same event; each leaf is still there."""
    before = copy.deepcopy(event)

    result = normalise(event, CONTEXT)

    assert event == before
    assert orjson.dumps(normalise(before, CONTEXT)) == orjson.dumps(result)
    assert set(result) <= {field.name for field in FIELDS} - PROVENANCE
    assert orjson.loads(orjson.dumps(result)) == result
    for name, value in result.items():
        if name == "tags":
            assert value and all(type(tag) is str and 0 < len(tag) <= KEYWORD_LENGTH_MAX for tag in value)
        elif name == "details":
            assert value
        else:
            assert type(value) is str and value and (name == "summary" or len(value) <= KEYWORD_LENGTH_MAX)
    kept = " ".join(spelling for leaf in _leaves(result) for spelling in _spellings(leaf))
    for leaf in _leaves(event):
        assert _is_understood(leaf) or any(spelling in kept for spelling in _spellings(leaf))


@given(_event)
def test_words_are_those_of_every_value(event: dict[str, Any]) -> None:
    """The quick way cuts exactly as words.words_of does, value by value, the summary's words first."""
    result = normalise(event, CONTEXT)

    summary_words, all_words = words_for(result)

    summary = result.get("summary", "")
    values = [
        result[field.name] for field in FIELDS if type(result.get(field.name)) is str and "time" not in field.name
    ]
    expected = sorted(word for value in values for word in words_of(value))
    expected += sorted(word for tag in result.get("tags", ()) for word in words_of(tag))
    expected += sorted(word for leaf in _leaves(result.get("details", {})) for word in words_of(_text(leaf)))
    assert summary_words == " ".join(words_of(summary))
    assert sorted(word for word in all_words.split(" ") if word not in ("", BOUNDARY)) == sorted(expected)
    assert "  " not in all_words and all_words == all_words.strip(" ")
    assert all_words.startswith(summary_words)


def _text(leaf: Any) -> str:
    return leaf if type(leaf) is str else orjson.dumps(leaf).decode()


def test_words_have_boundaries_between_values() -> None:
    """No phrase reaches from one value into the next, and nobody can fake or lose a boundary."""
    event = {
        "summary": f"One, two{BOUNDARY}three\0four",
        "tags": ["five", "six"],
        "key": "k",
        "details": {"a": [7.5, True]},
    }

    assert words_for(event) == (
        "one two three four",
        f"one two three four {BOUNDARY} k {BOUNDARY} five {BOUNDARY} six {BOUNDARY} 7 5 {BOUNDARY} true",
    )
    assert words_for({"key": "k"}) == ("", "k")
    assert words_for({"summary": "...", "key": "k"}) == ("", f"{BOUNDARY} k")
    assert words_for({"summary": "Größe", "key": "k"}) == ("grösse", f"grösse {BOUNDARY} k")


def test_words_are_bounded() -> None:
    """At most WORDS_MAX words, each at most WORD_LENGTH_MAX characters; the event itself is stored whole."""
    long = "x" * (WORD_LENGTH_MAX + 1)
    many = "a " * (WORDS_MAX + 5)

    assert words_for({"summary": long, "key": "k"}) == (long[:-1], f"{long[:-1]} {BOUNDARY} k")
    summary_words, all_words = words_for({"summary": many, "key": "k"})
    assert summary_words == all_words == "a " * (WORDS_MAX - 1) + "a"


def test_words_leave_no_field_out_but_times_and_provenance() -> None:
    """A field added to the table is either searched or named here."""
    event: dict[str, Any] = {field.name: f"word_{field.name}" for field in FIELDS}
    event |= {"tags": ["word_tags"], "details": {"x": "word_details"}}

    found = set(words_for(event)[1].split(" ")) - {BOUNDARY}

    assert {field.name for field in FIELDS} - {word.removeprefix("word_") for word in found} == PROVENANCE | {
        "timestamp",
        "utctimestamp",
        "receivedtimestamp",
    }


@pytest.mark.parametrize("time_us", [0, 999_999, RECEIVED_US, 4_102_444_799_999_999])
def test_time_is_spelled_one_way(time_us: int) -> None:
    """Always six digits and the offset: texts sort as times do."""
    assert datetime.fromisoformat(iso_of(time_us)).timestamp() == pytest.approx(time_us / 1e6)
    assert len(iso_of(time_us)) == len(RECEIVED)


# --- lines of syslog ------------------------------------------------------------------------------------------------
LINE = "<38>Jan  5 11:59:58 web1 su: hello"


@pytest.mark.parametrize(
    "event",
    [
        {"summary": LINE, "hostname": "db7"},
        {"summary": LINE, "process": "cron"},
        {"summary": LINE[4:]},
        {"summary": LINE.replace("<38>", "<192>")},
        {"summary": LINE.replace("su:", "su")},
        {"summary": "<38>"},
        {"summary": "<event id='1'/>"},
    ],
)
def test_what_is_no_line_of_syslog_or_says_more_itself_stays_as_it_is(event: dict[str, Any]) -> None:
    result = stored(event)

    assert result["summary"] == event["summary"]
    assert "original" not in result.get("details", {})


def test_a_line_of_syslog_is_taken_apart_where_the_event_says_less() -> None:
    """What the event says itself stays; names that are taken do, too; a time that cannot be read is tagged."""
    told = stored({"summary": LINE, "level": "error", "timestamp": "2026-01-05T11:00:00Z", "original": "x"})
    odd = stored({"summary": LINE.replace("Jan  5", "Feb 31")})
    empty = stored({"summary": "<38>1 - web1 - - - -"})

    assert (told["hostname"], told["severity"], told["utctimestamp"][:16]) == ("web1", "ERROR", "2026-01-05T11:00")
    assert told["details"] == {"original": "x", "original_2": LINE}
    assert (odd["tags"], odd["details"]["timestamp"]) == ([TIME_UNREADABLE], "Feb 31 11:59:58")
    assert empty == {"hostname": "web1", "severity": "INFO", "details": {"original": "<38>1 - web1 - - - -"}}


@pytest.mark.parametrize(
    "line",
    [
        "<38>1 - web1 sshd - - " + "[a" * 200_000,
        "<38>1 - web1 sshd - - " + "[\\]" * 200_000,
        "<38>1 - web1 sshd - - " + "[]" * 200_000 + "x",
        "<38>Jan  5 11:59:58 web1 " + "a" * 400_000,
    ],
)
def test_a_hostile_line_of_syslog_takes_no_more_than_its_length(line: str) -> None:
    began_s = time.process_time()
    assert stored({"summary": line})["summary"] == line
    assert time.process_time() - began_s < 5
