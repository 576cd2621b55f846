"""Ordinary events that were once read wrongly: their bytes to the document, and to what a search of the store finds.

A row is a real sender's form. What became of it is as important where it cannot be read: kept, and said so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logweir.config import StoreSettings, WorkerSettings
from logweir.event import Document, Provenance, content_hash_of, day_of
from logweir.query.match import text_of
from logweir.query.parse import parse
from logweir.store import open_store
from logweir.store.port import Store, Written
from logweir_workers.document import Documents
from logweir_workers.enrich import load
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import PARTLY_SEARCHABLE, RENAMED, TIME_UNREADABLE, Context
from logweir_workers.normalise.times import iso_of

RECEIVED_US = 1_796_019_600_000_000
RECEIVED = "2026-11-30T06:20:00.000000+00:00"
ADDRESS = "192.0.2.9"

ABSENT = None
NO_TIME = {"timestamp": RECEIVED, "tags": [TIME_UNREADABLE]}


def made(raw: bytes, **context: Any) -> Document:
    """The document that a worker makes of an event."""
    provenance = Provenance("ab" * 16 + "-0", 1, content_hash_of(raw))
    known = Context(RECEIVED_US, "web", source_address=ADDRESS, **context)
    document = Documents(load(WorkerSettings()), Filters()).make(
        raw, known, id="a", day=day_of(RECEIVED_US), provenance=provenance
    )
    assert isinstance(document, Document)
    return document


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))
    opened.prepare()
    yield opened
    opened.close()


def found(store: Store, document: Document, query: str) -> list[dict[str, Any]]:
    """The event, if a search for ``query`` finds it."""
    assert store.index([document])[0].written in (Written.CREATED, Written.EXISTS)
    return store.search(parse(query), size=10).events


@pytest.mark.parametrize(
    ("sent", "hour"),
    [
        # In a time, the sign is the zone's: only in the variable TZ does it point to the west.
        ("Mon Nov 30 2026 05:20:00 GMT+0100", "2026-11-30T04:20:00.000000"),
        ("Mon Nov 30 2026 05:20:00 GMT+0100 (Central European Standard Time)", "2026-11-30T04:20:00.000000"),
        ("2026-11-30 05:20:00 UTC+3", "2026-11-30T02:20:00.000000"),
        ("2026-11-30 05:20:00 UTC+03:00", "2026-11-30T02:20:00.000000"),
        ("2026-11-30 05:20:00 UTC-5", "2026-11-30T10:20:00.000000"),
        ("2026-11-30T05:20:00 GMT-05:30", "2026-11-30T10:50:00.000000"),
        ("Nov 30, 2026 5:20:00 AM GMT+01:00", "2026-11-30T04:20:00.000000"),
        # Two zones that contradict each other, or a name of several.
        ("2026-11-30T05:20:00Z+01:00", None),
        ("2026-11-30T05:20:00Z-05:00", None),
        ("2026-11-30 05:20:00 CET+0100", None),
        ("2026-11-30 05:20:00 EST-0500", None),
        ("2026-11-30 05:20:00 EST5EDT", None),
        ("2026-11-30 05:20:00 +0000 CET", None),
        ("2026-11-30 05:20:00 Etc/GMT+1", None),
        ("2026-11-30 05:20:00 A", None),
        ("Mon Nov 30 05:20:00 CST 2026", None),
        ("2026-11-30 05:20:00 PST", None),
        ("2026-11-30T05:20:00+20:00", None),
        ("2026-11-30 05:20:00 +0800 CST", "2026-11-29T21:20:00.000000"),
        # Two digits of a year.
        ("26/11/30 05:20:00", None),
        ("26/11/13 05:20:00", None),
        ("26-11-30 05:20:00", None),
        ("26-11-13 05:20:00,123", None),
        ("26.11.30 05:20:00", None),
        ("30-Nov-26 05:20:00", None),
        ("261130  5:20:00", None),
        ("261113 05:20:00", None),
        ("11/30/26 5:20:00 AM", "2026-11-30T05:20:00.000000"),
        ("Monday, 30-Nov-26 05:20:00 GMT", "2026-11-30T05:20:00.000000"),
        ("Thursday, 26-Nov-30 05:20:00 GMT", None),
        # Understood whole or not at all.
        ("2026-11-30T05-20-00", None),
        ("2026-11-30T05-20", None),
        ("2026-11-30T05.5Z", None),
        ("2026-11-30T05:20.5Z", None),
        ("202611300520", None),
        ("20261130052000", "2026-11-30T05:20:00.000000"),
        ("2026-11-30 13:20:00 PM", None),
        ("2026-11-30 05:20:00 and more", None),
        ("Tue Nov 30 05:20:00 2026", None),
        # Cut, not rounded.
        ("1796016000.123456789", "2026-11-30T05:20:00.123456"),
        ("2026-11-30T05:20:00.9999999Z", "2026-11-30T05:20:00.999999"),
        # Logs are late, not early.
        ("May 30 12:00:00", "2026-05-30T12:00:00.000000"),
        ("Dec 15 12:00:00", "2025-12-15T12:00:00.000000"),
        ("Dec  1 12:00:00", "2026-12-01T12:00:00.000000"),
        # The last microsecond before; where none can be, it is no time.
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999"),
        ("2016-12-31T15:59:60.5-08:00", "2016-12-31T23:59:59.999999"),
        ("2016-12-31T23:58:60Z", None),
        ("2016-12-30T23:59:60Z", None),
        ("2026-11-29T24:00:00Z", "2026-11-30T00:00:00.000000"),
        ("2026-11-29T24:00:01Z", None),
        # Cisco's marks, zones, brackets, points.
        ("*Nov 30 05:20:00.123", "2026-11-30T05:20:00.123000"),
        (".Nov 30 2026 05:20:00.123 CET:", "2026-11-30T04:20:00.123000"),
        ("*05:20:00.123 UTC Mon Nov 30 2026", "2026-11-30T05:20:00.123000"),
        ("Nov 30 05:20:00.123 UTC", "2026-11-30T05:20:00.123000"),
        ("Nov 30 05:20:00 CET", "2026-11-30T04:20:00.000000"),
        ("[30/Nov/2026:05:20:00 +0000]", "2026-11-30T05:20:00.000000"),
        ("30/Nov/2026:05:20:00.123 +0000", "2026-11-30T05:20:00.123000"),
        ("20261130052000.123Z", "2026-11-30T05:20:00.123000"),
        ("2026-334T05:20:00Z", "2026-11-30T05:20:00.000000"),
        ("2026-366T05:20:00Z", None),
        ("2026-11-30 05:20:00 +0100 CET", "2026-11-30T04:20:00.000000"),
        ("2026-11-30 05:20:00.000000001 +0100 CET m=+0.000000001", "2026-11-30T04:20:00.000000"),
        ("2026-11-30  5:20:00", "2026-11-30T05:20:00.000000"),
        ("Nov 30, 2026, 5:20:00\\u202fAM", "2026-11-30T05:20:00.000000"),
    ],
)
def test_time_is_read_rightly_or_not_at_all(sent: str, hour: str | None) -> None:
    """A time that is wrong and does not say so is worse than one that could not be read."""
    source = made(b'{"summary":"t","timestamp":"%b"}' % sent.encode()).source

    if hour is None:
        assert {name: source[name] for name in NO_TIME} == NO_TIME
        assert source["details"] == {"timestamp": sent}
    else:
        assert source["timestamp"] == source["utctimestamp"] == f"{hour}+00:00"
        assert "tags" not in source


@pytest.mark.parametrize(
    ("sent", "time", "is_kept"),
    [
        ("1796016000.123456789", "2026-11-30T05:20:00.123456+00:00", True),
        ("1796016000.9999999", "2026-11-30T05:20:00.999999+00:00", True),
        ("1796016000.123456", "2026-11-30T05:20:00.123456+00:00", False),
        ("1796016000.10", "2026-11-30T05:20:00.100000+00:00", False),
        ("1.796016E9", "2026-11-30T05:20:00.000000+00:00", False),
        ("1796016000123.4567", "2026-11-30T05:20:00.123456+00:00", True),
        ("1796016000123456789", "2026-11-30T05:20:00.123456+00:00", True),
        ("20261130052000", "2026-11-30T05:20:00.000000+00:00", False),
    ],
)
def test_number_as_a_time_is_cut_and_kept_where_it_says_more(sent: str, time: str, is_kept: bool) -> None:
    """As a number and as text alike."""
    number = made(b'{"timestamp":%b}' % sent.encode()).source
    text = made(b'{"timestamp":"%b"}' % sent.encode()).source

    assert number["timestamp"] == text["timestamp"] == time
    assert [str(value) for value in number.get("details", {}).values()] == [sent] * is_kept
    assert text.get("details", {}) == ({"timestamp": sent} if is_kept else {})


@pytest.mark.parametrize("sent", ["253402300799", "202611300520", "134402160000000000", "639158628000000000"])
def test_number_of_another_count_is_no_time(sent: str) -> None:
    """Seconds of the year 9999, a date without seconds, Windows' 100 nanoseconds since 1601, and since the year 1."""
    assert {name: made(b'{"timestamp":%b}' % sent.encode()).source[name] for name in NO_TIME} == NO_TIME


