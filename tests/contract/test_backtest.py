"""A backtest finds in either store what the stream would have: the same groups, times and counts."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logweir import clock, config
from logweir.alerts import event, rule, step
from logweir.alerts.alert import ALERTS
from logweir.alerts.findings import books
from logweir.alerts.rules import EXAMPLE_TIME_US
from logweir.config import Settings
from logweir.errors import RULE_BAD, SEARCH_TOO_SLOW, LogweirError
from logweir.event import Document
from logweir.query.tree import Term
from logweir.store.port import Store
from logweir_workers.alerts import backtest as module
from logweir_workers.alerts.backfill import Backfill, Backfilled, Bounds
from logweir_workers.alerts.backtest import backtest
from logweir_workers.alerts.examples import Examples
from tests.contract.stores import STORES, empty_store
from tests.contract.streams import HOUR_US, of_stream

_IP = ["details.sourceipaddress"]


@rule(where="category:auth AND details.outcome:failure", group=_IP, at_least=4, within="10m", severity="high")
def many(found: Any) -> str:
    return f"{found.count} from {found.group} on {found.distinct('hostname')} hosts"


@rule(where="category:auth", group=_IP, distinct="hostname", at_least=3, within="10m", severity="high", quiet="20m")
def hosts(found: Any) -> str:
    return found.group


@rule(
    steps=[step("details.outcome:failure", at_least=2), "details.outcome:success"],
    in_order=True,
    within="15m",
    group=_IP,
    severity="high",
)
def steps(found: Any) -> str:
    return found.group


@rule(where=lambda seen: seen.get("hostname") == "web-1", group=["hostname"], severity="low")
def by_code(found: Any) -> str:
    return f"{found.count}"


RULES = [many, hosts, steps, by_code]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path) as store:
        yield store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return config.load(environment={}, overrides={"data_dir": tmp_path})


def login(at: float, *, ip: int = 1, host: int = 1, outcome: str = "failure") -> dict[str, Any]:
    address = f"10.0.0.{ip}"
    return event(
        category="auth", hostname=f"web-{host}", outcome=outcome, sourceipaddress=address, summary="login", at=at
    )


def stored(store: Store, settings: Settings, events: list[dict[str, Any]]) -> list[Document]:
    examples = Examples(settings)
    documents = [examples.document(one, number) for number, one in enumerate(events, start=1)]
    store.index(documents)
    return documents


def test_it_finds_what_the_stream_finds(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every kind of rule; also in slices that are cut in half, because they have too many matches."""
    rng = random.Random(11)
    events = [
        login(
            rng.uniform(0, 20_000),
            ip=rng.randrange(4),
            host=rng.randrange(4),
            outcome=rng.choice(("failure", "failure", "success")),
        )
        for _ in range(400)
    ]
    documents = stored(store, settings, events)
    shuffled = random.Random(5).sample(documents, len(documents))
    monkeypatch.setattr(module, "_SLICE_MATCHES_MAX", 30)
    for one in RULES:
        made = backtest(store, one, settings, from_us=EXAMPLE_TIME_US - HOUR_US, to_us=EXAMPLE_TIME_US + 9 * HOUR_US)
        found = sorted((tuple(row.group.values()), row.first, row.last, row.count) for row in made.alerts)

        assert (found, made.matches) == of_stream(one, shuffled)
        assert made.alerts_count == len(found) > 0
        assert (made.unevaluated, made.errors) == (0, 0)
        assert made.events >= made.matches > 0


def test_what_began_before_the_time_that_is_asked_for_is_whole(store: Store, settings: Settings) -> None:
    """Three before, one after: the alert has four. What ended before is none."""
    stored(store, settings, [*(login(at) for at in (0, 10, 20, 3590)), *(login(at) for at in (3595, 3598, 3602))])
    from_us = EXAMPLE_TIME_US + HOUR_US
    made = backtest(store, many, settings, from_us=from_us, to_us=from_us + HOUR_US)
    (one,) = made.alerts

    assert (one.count, made.matches, made.alerts_count) == (4, 1, 1)
    assert one.summary == "4 from 10.0.0.1 on 1 hosts"
    assert made.as_json()["alerts"][0]["group"] == {"details.sourceipaddress": "10.0.0.1"}


