"""Both stores give the same hits, in the same order, for everything that the search language can say."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logweir.errors import LogweirError
from logweir.event import Document
from logweir.query.known import address_number
from logweir.query.match import matcher
from logweir.query.parse import (
    CLAUSES_MAX,
    FIELD_SIZE_BYTES_MAX,
    NESTING_MAX,
    PATTERN_SIZE_BYTES_MAX,
    WILDCARDS_MAX,
    parse,
)
from logweir.query.regex import Unreadable, canonical
from logweir.query.tree import (
    All,
    And,
    Exists,
    Node,
    Not,
    Or,
    Prefix,
    Range,
    Regex,
    Term,
    Wildcard,
    WordPrefix,
    Words,
    WordWildcard,
    lower,
)
from logweir.query.words import words_of
from logweir.store.port import Count, Hits, Store, Written
from tests.contract.stores import DAY_US, NOON_US, STORES, document, empty_store, iso
from tests.proof import size

MINUTE_US = 60_000_000

EVENTS: dict[str, dict[str, Any]] = {
    "a": {
        "category": "syslog",
        "hostname": "web1",
        "processname": "sshd",
        "severity": "WARNING",
        "processid": "4711",
        "summary": "Failed password for root from 10.0.0.7",
        "tags": ["auth", "ssh"],
        "details": {"user": "root", "port": 22, "ip": "10.0.0.7"},
    },
    "b": {
        "category": "syslog",
        "hostname": "WEB2",
        "severity": "INFO",
        "summary": "foo.bar ran",
        "details": {"exit": 0, "ok": True, "offset": -5},
    },
    "c": {
        "category": "application",
        "hostname": "db1",
        "severity": "ERROR",
        "summary": "Straße gesperrt: foo_bar",
        "tags": ["Straße"],
        "details": {"message id": "x1", "ratio": 0.5, "big": 12345678901, "tiny": 1e-7},
    },
    "d": {
        "category": "Application",
        "hostname": "db-1.example.org",
        "summary": "foo",
        "source": "bar baz",
        "details": {"a": {"b": "x"}, "a.c": "y", "d.e": {"f": "z"}},
    },
    "e": {"summary": "İstanbul IŞIK", "hostname": "İST", "tags": ["ΑΣ"], "details": {"city": "İstanbul"}},
    "f": {"summary": "日本語 ログ", "hostname": "東京", "details": {"user": "Root"}},
    "g": {"hostname": "", "tags": [], "details": {}},
    "h": {"summary": "", "category": "a*b", "source": "C:\\temp\\x", "processname": "what?", "details": {"empty": ""}},
    "i": {
        "summary": "one two three",
        "tags": ["two three", "x"],
        "details": {"list": [1, "two", {"k": "deep"}], "n": None, "text": "two words, three"},
    },
    "j": {"source": "L" * 8000, "details": {"long": "v" * 8000}},
    "k": {"source": "L" * 8001, "details": {"long": "v" * 8001, "ok": False}},
    "l": {"timestamp": "2026-01-30T23:59:59.999999Z", "summary": "last of the day", "type": "edge"},
    "m": {"timestamp": "2026-01-31T00:00:00.000000Z", "summary": "first of the day", "type": "edge"},
    "n": {"timestamp": "2026-01-31T23:59:59.999000Z", "summary": "x" * 300 + " tail", "type": "edge"},
    "o": {"timestamp": "2026-02-01T00:00:00.000500Z", "summary": "failure failed fail", "type": "edge"},
    "p": {"timestamp": "1969-12-31T23:59:59.000000Z", "source": "😀" * 4000, "type": "old", "details": {"e": "😀x"}},
    "q": {"timestamp": "9999-12-31T23:59:59.999999Z", "source": "😀" * 4001, "tags": ["A\x1fB", "c"], "type": "new"},
}
"""By id; received a minute apart in this order, the last five on the next day."""

# Query, and the ids that it finds. All but "everything" are written without the order: newest first.
QUERIES = (
    ("", "abcdefghijklmnopq"),
    ("*", "abcdefghijklmnopq"),
    # words and phrases, anywhere
    ("failed", "ao"),
    ("FAILED", "ao"),
    ('"failed password"', "a"),
    ('"password failed"', ""),
    ("foo", "bd"),
    ("bar", "bd"),
    ("foo.bar", "b"),
    ('"foo bar"', "b"),
    ("foo_bar", "c"),
    ("baz", "d"),
    ('"bar baz"', "d"),
    ('"foo baz"', ""),
    ("10.0.0.7", "a"),
    ("straße", "c"),
    ("STRASSE", "c"),
    ("Straß*", "c"),
    ("istanbul", ""),
    ("İSTANBUL", "e"),
    ("ışık", ""),
    ("IŞIK", "e"),
    ("日本語", "f"),
    ("日本", "f"),
    ("本語", "f"),
    ("語本", ""),
    ("日本*", "f"),
    ('"日本語 ログ"', "f"),
    ('"ログ 日本語"', ""),
    ("ログ", "f"),
    ("sshd", "a"),
    ("22", "a"),
    ("12345678901", "c"),
    ("true", "b"),
    ('"two three"', "i"),
    ('"three two"', ""),
    ('"three x"', ""),
    ("fail*", "ao"),
    ("failu*", "o"),
    ("x" * 300, "n"),
    (f'"{"x" * 300} tail"', "n"),
    # the summary alone
    ("summary:foo", "bd"),
    ("summary:bar", "b"),
    ('summary:"one two"', "i"),
    ("summary:(one three)", "i"),
    ("summary:deep", ""),
    ("summary:fail*", "ao"),
    ("summary:*", "abcdefhilmno"),
    ("message:gesperrt", "c"),
    # keywords
    ("hostname:web1", "a"),
    ("hostname:WEB1", "a"),
    ("hostname:web2", "b"),
    ("hostname:web*", "ab"),
    ("hostname:w?b?", "ab"),
    ("hostname:*1", "ac"),
    ("hostname:*B*", "abcd"),
    ("hostname:(web1 OR db1)", "ac"),
    ("hostname:db", ""),
    ("hostname:db-1.example.org", "d"),
    ("hostname:*", "abcdefg"),
    ('hostname:""', "g"),
    ("hostname:?", ""),
    ("hostname:東*", "f"),
    ("hostname:東?", "f"),
    ("hostname:İst", "e"),
    ("hostname:ist", "e"),
    ("host.name:web1", "a"),
    ("category:application", "cd"),
    ("event.category:APPLICATION", "cd"),
    ("category:a\\*b", "h"),
    ("category:a*b", "h"),
    ("category:a*", "cdh"),
    ('category:"a*b"', "h"),
    ('source:"C:\\\\temp\\\\x"', "h"),
    ("source:C\\:\\\\*", "h"),
    ("source:c\\:\\\\*\\\\?", "h"),
    ('source:"bar baz"', "d"),
    ("source:bar\\ b*", "d"),
    ("source:bar", ""),
    ("processname:what\\?", "h"),
    ("processname:wha?\\?", "h"),
    ("processid:4711", "a"),
    (f"source:{'l' * 8000}", "j"),
    ("source:l*", "j"),
    ("source:*", "dhjp"),
    # lists
    ("tags:auth", "a"),
    ("tags:(auth AND ssh)", "a"),
    ('tags:"two three"', "i"),
    ("tags:two", ""),
    ("tags:two*", "i"),
    ("tags:*three", "i"),
    ("tags:straße", "c"),
    ("tags:STRASSE", ""),
    ("tags:ας", ""),
    ("tags:ασ", "e"),
    ("tags:*", "aceiq"),
    ('tags:"a\x1fb"', "q"),
    ("tags:?", "iq"),
    ("tags:b", ""),
    # details
    ("details.user:root", "a"),
    ("details.user:Root", "f"),
    ("details.user:R*", "f"),
    ("details.user:*", "af"),
    ("details.port:22", "a"),
    ("details.port:2*", "a"),
    ("details.ip:10.0.0.7", "a"),
    ("details.ip:10.0.0*", "a"),
    ("details.ip:10.0.0.*", "a"),
    ("details.exit:0", "b"),
    ("details.ok:true", "b"),
    ("details.ok:(true OR false)", "bk"),
    ('details.offset:"-5"', "b"),
    ("details.ratio:0.5", "c"),
    ("details.tiny:1e-7", "c"),
    ("details.big:12345678901", "c"),
    ("details.message\\ id:x1", "c"),
    ("details.a.b:x", "d"),
    ("details.a.c:y", "d"),
    ("details.d.e.f:z", "d"),
    ("details.a:*", "d"),
    ("details.a:x", ""),
    ("details.d:*", "d"),
    ("details.b:*", ""),
    ("details.list:*", "i"),
    ("details.a.b:*", "d"),
    ("details.list:1", "i"),
    ("details.list:two", "i"),
    ("details.list.k:deep", "i"),
    ("details.n:*", ""),
    ("details.empty:*", "h"),
    ('details.empty:""', "h"),
    ("details.text:two*", "i"),
    ('details.text:"two words, three"', "i"),
    ('details.text:"two words three"', ""),
    (f"details.long:{'v' * 8000}", "j"),
    ("details.long:*", "jk"),
    ("details.long:v*", "j"),
    ("details.city:İstanbul", "e"),
    ("details.e:😀*", "p"),
    ("details:root", "a"),
    ("details:ro*", "a"),
    ("details:*", "abcdefhijkp"),
    # times and numbers
    ("timestamp:2026-01-31 AND type:edge", "mn"),
    ("timestamp:2026-01-30 AND type:*", "l"),
    ("timestamp:2026-01 AND type:edge", "lmn"),
    ("timestamp:2026 AND type:edge", "lmno"),
    ("timestamp:[2026-01-30 TO 2026-01-31] AND type:edge", "lmn"),
    ("timestamp:{2026-01-30 TO 2026-02-01} AND type:edge", "mn"),
    ("timestamp:[2026-01-31 TO *] AND type:edge", "mno"),
    ("type:edge AND timestamp:<2026-01-31", "l"),
    ("type:edge AND timestamp:<=2026-01-31", "lmn"),
    ("type:edge AND timestamp:>2026-01-31", "o"),
    ("type:edge AND timestamp:>=2026-01-31T23:59:59.999", "no"),
    ("type:edge AND timestamp:2026-02-01T00:00:00.000Z", "o"),
    ("type:edge AND timestamp:2026-01-31T23\\:59", "n"),
    ('timestamp:"2026-01-31T01:00:00.000+01:00"', "m"),
    ("@timestamp:1769817600", "m"),
    ("timestamp:<1970", "p"),
    ("timestamp:<=9999 AND type:*", "lmnopq"),
    ("timestamp:>9999", ""),
    ("timestamp:9999-12-31T23:59:59.999", "q"),
    ("utctimestamp:*", ""),
    ("receivedtimestamp:2026-02-01", "mnopq"),
    ("ingest_number:3", "c"),
    ("ingest_number:[3 TO 5]", "cde"),
    ("ingest_number:{3 TO 5}", "d"),
    ("ingest_number:>=16", "pq"),
    ('ingest_number:["-5" TO 1]', "a"),
    ("ingest_number:[-5 TO 2]", "ab"),
    (f"ingest_stream:{'AB' * 16}-0", "abcdefghijklmnopq"),
    ("content_hash:*", "abcdefghijklmnopq"),
    # all of it together
    ("foo bar", "bd"),
    ("foo AND bar", "bd"),
    ("foo && category:application", "d"),
    ("foo_bar OR sshd", "ac"),
    ("foo_bar || sshd", "ac"),
    ("category:syslog foo OR failed", "ab"),
    ("NOT category:*", "efgijklmnopq"),
    ("-category:*", "efgijklmnopq"),
    ("category:* -foo", "ach"),
    ("category:* AND NOT foo", "ach"),
    ("category:* !foo", "ach"),
    ("NOT (foo OR type:* OR hostname:*)", "hijk"),
    ("NOT NOT foo", "bd"),
    ("NOT hostname:web1 AND category:syslog", "b"),
    ("+foo -bar", ""),
    ("(foo AND (bar OR (baz AND NOT tags:*)))", "bd"),
    ("category:(syslog OR application) AND NOT (summary:foo OR details.user:root)", "c"),
    ("NOT details.user:*  AND hostname:*", "bcdeg"),
    ("NOT timestamp:2026", "pq"),
    ("tags:auth OR details.ok:true OR summary:日本語", "abf"),
    ("* AND foo", "bd"),
    ("NOT *", ""),
)


SUMMARIES = {
    "a": "nfd Fore\u0302t",
    "b": "nfc Forêt",
    "c": "日本語テスト エラー発生",
    "d": "ภาษาไทยทดสอบ กำลัง",
    "e": "हिन्दी में",
    "f": "العَرَبِيَّة",
    "g": "오류가 발생했습니다",
    "h": "Ver\u00adbindung ﬁle ＡＢＣ",
    "i": "ﾊﾟｽﾜｰﾄﾞ 500ms",
    "j": "中文日志：服务器错误",
    "k": "שָׁלוֹם",
    "l": "می\u200cخواهم",
    "m": "ខ្មែរ",
    "n": "plain foo",
}
"""By id; the text is in the summary, in details.text and among the tags."""

SUBSTRINGS = (
    *((summary, id) for id, summary in SUMMARIES.items() if id not in "ab"),
    *((unicodedata.normalize(form, summary), id) for form in ("NFC", "NFD") for id, summary in SUMMARIES.items()),
    ("Forêt", "ab"),
    ("Fore\u0302t", "ab"),
    ("forêt", "ab"),
    ("Forê*", "ab"),
    ("foret", ""),
    ("t", ""),
    ("エラー", "c"),
    ("日", "cj"),
    ("ラー", "c"),
    ("ーラ", ""),
    ("テストエラー", "c"),
    ("ทดสอบ", "d"),
    ("ไทย", "d"),
    ("กำลัง", "d"),
    ("हिन्दी", "e"),
    ("हिन्द*", "e"),
    ("العربية", "f"),
    ("오류", "g"),
    ("발생", "g"),
    ("verbindung", "h"),
    ("file", "h"),
    ("abc", "h"),
    ("ａｂｃ", "h"),
    ("パスワード", "i"),
    ("500ms", "i"),
    ("服务器错误", "j"),
    ("错误服务器", ""),
    ("שלום", "k"),
    ("ខ្មែ", "m"),
    ("tags:Forêt OR tags:zz", ""),
    ('tags:"nfc Forêt"', "b"),
    ('tags:"nfd Forêt"', "a"),
    ('tags:"nfc Fore\u0302t"', "b"),
    ("tags:nf?\\ Forê*", "ab"),
    ("tags:nfd\\ Forê*", "a"),
    ('details.text:"nfd Forêt"', "a"),
    ('details.text:"nfc Fore\u0302t"', "b"),
    ("details.text:nfc\\ Fore\u0302*", "b"),
    ("details.text:nfd\\ Fore*", "a"),
    ("details.text:日本*", "c"),
)
"""In each of these scripts, what people type finds what contains it, however it is composed."""


@pytest.fixture(scope="module", params=STORES)
def store_of_scripts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path_factory.mktemp(request.param)) as store:
        store.index(
            [
                document(id, {"summary": text, "tags": [text], "details": {"text": text}}, number=number)
                for number, (id, text) in enumerate(SUMMARIES.items(), start=1)
            ]
        )
        store.refresh()
        yield store


@pytest.mark.parametrize(("query", "ids"), SUBSTRINGS)
def test_scripts_are_found_as_they_are_typed(store_of_scripts: Store, query: str, ids: str) -> None:
    """Accents composed or not, scripts without spaces by any of their characters in a row, vowels left out."""
    hits = store_of_scripts.search(parse(query), size=100)

    assert "".join(event["_id"] for event in hits.events) == ids[::-1]


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path_factory.mktemp(request.param)) as store:
        documents = [
            document(id, source, number=number, received_us=NOON_US + number * MINUTE_US + (id > "l") * DAY_US)
            for number, (id, source) in enumerate(EVENTS.items(), start=1)
        ]
        assert {item.written for item in store.index(documents)} == {Written.CREATED}
        store.refresh()
        yield store


@pytest.mark.parametrize(("query", "ids"), QUERIES)
def test_query_finds_what_it_says(store: Store, query: str, ids: str) -> None:
    """Each query of the table finds its events, newest first, and counts them."""
    hits = store.search(parse(query), size=100)

    assert "".join(event["_id"] for event in hits.events) == ids[::-1]
    assert store.count(parse(query)) == Count(len(ids))
    assert hits.after is None


def ids_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["_id"] for event in events)


def test_hit_is_the_event_with_id_and_index(store: Store) -> None:
    """A hit has everything that was stored, its id and its index, and not the words."""
    (hit,) = store.search(parse("hostname:web1"), size=1).events

    assert hit.pop("_index").endswith("events-20260131")
    assert hit == {
        **EVENTS["a"],
        "_id": "a",
        "timestamp": iso(NOON_US + MINUTE_US),
        "receivedtimestamp": iso(NOON_US + MINUTE_US),
        "ingest_stream": "ab" * 16 + "-0",
        "ingest_number": 1,
        "content_hash": hit["content_hash"],
    }
    assert len(hit["content_hash"]) == 16


@pytest.mark.parametrize("time_field", ["receivedtimestamp", "timestamp", "utctimestamp"])
@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("size", [1, 3, 16, 17, 18])
def test_pages_join_to_the_whole(store: Store, size: int, time_field: str, oldest_first: bool) -> None:
    """Page after page gives every event once, in the order of one large page."""
    newest_first = store.search(All(), size=100, time_field=time_field).events
    whole = newest_first[::-1] if oldest_first else newest_first
    after, seen = None, []
    for _ in range(40):
        page = store.search(All(), size=size, time_field=time_field, after=after, oldest_first=oldest_first)
        seen += page.events
        if (after := page.after) is None:
            break

    assert after is None
    assert seen == whole
    assert len(seen) == 17


def test_timestamp_orders_by_when_it_happened(store: Store) -> None:
    """By timestamp, an event received early can come late."""
    hits = store.search(parse("type:*"), size=100, time_field="timestamp")

    assert ids_of(hits.events) == "qonmlp"


def test_time_bounds_include_from_and_exclude_to(store: Store) -> None:
    """``from_us`` is included and ``to_us`` is not, by the chosen field, over days."""

    def found(from_us: int | None, to_us: int | None, time_field: str = "receivedtimestamp") -> str:
        return ids_of(store.search(All(), size=50, from_us=from_us, to_us=to_us, time_field=time_field).events)

    assert found(NOON_US + 2 * MINUTE_US, NOON_US + 5 * MINUTE_US) == "dcb"
    assert found(NOON_US + 2 * MINUTE_US + 1000, NOON_US + 5 * MINUTE_US + 1) == "edc"
    assert found(NOON_US + 12 * MINUTE_US, NOON_US + DAY_US + 14 * MINUTE_US) == "ml"
    assert found(None, NOON_US + 3 * MINUTE_US) == "ba"
    assert found(NOON_US + DAY_US + 16 * MINUTE_US, None) == "qp"
    assert found(NOON_US - 100 * DAY_US, NOON_US) == ""
    assert found(NOON_US + DAY_US, NOON_US) == ""
    assert found(-5, 10**18) == "qponmlkjihgfedcba"
    assert found(None, 0, "timestamp") == "p"
    assert found(0, NOON_US - DAY_US // 2, "timestamp") == "l"


def test_size_zero_gives_nothing(store: Store) -> None:
    """No events, and nothing to continue from."""
    assert store.search(parse("foo"), size=0) == Hits([], None)


def test_unknown_time_field_is_refused(store: Store) -> None:
    """Only the three time fields can order a search."""
    with pytest.raises(LogweirError) as caught:
        store.search(All(), size=1, time_field="hostname")

    assert caught.value.problem.code == "parameter_bad"


def nested(depth: int) -> str:
    """``depth`` groups, AND and OR by turns."""
    return "foo" if depth == 0 else f"(bar {'OR' if depth % 2 else 'AND'} {nested(depth - 1)})"


AT_THE_LIMITS = (
    ("NOT " * (NESTING_MAX - 1) + "foo", 2 if NESTING_MAX % 2 else 15),
    (nested(NESTING_MAX // 2), 2),
    (" OR ".join(["foo"] * CLAUSES_MAX), 2),
    (" ".join(["foo"] * CLAUSES_MAX), 2),
    (" OR ".join(["hostname:*1"] * CLAUSES_MAX), 2),
    (" OR ".join(["hostname:web1"] * CLAUSES_MAX), 1),
    (" OR ".join(["hostname:w*"] * CLAUSES_MAX), 2),
    (" OR ".join(["details.user:r*"] * (CLAUSES_MAX // 2)), 1),  # two names for one detail
    (" OR ".join(["f*"] * CLAUSES_MAX), 7),
    (" OR ".join(["ingest_number:>1"] * CLAUSES_MAX), 16),
    (f'"{"foo " * CLAUSES_MAX}"', 0),
    (f'details.text:"{"two " * 2400}"', 0),
    (f"details.{'a' * (FIELD_SIZE_BYTES_MAX - 8)}:{'x' * (PATTERN_SIZE_BYTES_MAX - 1)}*", 0),
    (f"details.{'a' * (FIELD_SIZE_BYTES_MAX - 8)}:*", 0),
    (f"details:{'v' * (PATTERN_SIZE_BYTES_MAX - 1)}*", 1),
    (f"source:{'l' * (PATTERN_SIZE_BYTES_MAX - 1)}*", 1),
    (f"source:{'Ⱥ' * (PATTERN_SIZE_BYTES_MAX // 2 - 1)}*", 0),
    (f"source:?{'Ⱥ' * (PATTERN_SIZE_BYTES_MAX // 2 - 1)}*", 0),
    (f"hostname:*{'?' * (WILDCARDS_MAX - 1)}", 1),
    (f"source:{'*l' * WILDCARDS_MAX}", 1),
    (f"source:{'*x' * WILDCARDS_MAX}", 0),
    (f"source:*l{'?' * (WILDCARDS_MAX - 2)}", 1),
    (f"{'x' * (PATTERN_SIZE_BYTES_MAX - 1)}*", 1),
)


@pytest.mark.parametrize(("query", "total"), AT_THE_LIMITS)
def test_query_at_a_limit_is_answered(store: Store, query: str, total: int) -> None:
    """What the language lets through, no store refuses for its size."""
    assert store.count(parse(query)).number == total


@pytest.mark.parametrize("kind", STORES)
def test_search_before_the_first_event_finds_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """An empty store has no hits for any query, by any time."""
    with empty_store(kind, request, tmp_path) as store:
        for query in ("*", "foo", "hostname:x", "details.x:y", "timestamp:2026", "NOT tags:x"):
            hits = store.search(parse(query), size=10, from_us=NOON_US, to_us=NOON_US + DAY_US)

            assert hits == Hits([], None)
            assert store.count(parse(query), from_us=NOON_US, to_us=NOON_US + DAY_US) == Count(0)


# --- any query over any events ------------------------------------------------------------------------------------
WORDS = [
    "foo",
    "Foo",
    "bar",
    "foo_bar",
    "straße",
    "STRASSE",
    "İx",
    "日本",
    "a1",
    "x",
    "10.0.0.7",
    "ΑΣ",
    "ê",
    "e\u0302x",
]
VALUES = [
    "web1",
    "WEB1",
    "web",
    "",
    "a*b",
    "a?b",
    "a\\b",
    "a\x1fb",
    "İ",
    "ẞ",
    "Σας",
    "東京",
    "foo bar",
    "x" * 8001,
    "-5",
    "\x1e1",
    "Forêt",
    "Fore\u0302t",
    "กำ",
]
LEAVES = [
    *VALUES,
    *WORDS,
    "1",
    "1.0",
    1,
    0,
    -5,
    1.5,
    1e22,
    True,
    False,
    None,
    "true",
    "web1 foo",
    "web1.foo",
    "{}",
    "x" * 9000,
]
NAMES = ["u", "v", "a b", "a.b", "ü"]
PATHS = ["details", *(f"details.{name}" for name in NAMES), "details.u.v", "details.a.b.u", "details.u.u", "details.zz"]
KEYWORDS = ["hostname", "category", "tags", "source"]
MILLISECONDS = [NOON_US // 1000 + offset for offset in (-86_400_000, -1, 0, 1, 2, 86_400_000)]

NUMBERS = [0, -5, 200, 500, 2**53 + 1, 2**63 - 1, 2**63, 1.5, -0.0, 0.25, 1e22, True, "200", "x", None, [200], {"x": 1}]
ADDRESSES = ["10.0.0.7", "10.0.1.0", "::1", "2001:db8::7", "::ffff:10.0.0.9", "fe80::1%eth0", "10.0.0", 7, ["10.0.0.7"]]
KNOWN_KEYWORDS = ["details.username", "details.path", "details.stacktrace"]
KNOWN_NUMBERS = ["details.status", "details.bytes", "details.duration"]
KNOWN_ADDRESSES = ["sourceaddress", "details.sourceipaddress", "details.destinationipaddress"]


def as_canonical(pattern: str) -> str | None:
    try:
        return canonical(pattern)
    except Unreadable:
        return None


details = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
sources = st.fixed_dictionaries(
    {},
    optional={
        "hostname": st.sampled_from(VALUES),
        "category": st.sampled_from(VALUES),
        "source": st.sampled_from(VALUES) | st.lists(st.sampled_from(VALUES), max_size=3),
        "tags": st.lists(st.sampled_from(VALUES), max_size=3),
        "summary": st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
        "timestamp": st.sampled_from(MILLISECONDS).map(lambda milliseconds: iso(milliseconds * 1000 + 999)),
        "sourceaddress": st.sampled_from(ADDRESSES),
        "details": st.builds(
            dict.__or__,
            st.dictionaries(st.sampled_from(NAMES), details, max_size=3),
            st.fixed_dictionaries(
                {},
                optional={
                    **{name.removeprefix("details."): details for name in KNOWN_KEYWORDS},
                    **{name.removeprefix("details."): st.sampled_from(NUMBERS) for name in KNOWN_NUMBERS},
                    **{name.removeprefix("details."): st.sampled_from(ADDRESSES) for name in KNOWN_ADDRESSES[1:]},
                },
            ),
        ),
    },
)

some_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(
    lambda parts: tuple(words_of(" ".join(parts)))
)
texts = st.sampled_from([text for text in LEAVES if isinstance(text, str)] + ["1.5", "1e22", "false"])
beginnings = texts.filter(lambda text: 0 < len(text) <= 400) | st.sampled_from(
    ["w", "web1 f", "1.", "-", "日", "a?", "Fore", "e"]
)
bounds = st.none() | st.sampled_from(MILLISECONDS)
keyword_values = st.sampled_from([*VALUES, "we", "a", "\x1f"]).map(lower)
keyword_beginnings = keyword_values.filter(lambda text: 0 < len(text) <= 400)
pieces = st.sampled_from(["*", "?", "a", "b", "web", "1", "\\*", "\\?", "\\\\", "i", "ß", "東", "ê", "fore\u0302t"])
expression_pieces = st.sampled_from(
    ["*", "+", "?", "{2}", "{0,3}", "|", "(", "(?:", ")", ".", "web", "A", "1", "[a-z]", "[^b]", "[A-F*]", "[!-~]"]
) | st.sampled_from(
    ["\\w", "\\S", "\\d", "\\*", "\\\\", "#", "@", "~", "&", "<", '"', "ß", "İ", "東", "-", "/", " ", "a", "o"]
)
expressions = (
    st.lists(expression_pieces, min_size=1, max_size=6)
    .map(lambda several: as_canonical("".join(several)))
    .filter(lambda one: one is not None)
)
word_pieces = st.sampled_from(["*", "?", "foo", "bar", "_", "a", "x", "1", "straß", "\ue000"])
word_patterns = st.lists(word_pieces, min_size=1, max_size=4).map("".join).filter(lambda text: text.strip("*?"))
integers = st.none() | st.sampled_from([one for one in NUMBERS if type(one) is int and one < 2**63])
floats = st.none() | st.sampled_from([float(one) for one in NUMBERS if isinstance(one, int | float)]).map(
    lambda x: x + 0.0
)
addresses = st.none() | st.sampled_from(
    [one for text in ADDRESSES if isinstance(text, str) and (one := address_number(text)) is not None]
    + [0, 2**128 - 1, 2**128, 0xFFFF << 32, (0xFFFF << 32) + (10 << 24)]
)
queries: st.SearchStrategy[Node] = st.recursive(
    st.one_of(
        st.just(All()),
        st.builds(Words, some_words, st.booleans()),
        st.builds(WordPrefix, st.sampled_from(["f", "foo", "foo_", "s", "str", "日", "a", "1", "e"]), st.booleans()),
        st.builds(
            WordPrefix, st.sampled_from(["f", "foo", "b", "1", "日"]), st.booleans(), some_words.filter(lambda one: one)
        ),
        st.builds(WordWildcard, word_patterns, st.booleans()),
        st.builds(Term, st.sampled_from(KNOWN_KEYWORDS), texts),
        st.builds(Prefix, st.sampled_from(KNOWN_KEYWORDS), beginnings),
        st.builds(Wildcard, st.sampled_from(KNOWN_KEYWORDS), st.lists(pieces, min_size=1, max_size=4).map("".join)),
        st.builds(Term, st.sampled_from([*KNOWN_NUMBERS, *KNOWN_ADDRESSES[1:]]), texts),
        st.builds(Range, st.sampled_from(["details.status", "details.bytes"]), integers, integers),
        st.builds(Range, st.just("details.duration"), floats, floats),
        st.builds(Range, st.sampled_from(KNOWN_ADDRESSES), addresses, addresses),
        st.builds(Regex, st.sampled_from([*KEYWORDS, *KNOWN_KEYWORDS]), expressions),
        st.builds(Term, st.sampled_from(KEYWORDS), keyword_values),
        st.builds(Prefix, st.sampled_from(KEYWORDS), keyword_beginnings),
        st.builds(Wildcard, st.sampled_from(KEYWORDS), st.lists(pieces, min_size=1, max_size=4).map("".join)),
        st.builds(Term, st.sampled_from(PATHS), texts),
        st.builds(Prefix, st.sampled_from(PATHS), beginnings),
        st.builds(Exists, st.sampled_from([*KEYWORDS, *PATHS, "summary", "timestamp"])),
        st.builds(Range, st.just("timestamp"), bounds, bounds),
        st.builds(Range, st.just("ingest_number"), st.none() | st.integers(-5, 99), st.none() | st.integers(-5, 99)),
    ),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@pytest.mark.sized
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", STORES[1:])
def test_any_query_finds_the_same_in_both_stores(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Whatever the events and whatever the query, the embedded store, Elasticsearch and the rules' matcher agree."""
    with empty_store("sqlite", request, tmp_path) as embedded, empty_store(kind, request, tmp_path) as other:
        number = 0
        every: list[Document] = []

        @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(st.lists(sources, min_size=10, max_size=10))
        def fill(batch: list[dict[str, Any]]) -> None:
            nonlocal number
            documents = [document(f"{number + i}", source, number=number + i) for i, source in enumerate(batch)]
            number += len(batch)
            every.extend(documents)
            written = [[item.written for item in store.index(documents)] for store in (embedded, other)]

            assert written[0] == written[1] == [Written.CREATED] * len(documents)

        @settings(max_examples=size(200, 5000), deadline=None, suppress_health_check=list(HealthCheck))
        @given(queries)
        def agree(query: Node) -> None:
            found = [store.search(query, size=500, time_field="timestamp") for store in (embedded, other)]
            matches = matcher(query)

            assert [event["_id"] for event in found[0].events] == [event["_id"] for event in found[1].events]
            assert {event["_id"] for event in found[0].events} == {one.id for one in every if matches(one)}
            # Its index is called otherwise in each store.
            for event in (*found[0].events, *found[1].events):
                del event["_index"]
            assert found[0] == found[1]

        fill()
        other.refresh()
        agree()