@pytest.mark.parametrize("sent", ["-", " - "])
def test_nil_says_no_time(sent: str) -> None:
    """RFC 5424's nil value is no fault of the sender's."""
    source = made(b'{"timestamp":"%b"}' % sent.encode()).source

    assert source["timestamp"] == RECEIVED
    assert "tags" not in source and "details" not in source


NUMBERS = (
    "0.000001",
    "19.90",
    "19.9",
    "5.00",
    "5.0",
    "1e2",
    "1E+2",
    "100",
    "1234567890123456.78",
    "0.123456789012345678",
    "1796016000.123456789",
    "-0.00",
    "1e-7",
    "1e-07",
    "1e400",
    "123456789012345678901234567890",
)


@pytest.mark.parametrize("sent", NUMBERS)
def test_number_has_the_digits_that_were_sent_and_is_found_by_them(store: Store, sent: str) -> None:
    """At the top, below details, in lists; by its leaf, and by the word."""
    raw = b'{"summary":"num","z":%b,"details":{"y":{"x":[%b]}}}' % (sent.encode(), sent.encode())
    document = made(raw)

    (event,) = found(store, document, f'details.z:"{sent}" AND details.y.x:"{sent}" AND "{sent}"')
    assert sent == text_of(event["details"]["z"]) == text_of(event["details"]["y"]["x"][0])


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        # journald: what is not printable is an array of bytes.
        (
            b'{"MESSAGE":[27,91,51,49,109,70,97,105,108,101,100,27,91,48,109],"_HOSTNAME":"h","SYSLOG_IDENTIFIER":"app"}',
            {"summary": "\x1b[31mFailed\x1b[0m", "hostname": "h", "processname": "app"},
        ),
        (b'{"MESSAGE":[70,233,108],"__CURSOR":"s"}', {"summary": "F\\xe9l"}),
        (b'{"MESSAGE":"m","_HOSTNAME":"h","_CMDLINE":[97,10,98]}', {"details": {"command": "a\nb"}}),
        (b'{"MESSAGE":"m","_HOSTNAME":"h","USER":["a","b"],"N":[300]}', {"details": {"USER": ["a", "b"], "N": [300]}}),
        (b'{"MESSAGE":[72,105],"PORTS":[22,80]}', {"summary": "[72,105]", "details": {"PORTS": [22, 80]}}),
        # Lists of one element, where a field is one value.
        (b'{"event":{"category":["web"]},"message":"x"}', {"category": "web", "details": ABSENT}),
        (
            b'{"message":["only one"],"@timestamp":["2026-11-30T05:20:00Z"],"host":["h1"],"level":["error"]}',
            {
                "summary": "only one",
                "timestamp": "2026-11-30T05:20:00.000000+00:00",
                "hostname": "h1",
                "severity": "ERROR",
                "details": ABSENT,
            },
        ),
        (b'{"level":["warn"],"pid":[7]}', {"severity": "WARNING", "processid": "7", "details": {"level": ["warn"]}}),
        (b'{"category":["a","b"]}', {"category": ABSENT, "details": {"category": ["a", "b"]}}),
        # GELF.
        (b'{"host":"h","short_message":" ","full_message":"Trace\\nmore"}', {"summary": "Trace\nmore"}),
        (
            b'{"host":"h","short_message":"s","full_message":"s\\nmore"}',
            {"summary": "s", "details": {"full_message": "s\nmore"}},
        ),
        # Hosts.
        (b'{"hostname":" - ","summary":"nil"}', {"hostname": ADDRESS}),
        (b'{"host":"WEB01."}', {"hostname": "web01", "fqdn": ABSENT}),
        (b'{"fqdn":"web01.corp.example.com."}', {"hostname": "web01", "fqdn": "web01.corp.example.com"}),
        (b'{"hostname":"web01.corp.example.com."}', {"hostname": "web01", "fqdn": "web01.corp.example.com"}),
        (b'{"hostname":"see the manual."}', {"hostname": "see the manual."}),
        # Names that changed.
        (
            b'{"\\ud800":1,"\\udbff":2,"\\ufffd":3}',
            {
                "details": {
                    "\ufffd": 1,
                    "\ufffd_2": 2,
                    "\ufffd_3": 3,
                    RENAMED: {"\ufffd": "\\ud800", "\ufffd_2": "\\udbff", "\ufffd_3": "\ufffd"},
                }
            },
        ),
        (b'{"message":{"\\ud800":"x"}}', {"summary": '{"\\ud800":"x"}'}),
        # A field that is text has the digits of a number, too.
        (b'{"version":2.0,"type":1.50}', {"version": "2.0", "type": "1.50"}),
        (b'{"pid":4711.0}', {"processid": "4711"}),
        # The day and the time of day under two names.
        (
            b'{"date":"2026-11-30","time":"05:20:00","cs-method":"GET"}',
            {"timestamp": "2026-11-30T05:20:00.000000+00:00", "details": {"method": "GET"}},
        ),
        (
            b'{"date":"2026-11-30","time":"05:20:00","tz":"+0100"}',
            {"timestamp": "2026-11-30T04:20:00.000000+00:00", "details": {"tz": "+0100"}},
        ),
        (b'{"date":"2026-11-30","time":1796016000}', {"timestamp": "2026-11-30T05:20:00.000000+00:00"}),
        (b'{"date":"01/02/2026","time":"05:20:00"}', NO_TIME),
    ],
)
def test_event_of_a_senders_own_shape_is_understood(raw: bytes, fields: dict[str, Any]) -> None:
    """What is named here is stored so; ABSENT is not stored at all."""
    source = made(raw).source

    assert {name: source.get(name) for name in fields} == fields


