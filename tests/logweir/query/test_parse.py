"""The search language: what a query means, and what is said about one that means nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logweir.errors import LogweirError
from logweir.query import parse as query
from logweir.query.hints import SENT_AS, SEVERITIES, SEVERITY_BY_SPELLING
from logweir.query.parse import parse
from logweir.query.times import time_bounds, time_of
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
    searchable,
    time_range,
)
from logweir_workers.normalise.details import SYNONYMS as DETAILS_SYNONYMS
from logweir_workers.normalise.fields import SYNONYMS
from logweir_workers.normalise.severities import SEVERITIES as NORMALISED
from logweir_workers.normalise.severities import SPELLINGS

NOON_US = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z
DAY_MS = 86_400_000
MAPPED, TEN = 0xFFFF << 32, 10 << 24
A, B, C, D = (Words((word,)) for word in "abcd")

MEANINGS: tuple[tuple[str, Node], ...] = (
    ("", All()),
    ("  ", All()),
    ("*", All()),
    ("a", A),
    ("a b", And((A, B))),
    ("a b c", And((A, B, C))),
    ("a AND b OR c", Or((And((A, B)), C))),
    ("a b OR c", And((A, Or((B, C))))),
    ("a OR b AND NOT c", Or((A, And((B, Not(C)))))),
    ("NOT a b", And((Not(A), B))),
    ("-a +b", And((Not(A), B))),
    ("!a && b || c", Or((And((Not(A), B)), C))),
    ("(a)&&(b)", And((A, B))),
    ("!(a || b)", Not(Or((A, B)))),
    ('!"a b"', Not(Words(("a", "b")))),
    ("a||b", Words(("a", "b"))),
    ("a&&b", Words(("a", "b"))),
    ("a!b", Words(("a", "b"))),
    ('"a && b"', Words(("a", "b"))),
    ("hostname:a!b", Term("hostname", "a!b")),
    ("hostname:/a && b.* !c/", Regex("hostname", "a \\&\\& b.* !c")),
    ('a or "b c"', And((A, Words(("or",)), Words(("b", "c"))))),
    ("and or not", And((Words(("and",)), Words(("or",)), Words(("not",))))),
    ("Foo.Bar", Words(("foo", "bar"))),
    ("foo\\ bar", Words(("foo", "bar"))),
    ("foo*", WordPrefix("foo")),
    ("FOO*", WordPrefix("foo")),
    ("foo\\*", Words(("foo",))),
    ("summary:a", Words(("a",), summary_only=True)),
    ("summary:(a OR b*)", Or((Words(("a",), summary_only=True), WordPrefix("b", summary_only=True)))),
    ("message:a", Words(("a",), summary_only=True)),
    ("hostname:Web1", Term("hostname", "web1")),
    ('hostname:"Web 1*"', Term("hostname", "web 1*")),
    ("hostname:web*", Prefix("hostname", "web")),
    ("hostname:we?b*", Wildcard("hostname", "we?b*")),
    ("hostname:*\\*\\\\B", Wildcard("hostname", "*\\*\\\\b")),
    ("hostname:*", Exists("hostname")),
    ("host.name:x", Term("hostname", "x")),
    ("log.level:(error OR critical)", Or((Term("severity", "error"), Term("severity", "critical")))),
    ("details.Owner:Root", Term("details.Owner", "Root")),
    ("details.Owner:Ro*", Prefix("details.Owner", "Ro")),
    ("details.message\\ id:x", Term("details.message id", "x")),
    ("details.x:*", Exists("details.x")),
    ("details:Root", Term("details", "Root")),
    ("ingest_number:5", Range("ingest_number", 5, 6)),
    ("ingest_number:[5 TO 7]", Range("ingest_number", 5, 8)),
    ("ingest_number:{5 TO 7}", Range("ingest_number", 6, 7)),
    ("ingest_number:[-5 TO *]", Range("ingest_number", -5, None)),
    ("ingest_number:>5", Range("ingest_number", 6, None)),
    ("ingest_number:>=5", Range("ingest_number", 5, None)),
    ("ingest_number:<5", Range("ingest_number", None, 5)),
    ("ingest_number:<=5", Range("ingest_number", None, 6)),
    ("timestamp:[* TO *]", Range("timestamp", None, None)),
    ("*:*", All()),
    ("NOT *:*", Not(All())),
    ("Fore\u0302t", Words(("forêt",))),
    ("日本", Words(("日", "本"))),
    ("日本*", Words(("日", "本"))),
    ("foo日*", Words(("foo", "日"))),
    ("हिन्दी*", WordPrefix("हिन्दी")),
    ('"C:\\\\Windows"', Words(("c", "windows"))),
    ('"10.0.0.0/8"', Words(("10", "0", "0", "0", "8"))),
    ('details.net:"10.0.0.0/8"', Term("details.net", "10.0.0.0/8")),
    ("source:a/8", Term("source", "a/8")),
    ('sourceaddress:"2001:DB8:0::1"', Term("sourceaddress", "2001:db8::1")),
    ('sourceaddress:"::ffff:10.0.0.1"', Term("sourceaddress", "10.0.0.1")),
    ("sourceaddress:10.*", Prefix("sourceaddress", "10.")),
    ("details.username:Root", Term("details.username", "Root")),
    ("details.username:Ro?t*", Wildcard("details.username", "ro?t*")),
    ("details.user:Ro?t*", Wildcard("details.username", "ro?t*")),
    ("details.status:500", Term("details.status", "500")),
    ("details.status:>500", Range("details.status", 501, None)),
    ("details.status:[-5 TO 500}", Range("details.status", -5, 500)),
    ("details.duration:>0.5", Range("details.duration", math.nextafter(0.5, 1), None)),
    ('details.duration:<="-0"', Range("details.duration", None, math.nextafter(0.0, 1))),
    ("details.sourceipaddress:10.0.0.0/8", Range("details.sourceipaddress", MAPPED + TEN, MAPPED + TEN + (1 << 24))),
    ("client.ip:10.0.0.0/255.0.0.0", Range("details.sourceipaddress", MAPPED + TEN, MAPPED + TEN + (1 << 24))),
    ("details.src_ip:<10.0.0.0/8", Range("details.sourceipaddress", None, MAPPED + TEN)),
    ("sourceaddress:[10.0.0.0 TO 10.0.0.1]", Range("sourceaddress", MAPPED + TEN, MAPPED + TEN + 2)),
    (
        'details.sourceipaddress:"::/127"',
        Or((Range("details.sourceipaddress", 0, 2), Term("details.sourceipaddress", "::/127"))),
    ),
    ("deso-Mgmt*", WordPrefix("mgmt", before=("deso",))),
    ("172.24.*", Words(("172", "24"))),
    ("foo-*", Words(("foo",))),
    ("*Fo?", WordWildcard("*fo?")),
    ("summary:Stra?ßen*", WordWildcard("stra?ssen*", summary_only=True)),
    ("hostname:/Web[0-9A-F]+\\//", Regex("hostname", "web[0-9a-f]+/")),
    ("details.user:/^Ro\\w*$/", Regex("details.username", "ro[0-9_a-z]*")),
    ("source:/[@-Z!-~]\\.#/", Regex("source", "[\\@-\\@a-z!-\\@a-z\\[-\\~]\\.\\#")),
    ("severity:>=Crit", Or(tuple(Term("severity", name) for name in ("critical", "alert", "emergency")))),
    ("severity:<7", Not(All())),
    ("severity:<=7", Term("severity", "debug")),
    ("severity:err", Term("severity", "error")),
    ("severity:Warning", Term("severity", "warning")),
    ("severity:w*", Prefix("severity", "w")),
    ("severity:?arn*", Wildcard("severity", "?arn*")),
    ('hostname:(a OR "or")', Or((Term("hostname", "a"), Term("hostname", "or")))),
)


@pytest.mark.parametrize(("text", "node"), MEANINGS)
def test_query_means(text: str, node: Node) -> None:
    """Each text has its tree."""
    assert parse(text) == node


NOON_MS = NOON_US // 1000
MIDNIGHT_MS = NOON_MS - DAY_MS // 2
TIMES = (
    ("2026", 1_767_225_600_000, 1_798_761_600_000),
    ("2026-01", 1_767_225_600_000, 1_769_904_000_000),
    ("2026-12", 1_796_083_200_000, 1_798_761_600_000),
    ("2026-01-31", MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS),
    ("2026-01-31T12", NOON_MS, NOON_MS + 3_600_000),
    ("2026-01-31T12:00", NOON_MS, NOON_MS + 60_000),
    ("2026-01-31T12:00:00", NOON_MS, NOON_MS + 1000),
    ("2026-01-31 12:00:00Z", NOON_MS, NOON_MS + 1000),
    ("2026-01-31T14:00:00+02:00", NOON_MS, NOON_MS + 1000),
    ("2026-01-31T14:00+0200", NOON_MS, NOON_MS + 60_000),
    ("2026-01-31T12:00:00.25", NOON_MS + 250, NOON_MS + 251),
    ("2026-01-31T12:00:00.250999", NOON_MS + 250, NOON_MS + 252),
    ("1769860800", NOON_MS, NOON_MS + 1000),
    ("1769860800.5", NOON_MS + 500, NOON_MS + 501),
    ("1769860800250", NOON_MS + 250, NOON_MS + 251),
    ("9999", 253_370_764_800_000, 253_402_300_800_000),
    ("9999-12", 253_399_622_400_000, 253_402_300_800_000),
)


@pytest.mark.parametrize(("text", "low", "high"), TIMES)
def test_time_stands_for_all_of_its_precision(text: str, low: int, high: int) -> None:
    """A time means the year, month, day, … that it names, and ranges begin and end at its ends."""
    assert parse(f'timestamp:"{text}"') == Range("timestamp", low, high)
    assert parse(f'timestamp:["{text}" TO *]') == Range("timestamp", low, None)
    assert parse(f'timestamp:{{"{text}" TO *]') == Range("timestamp", high, None)
    assert parse(f'timestamp:[* TO "{text}"]') == Range("timestamp", None, high)
    assert parse(f'timestamp:[* TO "{text}"}}') == Range("timestamp", None, low)


def test_a_search_counts_from_now() -> None:
    """What `now` is, a search says; its ages are those of everywhere."""
    hour = Range("timestamp", NOON_MS - 3_600_000, NOON_MS)

    assert parse("timestamp:[now-1h TO now}", now_us=NOON_US) == hour
    assert parse("timestamp:>=now-1h AND timestamp:<now+15m", now_us=NOON_US) == And(
        (Range("timestamp", NOON_MS - 3_600_000, None), Range("timestamp", None, NOON_MS + 900_000))
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-13",
        "2026-02-30",
        "2026-01-31T25",
        "yesterday",
        "20260131",
        "2026-01-31T12:00:60",
        "2026-01-31Z",
        "٢٠٢٦",
        "-5",
    ],
)
def test_what_is_no_time_is_said(text: str) -> None:
    """What looks like a time and is none is refused, with its column."""
    with pytest.raises(LogweirError, match="is not a time") as caught:
        parse(f'a AND timestamp:"{text}"')

    assert caught.value.numbers["column"] == 17


SYNTAX = (
    ("(a", 3, "ends too early"),
    ("a)", 2, "')'"),
    ('a "b', 3, "never closed"),
    ("a AND", 6, "ends too early"),
    ("AND a", 1, "'AND'"),
    ("a && && b", 6, "'AND'"),
    ("a /b", 3, "never closed"),
    ("--", 3, "ends too early"),
    ('"--"', 1, "no letter or digit"),
    ('a ""', 3, "no letter or digit"),
    ("a ¿", 3, "no letter or digit"),
    ("a^2", 1, "boosting"),
    ("(a b)^2", 1, "boosting"),
    ("b a~", 3, "fuzzy"),
    ('"a b"~3', 1, "proximity"),
    ("source:/var/log", 8, "write a path in quotes"),
    ("source:/var.d/log", 8, "write a path in quotes"),
    ("source:/var/", 8, "write a path in quotes"),
    ("source:/a{101}/", 8, "{101} asks for more than 100 repetitions"),
    ("source:/a{5,2}/", 8, "{5,2} ends before it begins"),
    ("source:/(a.|)/", 8, ") has nothing before it"),
    ("source:/(a./", 8, "it ends too early"),
    ("source:/a.|/", 8, "it ends too early"),
    ("source:/a**/", 8, "* has nothing before it to repeat"),
    ("source:/*a/", 8, "* has nothing before it to repeat"),
    ("source:/a.)/", 8, ") has nothing before it"),
    ("source:/a.[b/", 8, "[ cannot stand here"),
    ("source:/a{.b/", 8, "{ cannot stand here"),
    ("source:/(?=a)b/", 8, "groups that begin with (? are not understood"),
    ("source:/a\\b.*/", 8, "\\b is not understood"),
    ("source:/(a)\\1/", 8, "\\1 is not understood"),
    ("source:/[[:alpha:]]+/", 8, "no class of characters"),
    ("source:/[z-a].*/", 8, "the range z-a"),
    ("source:/" + "\\w" * 150 + "/", 8, "longer than 1000 characters"),
    ("source:/(((a{99}){99}){99}){99}/", 8, "it is not understood"),
    ("a~1.2.3", 1, "number"),
    ("hostname:(category:x)", 11, "inside of the field hostname"),
    ("hostname:-x", 10, "sign"),
    ("ingest_number:five", 15, "whole number"),
    ("ingest_number:1234567890123456789", 15, "18 digits"),
    ("ingest_number:[1 TO x]", 21, "whole number"),
    ("é " * 3 + "(", 8, "ends too early"),
    # a backslash that means nothing
    ('"C:\\Windows\\System32"', 4, "a backslash before W means nothing; write \\\\"),
    ('"\\\\\\\\server\\share"', 12, "a backslash before s means nothing"),
    ("source:C\\:\\temp", 11, "a backslash before t means nothing"),
    ("source:C\\:\\temp", 11, "a backslash before t means nothing"),
    ("x \\u0041", 3, "a backslash before u means nothing"),
    ('details.x:"a\\_b"', 13, "a backslash before _ means nothing"),
    ("details.a\\b:x", 10, "a backslash before b means nothing"),
    ('"C:\\temp\\"', 1, "a backslash makes the last one part of the value"),
    # what has a colon, and no quotes
    ("timestamp:2026-11-30T05:20:00+01:00", 11, 'needs quotes: timestamp:"2026-11-30T05:20:00+01:00"'),
    ("timestamp:>2026-11-30T05:20:00+01:00", 34, "a time with an offset"),
    ("details.url:https://ex.org/a b", 13, 'needs quotes: details.url:"https://ex.org/a"'),
    ("(hostname:web:80)", 11, 'needs quotes: hostname:"web:80"'),
    ("details.mac:00:11:22", 13, 'needs quotes: details.mac:"00:11:22"'),
    ("sourceaddress:2001:db8::1", 24, "an IPv6 address"),
    ("::1", 1, "an IPv6 address"),
    # what no event has
    ("severity:warnin", 10, "'warnin' is no severity (perhaps WARNING is meant); there are EMERGENCY, ALERT, CRITICAL"),
    ("severity:(ERROR OR eror)", 20, "perhaps ERROR"),
    ("severity:8", 10, "'8' is no severity; there are"),
    ("severity:>=huge", 12, "'huge' is no severity; there are"),
    ("severity:[ERROR TO w*]", 20, "'w*' is no severity; there are"),
    ("severity:x*", 10, "'x*' is no severity; there are"),
    ("severity:*z*", 10, "'*z*' is no severity"),
    ("sourceaddress:localhost", 15, "'localhost' is no address"),
    ("sourceaddress:10.1", 15, "such as 10.1.*"),
    ('sourceaddress:""', 15, "is no address"),
    # other search languages
    ("hostname:a and severity:ERROR", 12, 'AND is written in capitals; to look for the word, write "and"'),
    ("a (b c) or d", 9, "OR is written in capitals"),
    ("category:a b or c", 14, "OR is written in capitals"),
    ("-category:a b or c", 15, "OR is written in capitals"),
    ("hostname:(a or b)", 13, "OR is written in capitals"),
    ("not hostname:a", 1, "NOT is written in capitals"),
    ("hostname:“web1”", 10, '“ is not a quote here; write "…"'),
    ("timestamp:now-1h", 11, "searches alone know what now is; a rule says by its window how far it looks back"),
    ("timestamp:now-1y", 11, "is not a time such as now or now-15m"),
    ("timestamp:>15m", 12, "an age is written now-15m"),
    ("details.status:>=high", 18, "'high' is not a whole number"),
    ("details.status:>=0.5", 18, "'0.5' is not a whole number"),
    ("details.duration:>1e5", 19, "'1e5' is not a number such as 5 or 0.25"),
    ("details.sourceipaddress:>=gateway", 27, "'gateway' is no address such as 10.0.0.7, and no range"),
    ("sourceaddress:10.0.0.0/33", 15, "'10.0.0.0/33' is no address"),
    ("*?*", 1, "no letter or digit"),
)


@pytest.mark.parametrize(("text", "column", "reason"), SYNTAX)
def test_unreadable_query_names_column_and_reason(text: str, column: int, reason: str) -> None:
    """What cannot be read, or is Lucene's and not ours, is refused by name, with the column in the text as typed."""
    with pytest.raises(LogweirError) as caught:
        parse(text)

    assert caught.value.problem.code == "query_bad"
    assert reason in caught.value.numbers["reason"]
    assert caught.value.numbers["column"] == column


