"""Known details are asked by their kinds: numbers and addresses in their order, keywords in any case and by patterns.

The same hits on both stores, and words by patterns, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from logweir.errors import LogweirError
from logweir.query.parse import parse
from logweir.store.port import Count, Store
from tests.contract.stores import DAY_US, NOON_US, STORES, document, empty_store, iso

EVENTS: dict[str, dict[str, Any]] = {
    "a": {
        "summary": "deso-mgmt-7 answered from 172.24.1.9",
        "severity": "ERROR",
        "sourceaddress": "10.1.2.3",
        "details": {
            "status": 500,
            "bytes": 9_007_199_254_740_993,
            "duration": 0.25,
            "sourceipaddress": "10.0.0.7",
            "sourceport": 443,
            "username": "Administrator",
            "path": "/wp-admin/setup.php",
            "useragent": "Mozilla/5.0 (X11; sqlmap)",
        },
    },
    "b": {
        "summary": "desomgmt said 172 and 24",
        "severity": "WARNING",
        "sourceaddress": "10.2.0.1",
        "details": {"status": 404, "duration": 3, "sourceipaddress": "10.0.1.0", "username": "admin", "path": "/a*b"},
    },
    "c": {
        "summary": "deso mgmts",
        "severity": "INFO",
        "sourceaddress": "2001:db8::1",
        "details": {
            "status": "slow",
            "duration": "1.5 s",
            "sourceipaddress": "2001:db8::7",
            "username": ["ROOT", "ops"],
            "method": "İx",
        },
    },
    "d": {
        "summary": "passwords 172.24",
        "severity": "EMERGENCY",
        "details": {
            "status": [500, 501],
            "duration": -1.5,
            "sourceipaddress": "gateway",
            "destinationipaddress": "::1",
            "username": "",
            "path": "/WP-Admin/x",
        },
    },
    "e": {"summary": "foo_password_bar", "severity": "DEBUG", "details": {"status": -1, "bytes": 0, "user": "Root"}},
    "f": {"summary": "日本 password1 [x]", "details": {"status": 200.0, "duration": -0.0, "username": {"x": "y"}}},
}
"""By id, each received after the one before."""

QUERIES = (
    # numbers
    ("details.status:>=500", "a"),
    ("details.status:>404", "a"),
    ("details.status:<=404", "be"),
    ("details.status:<404", "e"),
    ("details.status:[404 TO 500]", "ab"),
    ("details.status:{404 TO 500]", "a"),
    ("details.status:[404 TO 500}", "b"),
    ("details.status:[* TO *]", "abe"),
    ("details.status:[-1 TO 0]", "e"),
    ("details.status:500", "ad"),
    ("details.status:(404 OR >=500)", "ab"),
    ("details.status:5*", "ad"),
    ("details.status:slow", "c"),
    ("details.status:*", "abcdef"),
    ("NOT details.status:<=404", "acdf"),
    ("http.response.status_code:>=500", "a"),
    ("details.http_status:>=500", "a"),
    ("details.bytes:>=9007199254740993", "a"),
    ("details.bytes:>9007199254740993", ""),
    ("details.bytes:<1", "e"),
    ("details.sourceport:443", "a"),
    ("details.duration:>0.2", "ab"),
    ("details.duration:>=0.25", "ab"),
    ("details.duration:>0.25", "b"),
    ("details.duration:<=0.25", "adf"),
    ("details.duration:<0", "d"),
    ("details.duration:<=0", "df"),
    ("details.duration:0", "f"),
    ("details.duration:0.250", "a"),
    ("details.duration:3.0", "b"),
    ("details.duration:3", "b"),
    ("details.duration:[-1.5 TO 0.25]", "adf"),
    ('details.duration:"1.5 s"', "c"),
    # addresses
    ("details.sourceipaddress:10.0.0.0/8", "ab"),
    ('details.sourceipaddress:"10.0.0.0/24"', "a"),
    ("details.sourceipaddress:10.0.0.7/32", "a"),
    ("details.sourceipaddress:0.0.0.0/0", "ab"),
    ('details.sourceipaddress:"::/0"', "abc"),
    ('details.sourceipaddress:"2001:DB8::/32"', "c"),
    ("details.sourceipaddress:2001\\:db8\\:\\:/64", "c"),
    ('details.sourceipaddress:"::ffff:10.0.0.0/104"', "ab"),
    ("details.sourceipaddress:[10.0.0.8 TO 10.0.1.0]", "b"),
    ("details.sourceipaddress:{10.0.0.7 TO *}", "bc"),
    ("details.sourceipaddress:<=10.0.0.7", "a"),
    ("details.sourceipaddress:>10.0.0.0/24", "bc"),
    ('details.sourceipaddress:>="2001:db8::8"', ""),
    ('details.sourceipaddress:>"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"', ""),
    ('details.sourceipaddress:<="ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"', "abc"),
    ("details.sourceipaddress:10.0.0.7", "a"),
    ('details.sourceipaddress:"::ffff:10.0.0.7"', "a"),
    ('details.sourceipaddress:"2001:DB8:0::7"', "c"),
    ("details.sourceipaddress:2001\\:DB8*", "c"),
    ("details.sourceipaddress:10.0.*", "ab"),
    ("details.sourceipaddress:gateway", "d"),
    ("details.sourceipaddress:(10.0.0.0/24 OR gateway)", "ad"),
    ("NOT details.sourceipaddress:10.0.0.0/8", "cdef"),
    ("details.src_ip:10.0.0.0/8", "ab"),
    ("client.ip:10.0.0.0/8", "ab"),
    ('details.destinationipaddress:"::1"', "d"),
    ('details.destinationipaddress:"::/127"', "d"),
    ("sourceaddress:10.1.0.0/16", "a"),
    ("client.address:10.0.0.0/8", "ab"),
    ('sourceaddress:["2001:db8::" TO "2001:db8::ff"]', "c"),
    ("sourceaddress:10.*", "ab"),
    ('sourceaddress:"2001:DB8:0::1"', "c"),
    # keywords
    ("details.username:administrator", "a"),
    ("details.username:Administrator", "a"),
    ("details.username:ADMIN*", "ab"),
    ("details.username:root", "c"),
    ("details.username:OPS", "c"),
    ("details.user:root", "c"),
    ("details.user:Root", "ce"),
    ('details.username:""', "d"),
    ("details.username:*min*", "ab"),
    ("details.username:a????", "b"),
    ("details.username:?dmin*t?r", "a"),
    ("details.username:*", "abcdf"),
    ("details.username:x", ""),
    ("details.username.x:y", "f"),
    ("details.path:*/wp-admin/*", "ad"),
    ("details.path:*/admin/*", ""),
    ("details.path:\\/wp-admin\\/*.php", "a"),
    ("details.path:*wp*x", "d"),
    ("details.path:*a\\*b", "b"),
    ('details.path:"/a*b"', "b"),
    ("details.useragent:*SQLMAP*", "a"),
    ("details.useragent:mozilla/5.0*", "a"),
    ("details.method:ix", "c"),
    ("details.method:İX", "c"),
    ("details.method:i*", "c"),
    ("details:Administrator", "a"),
    ("details:administrator", ""),
    # regular expressions
    ("details.path:/\\/wp-admin\\/.*/", "ad"),
    ("details.path:/.*\\.php/", "a"),
    ("details.path:/\\/a\\*[a-c]/", "b"),
    ("details.username:/(?:Root|adm.*)/", "abc"),
    ("details.username:/^admin(istrator)?$/", "ab"),
    ("details.username:/[A-D]\\w{4}/", "b"),
    ("details.username:/[^a]+/", "c"),
    ("details.username:/.{0}/", "d"),
    ("details.user:/r.+t/", "c"),
    ("details.useragent:/mozilla\\/\\d\\.\\d.*SQL\\S+/", "a"),
    ("details.method:/i./", "c"),
    ("severity:/(warn|inf).*/", "bc"),
    ("NOT details.username:/.*o.*/", "bdef"),
    # severities
    ("severity:>=WARNING", "abd"),
    ("severity:>warn", "ad"),
    ("severity:<=info", "ce"),
    ("severity:<7", ""),
    ("severity:>=debug", "abcde"),
    ("severity:>emerg", ""),
    ("severity:[INFO TO ERROR]", "abc"),
    ("severity:{INFO TO ERROR}", "b"),
    ("severity:warn", "b"),
    ("severity:err", "a"),
    ("severity:3", "a"),
    ("severity:(crit OR fatal OR emerg)", "d"),
    ("NOT severity:>=7", "f"),
    # words
    ("*password*", "def"),
    ("*password", ""),
    ("password*", "df"),
    ("pass*s", "d"),
    ("p?sswords", "d"),
    ("*ASSWORD?", "df"),
    ("summary:*password*", "def"),
    ("summary:*admin*", ""),
    ("*admin*", "abd"),
    ("foo_*_bar", "e"),
    ("deso-mgmt*", "ac"),
    ("summary:deso-mgmt*", "ac"),
    ("deso-m*", "ac"),
    ("desomg*", "b"),
    ("172.24.*", "ad"),
    ("172.2*", "ad"),
    ("from-17*", "a"),
    ("mozilla/5.0*", "a"),
    ("NOT *password* AND NOT deso-mgmt*", "b"),
)


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path_factory.mktemp(request.param)) as store:
        store.index([document(id, source, number=number) for number, (id, source) in enumerate(EVENTS.items(), 1)])
        store.refresh()
        yield store


@pytest.mark.parametrize(("query", "ids"), QUERIES)
def test_query_finds_what_it_says(store: Store, query: str, ids: str) -> None:
    """Each query of the table finds its events, newest first, and counts them."""
    hits = store.search(parse(query), size=100)

    assert "".join(event["_id"] for event in hits.events) == ids[::-1]
    assert store.count(parse(query)) == Count(len(ids))


TOPS = (
    ("*", "details.username", [("", 1), ("admin", 1), ("administrator", 1), ("ops", 1), ("root", 1)]),
    ("severity:>=WARNING", "details.path", [("/a*b", 1), ("/wp-admin/setup.php", 1), ("/wp-admin/x", 1)]),
    ("*", "tags", []),
    ("details.status:*", "severity", [("debug", 1), ("emergency", 1), ("error", 1), ("info", 1), ("warning", 1)]),
    ("*", "ingest_stream", [("ab" * 16 + "-0", 6)]),
)


@pytest.mark.parametrize(("query", "field", "expected"), TOPS)
def test_most_frequent_values_come_first(store: Store, query: str, field: str, expected: list[tuple[str, int]]) -> None:
    """In lower case, each of a list's values, with how many events have it; bounded in number and time."""
    assert store.top(parse(query), field, size=100) == expected
    assert store.top(parse(query), field, size=2) == expected[:2]
    assert store.top(parse(query), field, size=5, from_us=NOON_US + DAY_US) == []