@pytest.mark.parametrize(
    ("raw", "severity"),
    [
        (b'{"level":60,"time":1796016000123,"msg":"fatal"}', "CRITICAL"),
        (b'{"level":50,"time":1796016000123,"pid":1,"hostname":"h","msg":"x"}', "ERROR"),
        (b'{"name":"a","hostname":"h","pid":1,"level":30,"msg":"x","time":"2026-11-30T05:20:00Z","v":0}', "INFO"),
        (b'{"level":30,"logger":"a.b","message":"x"}', "WARNING"),
        (b'{"level":3,"time":1796016000123,"msg":"x"}', "ERROR"),
        (
            b'{"ProviderName":"Microsoft-Windows-Security-Auditing","EventID":"4672","Level":"0","Message":"x"}',
            "INFO",
        ),
        (b'{"Id":7036,"Level":4,"LevelDisplayName":"Information","Message":"x"}', "INFO"),
        (b'{"Id":1000,"ProviderName":"Application Error","Level":2,"Message":"x"}', "ERROR"),
        (b'{"EventID":41,"Channel":"System","Level":1,"Message":"x"}', "CRITICAL"),
        (b'{"severity":4,"details":{"EventID":41,"Channel":"System"}}', "INFO"),
        (b'{"EventID":41,"Channel":"System","Level":7,"Message":"x"}', ABSENT),
        (b'{"EventId":0,"LogLevel":4,"Category":"a","Message":"x"}', "ERROR"),
        (b'{"message":"x","level":300,"level_name":"WARNING","channel":"app"}', "WARNING"),
        (b'{"severity":2.0,"title":"guardduty low"}', ABSENT),
        (b'{"severity":"8.0"}', ABSENT),
        (b'{"schemaVersion":"2.0","accountId":"1","severity":5,"title":"x"}', ABSENT),
        (b'{"deviceVendor":"a","deviceProduct":"b","severity":1,"name":"x"}', ABSENT),
        (b'{"deviceVendor":"a","deviceProduct":"b","severity":"7","name":"x"}', ABSENT),
        (b'{"deviceVendor":"a","severity":"warn","name":"x"}', "WARNING"),
        (b'{"clock":1796016000,"eventid":1,"severity":5,"name":"x"}', ABSENT),
        (b'{"severityText":"INFO","severity":1}', ABSENT),
        (b'{"PRIORITY":"3","MESSAGE":"x"}', "ERROR"),
        (b'{"version":"1.1","host":"h","short_message":"x","level":4}', "WARNING"),
    ],
)
def test_severity_of_another_scale_is_not_turned_round(raw: bytes, severity: str | None) -> None:
    """What else is in the event tells whose numbers they are; what was sent is kept."""
    source = made(raw).source

    assert source.get("severity") == severity
    assert {"level", "loglevel", "severity", "priority"} & {name.lower() for name in source["details"]}