UNFIT = (
    ("/a.*/", "regular expressions"),
    ("summary:/a.*/", "regular expressions"),
    ("details.x:/a.*/", "regular expressions"),
    ("details.status:/5../", "regular expressions"),
    ("fo*o.b", "wildcards around more than one word"),
    ("*foo-bar*", "wildcards around more than one word"),
    ("f?o-*", "wildcards around more than one word"),
    ("summary:*x.y", "wildcards around more than one word"),
    ("*本語", "wildcards in scripts without spaces"),
    ("[a TO b]", "ranges"),
    ("hostname:[a TO b]", "ranges"),
    ("hostname:>a", "ranges"),
    ("details.x:[1 TO 2]", "ranges"),
    ("details.x:a*b", "one * at the end"),
    ("details.x:a?", "one * at the end"),
    ("timestamp:2026*", "wildcards"),
    ("ingest_number:5?", "wildcards"),
    ("details.sourceipaddress:10.*.1", "one * at the end"),
    ("details.status:?00", "one * at the end"),
    ("details.ip:10.1.2.3/16", "range of addresses 10.1.2.3/16"),
    ("source:2001\\:db8\\:\\:/32", "range of addresses 2001:db8::/32"),
    ("hostname:192.168.0.0/24", "range of addresses"),
    ("10.0.0.0/8", "range of addresses"),
    ("details.username:[a TO b]", "ranges"),
)


