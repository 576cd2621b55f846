"""MozDef's query classes: the same events as MozDef found, over both stores."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from logweir import config
from logweir.alerts.schedules import Slot
from logweir.query.tree import All
from logweir.store.port import Store
from logweir_workers.alerts.mozdef.queries import (
    BooleanMatch,
    ExistsMatch,
    LessThanMatch,
    MissingMatch,
    PhraseMatch,
    Query,
    RangeMatch,
    SubnetMatch,
    TermMatch,
    TermsMatch,
    WildcardMatch,
)
from logweir_workers.alerts.mozdef.query_strings import QueryStringMatch
from logweir_workers.alerts.mozdef.texts import tokens_of
from logweir_workers.alerts.scheduled.alerted import Alerted
from logweir_workers.alerts.scheduled.runs import events_for, found_in
from tests.contract.stores import NOON_US, STORES, empty_store
from tests.workers.alerts.mozdef.worlds import ALERTS, Posted, rules_of

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVENTS: dict[str, dict[str, Any]] = {
    "login": {
        "summary": "Failed login of Admin from 10.0.0.7, on web1.example.com",
        "category": "authentication",
        "hostname": "web1.example.com",
        "processname": "sshd",
        "severity": "INFO",
        "source": "/var/log/auth.log",
        "tags": ["ssh", "prod-eu"],
        "details": {"src_ip": "10.0.0.7", "port": 22, "success": False, "user": "admin", "outcome": "Failed"},
    },
    "upload": {
        "summary": "it's uploaded: report-2026.pdf",
        "category": "Web",
        "hostname": "web2",
        "timestamp": "2026-01-31T11:00:00Z",
        "source": "/var/log/syslog",
        "details": {"size": 1.5, "user_agent": "curl/8.1", "path": {"full": "/tmp/a b.pdf"}, "success": True},
    },
    "zeek": {
        "summary": "écrit en été",
        "category": "zeek",
        "type": "conn",
        "eventsource": "nsm",
        "details": {"srcaddr": "2001:DB8:0:0::7", "port": "2222", "peer": "10.1.2.3", "notes": ["Scan::Port", "x y"]},
    },
    "empty": {"summary": "nothing", "details": {"none": None, "deep": {}, "blank": ""}},
}
CASES: list[tuple[Query, set[str]]] = [
    # A word of a text, whatever its case; of the summary, any of several.
    (TermMatch("summary", "failed"), {"login"}),
    (TermMatch("summary", "ADMIN"), {"login"}),
    (TermMatch("summary", "nothing uploaded"), {"upload", "empty"}),
    (TermMatch("summary", "web1.example.com"), {"login"}),
    (TermMatch("summary", "example"), set()),
    (TermMatch("summary", "10.0.0.7"), {"login"}),
    (TermMatch("summary", "it's"), {"upload"}),
    (TermMatch("summary", "été"), {"zeek"}),
    (TermMatch("summary", "report"), {"upload"}),
    (TermMatch("category", "Authentication"), {"login"}),
    (TermMatch("category", "auth"), set()),
    (TermMatch("hostname", "web1.example.com"), {"login"}),
    (TermMatch("hostname", "web1"), {"login"}),
    (TermMatch("source", "/var/log/auth.log"), {"login"}),
    (TermMatch("tags", "ssh"), {"login"}),
    (TermMatch("tags", "prod-eu"), {"login"}),
    (TermMatch("_type", "conn"), {"zeek"}),
    (TermMatch("_type", "event"), {"login", "upload", "empty"}),
    (TermMatch("eventsource", "nsm"), {"zeek"}),
    (TermMatch("process", "sshd"), {"login"}),
    # Details, by the names that senders give them, and by their values.
    (TermMatch("details.src_ip", "10.0.0.7"), {"login"}),
    (TermMatch("details.sourceipaddress", "10.0.0.7"), {"login"}),
    (TermMatch("details.sourceipaddress.raw", "10.0.0.7"), {"login"}),
    (TermMatch("details.srcaddr", "2001:db8::7"), {"zeek"}),
    (TermMatch("details.source_ip", "2001:DB8:0:0::7"), {"zeek"}),
    (TermMatch("details.port", 22), {"login"}),
    (TermMatch("details.port", "2222"), {"zeek"}),
    (TermMatch("details.size", 1.50), {"upload"}),
    (TermMatch("details.size", "1.5"), {"upload"}),
    (TermMatch("details.success", True), {"upload"}),
    (TermMatch("details.success", "false"), {"login"}),
    (TermMatch("details.outcome", "failed"), {"login"}),
    (TermMatch("details.user", "Admin"), {"login"}),
    (TermMatch("details.path.full", "/tmp/a b.pdf"), {"upload"}),
    (TermMatch("details.notes", "Scan::Port"), {"zeek"}),
    (TermMatch("details.notes", "Port"), {"zeek"}),
    (TermMatch("details.nothing", "x"), set()),
    (TermMatch("utctimestamp", "2026-01-31T11:00:00.000000+00:00"), {"upload"}),
    # Phrases.
    (PhraseMatch("summary", "failed LOGIN"), {"login"}),
    (PhraseMatch("summary", "login failed"), set()),
    (PhraseMatch("summary", "admin from 10.0.0.7 on"), {"login"}),
    (PhraseMatch("summary", "report-2026"), {"upload"}),
    (PhraseMatch("details.path.full", "a b.pdf"), {"upload"}),
    (PhraseMatch("details.notes", "x y"), {"zeek"}),
    (PhraseMatch("details.notes", "port x"), set()),
    (TermsMatch("category", ["zeek", "web"]), {"upload", "zeek"}),
    (TermsMatch("details.port", [22, 23]), {"login"}),
    (TermsMatch("category", []), set()),
    # Wildcards: the whole text, or a word.
    (WildcardMatch("summary", "upload*"), {"upload"}),
    (WildcardMatch("summary", "*EXAMPLE*"), {"login"}),
    (WildcardMatch("summary", "fail?d"), {"login"}),
    (WildcardMatch("hostname", "web?"), {"login", "upload"}),
    (WildcardMatch("source", "/var/log/*"), {"login", "upload"}),
    (WildcardMatch("details.user_agent", "curl*"), {"upload"}),
    (WildcardMatch("category", "a?"), set()),
    # What is there.
    (ExistsMatch("details.src_ip"), {"login", "zeek"}),
    (ExistsMatch("details.path"), {"upload"}),
    (ExistsMatch("details.none"), set()),
    (ExistsMatch("details.deep"), set()),
    (ExistsMatch("processname"), {"login"}),
    (ExistsMatch("eventsource"), {"zeek"}),
    (MissingMatch("processname"), {"upload", "zeek", "empty"}),
    # Ranges.
    (RangeMatch("details.port", 22, 2222), {"login", "zeek"}),
    (RangeMatch("details.port", 23, None), {"zeek"}),
    (RangeMatch("utctimestamp", "2026-01-31T10:00:00+00:00", "2026-01-31T11:00:00+00:00"), {"upload"}),
    (RangeMatch("utctimestamp", NOON.replace(hour=11, minute=30), NOON), {"login", "zeek", "empty"}),
    (LessThanMatch("details.port", 2222), {"login"}),
    (LessThanMatch("timestamp", "2026-01-31T11:00:01Z"), {"upload"}),
    # Networks.
    (SubnetMatch("details.sourceipaddress", "10.0.0.0/24"), {"login"}),
    (SubnetMatch("details.src_ip", "2001:db8::/32"), {"zeek"}),
    (SubnetMatch("details.peer", "10.1.2.3"), {"zeek"}),
    (SubnetMatch("details.user", "10.0.0.0/8"), set()),
    # Together.
    (BooleanMatch(must=[ExistsMatch("details.src_ip")], must_not=[TermMatch("category", "zeek")]), {"login"}),
    (BooleanMatch(should=[TermMatch("category", "zeek"), TermMatch("category", "web")]), {"upload", "zeek"}),
    (BooleanMatch(must=TermMatch("category", "web"), should=[TermMatch("category", "zeek")]), {"upload"}),
    (TermMatch("category", "zeek") | TermMatch("category", "web"), {"upload", "zeek"}),
    (ExistsMatch("details.src_ip") & ~TermMatch("category", "zeek"), {"login"}),
    (BooleanMatch(), {"login", "upload", "zeek", "empty"}),
    # Lucene.
    (QueryStringMatch("summary: failed"), {"login"}),
    (QueryStringMatch("failed"), {"login"}),
    (QueryStringMatch('"web1.example.com"'), {"login"}),
    (QueryStringMatch("category:zeek category:web"), {"upload", "zeek"}),
    (QueryStringMatch("category:(zeek OR web) AND NOT hostname:web2"), {"zeek"}),
    (QueryStringMatch("category:zeek && !type:conn"), set()),
    (QueryStringMatch("+category:zeek summary:none"), {"zeek"}),
    (QueryStringMatch("_exists_:details.src_ip -category:zeek"), {"login"}),
    (QueryStringMatch("_missing_:details.port AND details.size:*"), {"upload"}),
    (QueryStringMatch("details.port:[22 TO 100]"), {"login"}),
    (QueryStringMatch("details.port:{22 TO 2222]"), {"zeek"}),
    (QueryStringMatch("details.port:>22"), {"zeek"}),
    (QueryStringMatch("summary:/up.*d/"), {"upload"}),
    (QueryStringMatch("hostname:/(web1|db1)\\.example\\.com/"), {"login"}),
    (QueryStringMatch("source:\\/var\\/log\\/auth.log"), {"login"}),
    (QueryStringMatch("details.user_agent:curl* OR tags:prod*"), {"login", "upload"}),
    (QueryStringMatch("*"), {"login", "upload", "zeek", "empty"}),
    (QueryStringMatch("upl*"), {"upload"}),
]


@pytest.fixture(params=STORES)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path) as opened:
        yield opened


def test_each_query_class_finds_the_same_over_every_store(any_store: Store, tmp_path: Path) -> None:
    """What the store is asked for leaves none out, and the query has the last word."""
    posted = Posted(any_store, config.load(environment={}, overrides={"data_dir": tmp_path}))
    names = {posted(event)[0].id: name for name, event in EVENTS.items()}
    wrong = []
    for query, expected in CASES:
        page = any_store.search(query.superset() or All(), size=100)
        found = {names[one["_id"]] for one in page.events if query.matches(one)}
        if found != expected:
            wrong.append((type(query).__name__, vars(query), found, expected))

    assert wrong == []


def test_a_run_finds_the_same_over_every_store(any_store: Store, tmp_path: Path) -> None:
    """By receipt and by their own time, with an aggregation; what has an alert already is left out."""
    posted = Posted(any_store, config.load(environment={}, overrides={"data_dir": tmp_path}))
    event = {"category": "helloworld", "details": {"sourceipaddress": "192.0.2.7"}}
    posted(event, {**event, "timestamp": "2026-01-01T00:00:00Z"}, {"category": "helloworld"})
    posted({**event, "timestamp": "2026-01-31T11:59:00Z"}, at=60)
    (first,) = posted({**event, "timestamp": "2026-01-31T11:59:00Z"}, at=-3600)
    rule = rules_of(ALERTS)["alert_foo"]
    slot = Slot(NOON_US - 60_000_000, NOON_US)
    (found,) = found_in(rule, events_for(any_store, rule, slot))
    (rest,) = found_in(rule, events_for(any_store, rule, slot, alerted=lambda: {first.id}))
    Alerted(any_store.documents).note(rule, slot, found.marks, looked_back_us=0)
    later = Slot(slot.end_us, slot.end_us + 1_000_000)
    none = found_in(
        rule, events_for(any_store, rule, later, alerted=lambda: Alerted(any_store.documents).before(rule, later))
    )

    assert (found.count, rest.count, none) == (3, 2, [])
    assert found.more["mozdef"]["events"][0]["documentsource"]["category"] == "helloworld"


def test_the_store_is_asked_for_less_than_everything() -> None:
    """Where the query has a word, a field or a time that must be there."""
    asked = {
        type(query).__name__: query.superset() is not None
        for query in (
            TermMatch("category", "zeek"),
            PhraseMatch("summary", "a b"),
            TermsMatch("category", ["zeek"]),
            WildcardMatch("summary", "up*"),
            ExistsMatch("details.a"),
            RangeMatch("utctimestamp", NOON, None),
            SubnetMatch("details.a", "10.0.0.0/8"),
            QueryStringMatch("a:b AND c:/d/"),
            BooleanMatch(must=[MissingMatch("a"), TermMatch("category", "zeek")]),
        )
    }

    assert all(asked.values()), asked


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The 2 QUICK Brown-Foxes", ("the", "2", "quick", "brown", "foxes")),
        (
            "10.0.0.1:22 root@www.example.com web1.example.com",
            ("10.0.0.1", "22", "root", "www.example.com", "web1", "example.com"),
        ),
        ("it's a_b c.", ("it's", "a_b", "c")),
        ("日本 été", ("日", "本", "été")),
        ("--", ()),
    ],
)
def test_words_are_cut_as_the_standard_analyser_cuts_them(text: str, tokens: tuple[str, ...]) -> None:
    assert tokens_of(text) == tokens


@pytest.mark.parametrize(
    ("query", "reason"),
    [("a:b~2", "fuzzy"), ('a:"b c"~2', "near each other"), ("[1 TO 2]", "needs a field"), ("a:(", "cannot be read")],
)
def test_lucene_that_is_not_understood_is_said(query: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        QueryStringMatch(query)