def test_values_of_another_field_are_not_counted(store: Store) -> None:
    """Only keywords have values that are counted."""
    for field in ("summary", "timestamp", "details.status", "details.other", "nothing"):
        with pytest.raises(LogweirError, match="a keyword, such as"):
            store.top(parse("*"), field, size=5)


def test_events_are_counted_by_parts_of_the_time(kinds_of_time: Store) -> None:
    """Each event in its part, by either time, over midnight; parts have whole milliseconds."""

    def counts(query: str, from_us: int, to_us: int, buckets: int, time_field: str = "receivedtimestamp") -> list[int]:
        return kinds_of_time.histogram(
            parse(query), from_us=from_us, to_us=to_us, buckets=buckets, time_field=time_field
        )

    assert counts("*", NOON_US, NOON_US + DAY_US, 4) == [3, 1, 3, 0]
    assert counts("hostname:a", NOON_US, NOON_US + DAY_US, 4) == [1, 1, 1, 0]
    assert counts("*", NOON_US + 7, NOON_US + 3007, 3) == [2, 1, 0]
    assert counts("*", NOON_US, NOON_US + 3000, 3) == [1, 1, 1]
    assert counts("*", NOON_US, NOON_US + 2500, 2) == [2, 1]
    assert counts("*", NOON_US - DAY_US, NOON_US, 3) == [0, 0, 0]
    assert counts("*", NOON_US - 3_600_000_000, NOON_US, 2, "timestamp") == [0, 7]


@pytest.fixture(scope="module", params=STORES)
def kinds_of_time(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Seven events of two days, each received a while after it happened."""
    behind = [0, 1000, 2000, DAY_US // 4, DAY_US // 2, DAY_US // 2 + 1, DAY_US // 2 + 5_000_000]
    with empty_store(request.param, request, tmp_path_factory.mktemp(request.param)) as store:
        store.index(
            [
                document(
                    f"t{number}",
                    {"hostname": "ab"[number % 2], "timestamp": iso(NOON_US - 60_000_000)},
                    number=number,
                    received_us=NOON_US + us,
                )
                for number, us in enumerate(behind, 1)
            ]
        )
        store.refresh()
        yield store