@pytest.mark.parametrize(("text", "operator"), UNFIT)
def test_operator_that_a_field_cannot_do_is_named(text: str, operator: str) -> None:
    """Asking a field for what it cannot do names the operator and those that it can do."""
    with pytest.raises(LogweirError) as caught:
        parse(text)

    assert caught.value.problem.code == "query_operator_unfit"
    assert operator in caught.value.numbers["operator"]
    assert caught.value.numbers["operators"]


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("hostnam:x", " Did you mean 'hostname'?"),
        ("host.nam:x", " Did you mean 'host.name'?"),
        ("qqq:x", " Did you mean 'details.qqq'?"),
        ("detail.x:y", " Did you mean 'details.x'?"),
        ("Details.User:y", " Did you mean 'details.username'?"),
        ("Details.Owner:y", " Did you mean 'details.Owner'?"),
        ("details.:x", " Did you mean 'details'?"),
        ("details.a*:x", " The name of a field takes no wildcards."),
        ("Hostname:x", " Did you mean 'hostname'?"),
        ("CATEGORY:q", " Did you mean 'category'?"),
        ("Host.Name:q", " Did you mean 'host.name'?"),
        ("ThreatID:x", " Did you mean 'details.ThreatID'?"),
        ("ruser.name:x", " Did you mean 'details.ruser.name'?"),
        ("user:x", " Did you mean 'details.username'?"),
        ("SRC_IP:x", " Did you mean 'details.sourceipaddress'?"),
        ("username:x", " Did you mean 'details.username'?"),
        ("pid:1", " Did you mean 'processid'?"),
        ("Level:1", " Did you mean 'severity'?"),
        ("_exists_:hostname", " To ask whether a field is there, write hostname:*."),
        ('_exists_:"details.a"', " To ask whether a field is there, write details.a:*."),
        ("_missing_:hostname", " To ask whether a field is absent, write NOT hostname:*."),
        ("_id:x", " An id cannot be searched for; ingest_stream and ingest_number together find one event."),
        ("*:x", " To look in all fields, write the word alone."),
        ("https://ex.org/a", ' An address needs quotes: "https://ex.org/a".'),
        ("12:30:45", ' Text with a colon in it needs quotes: "12:30:45".'),
        ("10.0.0.1:80 x", ' Text with a colon in it needs quotes: "10.0.0.1:80".'),
        ("C:\\Windows", ' A path needs quotes, and two backslashes for each: "C:\\\\Windows".'),
    ],
)
def test_unknown_field_is_named_with_the_nearest(text: str, nearest: str) -> None:
    """A field that there is not is an error, never zero hits."""
    with pytest.raises(LogweirError) as caught:
        parse(text)

    assert caught.value.problem.code == "query_field_unknown"
    assert caught.value.numbers["nearest"] == nearest
    assert "below details" in caught.value.advice