@pytest.mark.parametrize(
    ("raw", "details"),
    [
        (b"{}", {"site": "north"}),
        (b'{"site":"south"}', {"site": "south"}),
        (b'{"details":{"site":"south"}}', {"site": "south"}),
        (b'{"site":["south"]}', {"site": ["south"]}),
        (b'{"site":0}', {"site": 0}),
        (b'{"site":null}', {"site": "north"}),
        (b'{"site":" "}', {"site": "north"}),
        (b'{"details":{"site":null,"a":1}}', {"site": "north", "a": 1}),
        (b'{"site":null,"details":{"site":"south"}}', {"site": "south", "site_2": None, RENAMED: {"site_2": "site"}}),
        (b'{"site":"south","details":{"site":null}}', {"site": None, "site_2": "south", RENAMED: {"site_2": "site"}}),
    ],
)
def test_stamp_is_for_events_that_do_not_say_the_field(raw: bytes, details: dict[str, Any]) -> None:
    """At the top or below details; null says nothing."""
    assert made(raw, stamp={"site": "north"}).source["details"] == details


def test_journald_message_is_found_by_its_words(store: Store) -> None:
    """Colours are no part of a word."""
    raw = b'{"MESSAGE":[27,91,51,49,109,70,97,105,108,101,100,27,91,48,109],"_HOSTNAME":"h","SYSLOG_IDENTIFIER":"app"}'

    assert found(store, made(raw), "Failed AND processname:app")
    assert found(store, made(raw), "summary:Failed")


def test_event_of_too_many_words_says_that_it_is_not_wholly_searchable(store: Store) -> None:
    """What lies behind the limit is kept and not found, and a search for the tag tells where that can be."""
    frames = " ".join(f"at com.example.Frame{number}(Frame.java:{number})" for number in range(3000))
    long = made(b'{"summary":"stack %b Caused by: RootCauseXyz","tags":["a"]}' % frames.encode())

    assert found(store, long, f"tags:{PARTLY_SEARCHABLE} AND tags:a AND stack")
    assert not found(store, long, "RootCauseXyz")
    assert "tags" not in made(b'{"summary":"%b"}' % (b"a " * 9_900)).source


def test_receipt_is_what_the_table_is_about() -> None:
    assert iso_of(RECEIVED_US) == RECEIVED
