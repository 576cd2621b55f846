"""A record as an event: fields, extras, exceptions, and what no JSON would take."""

from __future__ import annotations

import datetime
import json
import logging
import math
import sys
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.config import load
from logweir.emit import LogweirFormatter
from logweir.emit.formatter import process_name
from logweir_ingest.formats.json import JsonFormat
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Request

LIMITS = Limits.of(load(environment={}))


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def record_of(message: object = "hello", *arguments: object, **options: Any) -> logging.LogRecord:
    logger = logging.getLogger(options.pop("name", "shop.orders"))
    return logger.makeRecord(
        logger.name,
        options.pop("level", logging.INFO),
        "/srv/shop/orders.py",
        42,
        message,
        arguments,
        options.pop("exc_info", None),
        "take",
        options.pop("extra", None),
        options.pop("sinfo", None),
    )


def event_of(record: logging.LogRecord, **options: Any) -> dict[str, Any]:
    """The event as the door takes it: whatever is in the record, its bytes are one event of JSON."""
    text = LogweirFormatter(**{"hostname": "web-1", "processname": "shop", **options}).format(record)
    body = text.encode("utf-8", "backslashreplace")
    (raw,) = JsonFormat().split(Request("POST", "/events", {}, ""), body, LIMITS).events
    return dict(json.loads(raw))


def test_record_becomes_an_event_in_mozdefs_names() -> None:
    """Every field, with its type."""
    record = record_of("order %s of %d", "4711", 3, level=logging.ERROR, extra={"customer": "c-77"})
    record.created = 1_769_860_800.25
    record.process = 77

    assert event_of(record, category="shop", tags=["a", "b"], details={"release": "7"}) == {
        "timestamp": "2026-01-31T12:00:00.250000+00:00",
        "summary": "order 4711 of 3",
        "severity": "ERROR",
        "source": "shop.orders",
        "processid": "77",
        "hostname": "web-1",
        "processname": "shop",
        "category": "shop",
        "tags": ["a", "b"],
        "details": {
            "file": "/srv/shop/orders.py",
            "line": 42,
            "function": "take",
            "release": "7",
            "customer": "c-77",
        },
    }


@pytest.mark.parametrize(
    ("level", "severity", "name"),
    [
        (10, "DEBUG", None),
        (20, "INFO", None),
        (50, "CRITICAL", None),
        (5, "DEBUG", "TRACE"),
        (25, "INFO", "NOTICE"),
        (99, "CRITICAL", "Level 99"),
    ],
)
def test_level_of_ones_own_is_the_next_below(level: int, severity: str, name: str | None) -> None:
    """Its name is under details."""
    logging.addLevelName(5, "TRACE")
    logging.addLevelName(25, "NOTICE")
    record = record_of(level=level)

    event = event_of(record)
    assert event["severity"] == severity
    assert event["details"].get("level") == name


def test_colours_that_another_formatter_left_are_not_sent() -> None:
    """A record that other handlers have formatted, and changed, is the same event."""
    record = record_of()
    logging.Formatter("%(asctime)s %(message)s").format(record)
    record.levelname = "\x1b[32mINFO\x1b[0m"

    event = event_of(record)
    assert event["severity"] == "INFO"
    assert set(event["details"]) == {"file", "line", "function"}


def test_exception_and_stack_are_details() -> None:
    """Type, message and trace, and the stack as given."""
    try:
        raise KeyError("no such order")
    except KeyError:
        record = record_of(exc_info=sys.exc_info(), sinfo="Stack (most recent call last):\n  here")

    details = event_of(record)["details"]
    assert details["exception"]["type"] == "KeyError"
    assert details["exception"]["message"] == "'no such order'"
    assert details["exception"]["trace"].splitlines()[-1] == "KeyError: 'no such order'"
    assert "test_exception_and_stack_are_details" in details["exception"]["trace"]
    assert details["stack"].endswith("here")


def test_exception_of_ones_own_has_its_module_and_none_is_none() -> None:
    """exc_info without an exception, as logger.exception outside of one gives it, is nothing."""
    error = json.JSONDecodeError("bad", "x", 0)
    with_module = record_of(exc_info=(type(error), error, None))

    assert event_of(with_module)["details"]["exception"]["type"] == "json.decoder.JSONDecodeError"
    assert "exception" not in event_of(record_of(exc_info=(None, None, None)))["details"]


def test_extra_sets_fields_and_adds_tags() -> None:
    """MozDef's names in extra are the event's; details is unpacked; a taken name gets a number."""
    extra = {
        "category": "auth",
        "source": "pam",
        "hostname": "web-2",
        "tags": ["c"],
        "details": {"user": "ann"},
        "line": 5,
        "exception": "mine",
    }

    event = event_of(record_of(extra=extra), category="shop", tags=["a"])
    assert (event["category"], event["source"], event["hostname"], event["tags"]) == (
        "auth",
        "pam",
        "web-2",
        ["a", "c"],
    )
    assert event["details"]["user"] == "ann"
    assert (event["details"]["line"], event["details"]["line_2"]) == (42, 5)
    assert event["details"]["exception_2"] == "mine"