def test_a_details_name_as_it_was_sent_finds_it_under_its_known_name_too() -> None:
    """So rules and searches for `details.user` go on, whether an event has it so or as `details.username`."""
    both = Or((Term("details.user", "root"), Term("details.username", "root")))

    assert parse("details.user:root") == both
    assert parse("NOT details.user:root") == Not(both)
    assert parse("details.Src_IP:*") == Or((Exists("details.Src_IP"), Exists("details.sourceipaddress")))
    assert parse("details.username:root") == Term("details.username", "root")


def test_names_that_events_are_sent_with_lead_to_their_fields() -> None:
    """What normalisation moves into a field, or gives a known detail's name, is not looked for under its own."""
    spellings = SYNONYMS | {f"details.{known}": names for known, names in DETAILS_SYNONYMS.items()}

    assert {name: field for name, field in SENT_AS.items() if name not in spellings[field]} == {"priority": "severity"}
    assert SEVERITIES == NORMALISED
    assert {
        **{str(number): name for number, name in enumerate(SEVERITIES)},
        **{text: name for name in SEVERITIES for text in (name.lower(), *SPELLINGS.get(name, ()))},
    } == SEVERITY_BY_SPELLING


def test_limits_hold_and_are_named() -> None:
    """A query at each limit is read; one past it is refused."""

    def refused(text: str) -> bool:
        try:
            parse(text)
        except LogweirError as error:
            assert error.problem.code == "query_bad"
            return True
        return False

    assert not refused("x" * query.QUERY_LENGTH_MAX)
    assert refused("x" * (query.QUERY_LENGTH_MAX + 1))
    assert not refused(" OR ".join(["a"] * query.CLAUSES_MAX))
    assert refused(" OR ".join(["a"] * (query.CLAUSES_MAX + 1)))
    assert not refused('"' + "a " * query.CLAUSES_MAX + '"')
    assert refused('"' + "a " * (query.CLAUSES_MAX + 1) + '"')
    assert not refused("NOT " * query.NESTING_MAX + "a")
    assert refused("NOT " * (query.NESTING_MAX + 1) + "a")
    assert refused("(" * 4900 + "a" + ")" * 4900)
    assert not refused("hostname:a" + "?b" * query.WILDCARDS_MAX)
    assert refused("hostname:a" + "?b" * (query.WILDCARDS_MAX + 1))
    assert not refused("hostname:" + "é" * (query.PATTERN_SIZE_BYTES_MAX // 2 - 1) + "*")
    assert refused("hostname:" + "é" * (query.PATTERN_SIZE_BYTES_MAX // 2) + "*")
    assert not refused("details." + "a" * (query.FIELD_SIZE_BYTES_MAX - len("details.")) + ":x")
    assert refused("details." + "a" * (query.FIELD_SIZE_BYTES_MAX - len("details.") + 1) + ":x")


@given(
    st.text(alphabet='ab AND OR NOT TO "()[]{}:*?\\-+!&|~^/<>=.1 details.summary', max_size=40) | st.text(max_size=40)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in any other way than by saying what is wrong, and where."""
    try:
        parse(text)
    except LogweirError as error:
        assert error.problem.code in ("query_bad", "query_field_unknown", "query_operator_unfit")
        assert 1 <= error.numbers.get("column", 1) <= len(text) + 1


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
@example("»so«")
@example("::/0")
def test_any_value_can_be_asked_for(text: str) -> None:
    """In quotes, with quote and backslash escaped, every value is itself."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = "".join(character if character.isalnum() else f"\\{character}" for character in text)

    assert parse(f'details.x:"{quoted}"') == Term("details.x", text)
    if "\n" not in text:
        assert parse(f"details.x:{escaped}") == Term("details.x", text)


def test_lower_case_is_one_character_for_one() -> None:
    """Lower case as Elasticsearch's normaliser makes it: no final sigma, no combining dot."""
    assert lower("WEB1") == "web1"
    assert lower("ÄΑΣ") == "äασ"
    assert lower("İI") == "ii"
    assert lower("ẞ") == "ß"


def test_searchable_counts_utf16_units() -> None:
    """The longest searchable value has 8000 UTF-16 units, as Elasticsearch counts."""
    assert searchable("x" * 8000)
    assert not searchable("x" * 8001)
    assert searchable("😀" * 4000)
    assert not searchable("😀" * 4001)


def test_time_of_reads_iso_epoch_and_age() -> None:
    """The command line's times: the first moment of an ISO time, epoch seconds, an age before now."""
    assert time_of("2026-01-31", NOON_US) == NOON_US - DAY_MS * 500
    assert time_of("2026-01-31T12:00:00.000001Z", 0) == NOON_US + 1
    assert time_of("1769860800.25", 0) == NOON_US + 250_000
    assert time_of("15m", NOON_US) == NOON_US - 15 * 60_000_000
    assert time_of(" 7d ", NOON_US) == NOON_US - 7 * DAY_MS * 1000
    assert time_of("999999999w", NOON_US) == 0


@pytest.mark.parametrize("text", ["", "1y", "m", "now", "-1h", "12:00", "١٥m"])
def test_time_of_refuses_the_rest(text: str) -> None:
    """What is no time is TIME_BAD."""
    with pytest.raises(LogweirError) as caught:
        time_of(text, NOON_US)

    assert caught.value.problem.code == "time_bad"


@pytest.mark.parametrize(
    ("text", "length_us"),
    [
        ("2026-01-31", DAY_MS * 1000),
        ("2026-01-31T12", 3_600_000_000),
        ("2026-01-31T12:00:00", 1_000_000),
        ("1769860800", 1_000_000),
        ("2026", 365 * DAY_MS * 1000),
    ],
)
def test_from_a_time_to_the_same_is_all_that_it_names(text: str, length_us: int) -> None:
    """As in the query language: a day is from its beginning to its end."""
    start, end = time_bounds(text, f" {text}", 0)

    assert (start, end) == (time_of(text, 0), time_of(text, 0) + length_us)


@pytest.mark.parametrize(
    ("start", "end"), [("1h", "1h"), ("2026-01-31", "2026-01-31T00:00:00"), ("2026-01-31", "2026-01-30"), ("1h", "2h")]
)
def test_a_range_without_a_moment_in_it_is_refused(start: str, end: str) -> None:
    """It would find nothing, whatever is stored."""
    with pytest.raises(LogweirError) as caught:
        time_bounds(start, end, NOON_US)

    assert caught.value.problem.code == "parameter_bad"


def test_a_plus_that_a_url_took_is_named() -> None:
    """A + in a URL stands for a space."""
    with pytest.raises(LogweirError, match=r"Is it 2026-11-30T05:00:00\+01:00\? In a URL, \+ is written %2B"):
        time_of("2026-11-30T05:00:00 01:00", NOON_US)


def test_time_range_loses_no_microsecond() -> None:
    """Bounds in microseconds become milliseconds that hold at least all that was asked for."""
    assert time_range("timestamp", 1_999, 2_001) == Range("timestamp", 1, 3)
    assert time_range("timestamp", 2_000, 2_000) == Range("timestamp", 2, 2)
    assert time_range("timestamp", None, None) == All()
    with pytest.raises(LogweirError):
        time_range("hostname", None, None)