def test_a_clock_that_runs_ahead_hides_nothing(store: Store, settings: Settings) -> None:
    """Such an event counts by the time of its receipt, as in the stream."""
    documents = stored(store, settings, [login(at) for at in (0, 1, 2)])
    ahead = Examples(settings).document(login(40 * 3600), 9)
    source = {**ahead.source, "receivedtimestamp": documents[0].source["receivedtimestamp"]}
    store.index([Document(ahead.id, documents[0].day, source, ahead.provenance, ahead.summary_words, ahead.all_words)])
    made = backtest(store, many, settings, from_us=EXAMPLE_TIME_US - HOUR_US, to_us=EXAMPLE_TIME_US + HOUR_US)

    assert (made.matches, made.alerts_count + made.unevaluated) == (4, 1)


def test_a_search_that_takes_too_long_is_cut_in_half_and_then_said(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is told meanwhile, and only of what is done."""
    stored(store, settings, [login(at) for at in range(5)])
    ahead: list[int] = []
    search = store.search

    def slow(*words: Any, **named: Any) -> Any:
        if named["to_us"] - named["from_us"] > limit_us and named["to_us"] < EXAMPLE_TIME_US + 2 * HOUR_US:
            raise LogweirError(SEARCH_TOO_SLOW, timeout_s=1)
        return search(*words, **named)

    monkeypatch.setattr(store, "search", slow)
    limit_us = HOUR_US // 4
    span = {"from_us": EXAMPLE_TIME_US, "to_us": EXAMPLE_TIME_US + HOUR_US}
    made = backtest(store, many, settings, **span, progressed=lambda at_us, _: ahead.append(at_us))
    limit_us = 0
    with pytest.raises(LogweirError) as raised:
        backtest(store, many, settings, **span)

    assert made.alerts_count == 1
    assert ahead == sorted(ahead)
    assert len(ahead) >= 5
    assert raised.value.problem is SEARCH_TOO_SLOW


def test_rules_about_the_accounting_and_code_that_fails_are_said(store: Store, settings: Settings) -> None:
    @books(of="lost", severity="low")
    def about_books(found: Any) -> str:
        return "x"

    @rule(where="category:auth", severity="low")
    def failing(found: Any) -> str:
        raise ValueError("never works")

    stored(store, settings, [login(0)])
    span = {"from_us": EXAMPLE_TIME_US, "to_us": EXAMPLE_TIME_US + HOUR_US}
    made = backtest(store, failing, settings, **span)
    with pytest.raises(LogweirError) as raised:
        backtest(store, about_books, settings, **span)

    assert (made.errors, made.alerts[0].summary) == (1, "(its function fails: ValueError: never works)")
    assert raised.value.problem is RULE_BAD


def test_a_backfill_makes_what_a_backtest_finds_once(store: Store, settings: Settings) -> None:
    """The alerts are found as backfilled; the same again, and another revision of the rule, find them there."""
    stored(store, settings, [login(at, ip=ip) for at in range(0, 9000, 3000) for ip in range(3) for _ in range(4)])
    span = {"from_us": EXAMPLE_TIME_US - HOUR_US, "to_us": EXAMPLE_TIME_US + 9 * HOUR_US}
    would = backtest(store, many, settings, **span)

    def backfilled() -> Backfilled:
        bounds = Bounds(span["to_us"], span["to_us"])
        said = {"by": "anna", "is_told": False, "is_dry_run": False, "stopping": threading.Event()}
        return Backfill(store, many, settings, **span, bounds=bounds, **said, clock=clock.now_us).run(lambda *_: None)

    done = [backfilled(), backfilled()]
    many.revision = "another"
    done.append(backfilled())
    many.revision = ""
    alerts = [one.body for one in store.documents.search(ALERTS, Term("backfilled", "yes"), size=100).documents]

    assert [(one.made, one.there) for one in done] == [(9, 0), (0, 9), (0, 9)]
    assert sorted((tuple(one["group"].values()), one["first"], one["count"]) for one in alerts) == [
        (tuple(one.group.values()), one.first, one.count)
        for one in sorted(would.alerts, key=lambda one: (tuple(one.group.values()), one.first))
    ]
    assert {len(one["evidence"]) for one in alerts} == {4}