def test_thread_and_process_are_said_where_they_are_not_the_main_ones() -> None:
    """They are details."""
    record = record_of()
    record.threadName, record.processName = "worker-3", "ForkPoolWorker-1"

    details = event_of(record)["details"]
    assert (details["thread"], details["process"]) == ("worker-3", "ForkPoolWorker-1")


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2**70, str(2**70)),
        (1.5, 1.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (b"\xffab", "\\xffab"),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC), "2026-01-31T12:00:00+00:00"),
        (Path("/a"), "/a"),
        ({"a": (1, {2: math.inf})}, {"a": [1, {"2": "inf"}]}),
        (Unprintable(), "<Unprintable without text: RuntimeError>"),
        ([Unprintable()], ["<Unprintable without text: RuntimeError>"]),
    ],
)
def test_any_value_can_be_an_extra(value: Any, sent: Any) -> None:
    """What JSON does not know becomes text; nothing raises."""
    assert event_of(record_of(extra={"x": value}))["details"]["x"] == sent


def test_value_without_end_ends() -> None:
    """What holds itself, or is deeper or wider than a door takes, is cut."""
    circle: dict[str, Any] = {"name": "x"}
    circle["self"] = circle
    deep: Any = "bottom"
    for _ in range(100):
        deep = [deep]

    details = event_of(record_of(extra={"circle": circle, "deep": deep, "wide": list(range(5000))}))["details"]
    assert details["circle"]["self"]["self"]["name"] == "x"
    assert json.dumps(details["deep"]).count("[") < 250
    assert len(details["wide"]) == 1000


@pytest.mark.parametrize("arguments", [("%d", "x"), ("%s %s", "x"), ("no place", "x"), ("%s", Unprintable())])
def test_message_whose_arguments_do_not_fit_is_sent_as_it_is(arguments: tuple[object, ...]) -> None:
    """The event says what is wrong."""
    event = event_of(record_of(*arguments))

    assert event["summary"].startswith(str(arguments[0]))
    assert event["details"]["format_error"].split(":")[0] in ("TypeError", "ValueError", "RuntimeError")


@pytest.mark.parametrize("where", ["message", "extra", "many", "exception"])
def test_event_that_is_too_large_is_cut_until_it_fits(where: str) -> None:
    """Its beginning is kept, it says so, and the door takes it."""
    big = "ä" * 1_000_000
    record = {
        "message": lambda: record_of(big),
        "extra": lambda: record_of(extra={"big": big, "small": "s"}),
        "many": lambda: record_of(extra={f"name {number}": "x" * 300 for number in range(3000)}),
        "exception": lambda: record_of(exc_info=(ValueError, ValueError(big), None)),
    }[where]()

    text = LogweirFormatter().format(record)
    event = event_of(record)
    assert len(text.encode()) <= 256 * 1024
    assert event["details"]["truncated"] is True
    assert event["summary"][:5] in ("hello", "äääää")


def test_half_a_surrogate_pair_and_control_characters_are_taken(tmp_path: Path) -> None:
    """File names of another encoding, NUL, line separators: the door takes the event."""
    event = event_of(record_of("a\udc80b\x00c\u2028d\ne"))

    assert event["summary"] == "a\udc80b\x00c\u2028d\ne"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
)
NAMES = st.text(min_size=1).filter(
    lambda name: name not in vars(logging.makeLogRecord({})) | {"message": 1, "asctime": 1}
)


@given(message=st.text(), extra=st.dictionaries(NAMES, JSON_VALUES, max_size=5))
def test_whatever_is_logged_is_one_event(message: str, extra: dict[str, Any]) -> None:
    """No text, and no value, makes a line that the door does not take."""
    event = event_of(record_of(message, extra=extra))

    assert event["summary"] == message
    assert event["details"]["line"] == 42


@given(created=st.floats(0, 4e9))
def test_time_is_the_records_to_the_microsecond(created: float) -> None:
    """UTC, whatever second came before."""
    record = record_of()
    record.created = created
    formatter = LogweirFormatter()
    formatter.format(record_of())

    sent = datetime.datetime.fromisoformat(json.loads(formatter.format(record))["timestamp"])
    assert abs(sent.timestamp() - created) < 2e-6


def test_call_sites_are_kept_apart_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of one line of the program is not used for another, nor kept for ever."""
    monkeypatch.setattr("logweir.emit.formatter._CALL_SITES_MAX", 3)
    formatter = LogweirFormatter()
    found = set()
    for number in range(10):
        record = record_of(name=f"logger {number % 5}", level=(10, 20)[number % 2])
        event = json.loads(formatter.format(record))
        found.add((event["source"], event["severity"]))

    assert len(found) == 10
    assert len(formatter._call_sites) <= 3


@pytest.mark.parametrize(
    ("argument", "name"),
    [("/usr/bin/gunicorn", "gunicorn"), ("/srv/shop/__main__.py", "shop"), ("-c", "python"), ("", "python")],
)
def test_process_is_called_as_its_file(monkeypatch: pytest.MonkeyPatch, argument: str, name: str) -> None:
    """Or as its package, or just python."""
    monkeypatch.setattr(sys, "argv", [argument])

    assert process_name() == name


def test_formatter_serves_any_handler(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON on standard error, as what collects it from there wants it."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogweirFormatter(category="shop"))
    handler.handle(record_of())

    assert json.loads(capsys.readouterr().err)["category"] == "shop"


def test_formatting_costs_little() -> None:
    """A generous bound: bench/emit.py measures it."""
    formatter, record = LogweirFormatter(), record_of("order %s", 3)

    def took_s(call: Callable[[logging.LogRecord], str]) -> float:
        began_s = time.perf_counter()
        for _ in range(1000):
            call(record)
        return (time.perf_counter() - began_s) / 1000

    assert min(took_s(formatter.format) for _ in range(5)) < 0.0001
