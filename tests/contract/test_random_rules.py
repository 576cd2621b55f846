"""Random rules over random events: the stream and a backtest over either store find the same, in every case."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from logweir import config
from logweir.alerts import event, rule, step
from logweir.alerts.rules import EXAMPLE_TIME_US, Rule, WindowKind
from logweir.config import Settings
from logweir.errors import RULE_BAD, LogweirError
from logweir.event import Document
from logweir.store.port import Store
from logweir_workers.alerts.backtest import backtest
from logweir_workers.alerts.examples import Examples
from logweir_workers.alerts.sigma.linking import condition_of
from logweir_workers.alerts.sigma.parsing import parse
from tests.contract.stores import STORES, empty_store
from tests.contract.streams import HOUR_US, of_stream
from tests.proof import SEED, size

SPAN_S = 20_000
EVENTS = size(150, 1_500)
RULES = size(25, 600)

# Words, names and numbers in forms that are alike and are not the same.
VALUES: tuple[Any, ...] = (
    *("login", "Login", "LOGIN failed", "log", "login-2", "a_b", "a b", "a\\b", "a/b.exe", "C:\\x\\a.exe", "*", "a*b"),
    *("straße", "STRASSE", "é", "e\u0301", "日本語", "", " ", "-", "true", "null", "10.0.0.1", "10.0.0.12", "::1"),
    *(0, 1, 10, 100, -1, 1.5, 1e2, "1", "1.0", "10", "0x10", True, False, ["login", "10"], ["x", ""], "x" * 1_200),
)
NAMES = ("action", "outcome", "status", "path", "user.name", "sourceipaddress")
FIELDS = (*(f"details.{name}" for name in NAMES), "category", "hostname", "processname", "summary", "tags", "severity")
HOSTS = ("web-1", "WEB-2", "db", "db.example.org", "10.0.0.1")


def random_events(rng: random.Random) -> list[dict[str, Any]]:
    made = []
    for _ in range(EVENTS):
        details: dict[str, Any] = {}
        for name in NAMES:
            if rng.random() < 0.5:
                *outer, last = name.split(".")
                place = details.setdefault(outer[0], {}) if outer else details
                place[last] = rng.choice(VALUES)
        top = {
            "category": rng.choice(("auth", "Auth", "web", "c d")),
            "hostname": rng.choice(HOSTS),
            "processname": rng.choice(("sshd", "a.exe", "nginx")),
            "summary": " ".join(str(rng.choice(VALUES)) for _ in range(rng.randrange(1, 4))),
            "severity": rng.choice(("INFO", "error", "WARNING", 3)),
            "tags": rng.sample(["t1", "t2", "T3"], rng.randrange(3)),
        }
        one = event(at=rng.uniform(0, SPAN_S), **{name: value for name, value in top.items() if rng.random() < 0.8})
        made.append({**one, "details": {**one.get("details", {}), **details}})
    return made


def random_query(rng: random.Random, depth: int = 2) -> str:
    """In the search language."""
    if depth and rng.random() < 0.6:
        parts = [random_query(rng, depth - 1) for _ in range(rng.randrange(2, 4))]
        joined = f" {rng.choice(('AND', 'OR'))} ".join(parts)
        return f"{rng.choice(('', 'NOT '))}({joined})"
    field, value = rng.choice(FIELDS), rng.choice(VALUES)
    text = str(value[0] if isinstance(value, list) else value)[:40]
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    kind = rng.randrange(6)
    if kind == 0:
        return f"{field}:*"
    if kind == 1:
        return quoted if text.strip(" -*") else "login"
    if kind == 2:
        return f"{field}:{rng.choice(('log*', '*n', 'a*b', '1*', 'we?-1', '*o*'))}"
    if kind == 3:
        return f"{field}:{rng.choice(('>', '>=', '<', '<='))}{rng.choice((0, 1, 10, 99.5, -1))}"
    return f"{field}:{quoted}"


def random_window(rng: random.Random) -> dict[str, Any]:
    group = rng.sample(["details.sourceipaddress", "hostname", "details.action", "category"], rng.randrange(3))
    kind = rng.randrange(7)
    within = {"group": group, "within": rng.choice(("1m", "10m", "1h")), "quiet": rng.choice(("5m", "1h"))}
    if kind == 0:
        return {"group": group, "quiet": "5m"}
    if kind == 1:
        return {**within, "at_least": rng.randrange(2, 5)}
    if kind == 2:
        return {**within, "distinct": rng.choice(("hostname", "details.action")), "at_least": rng.randrange(2, 4)}
    if kind in (3, 4):
        return {**within, "total" if kind == 3 else "average": "details.status", "at_least": rng.choice((1, 11))}
    if kind == 5:
        return {**within, "median": "details.status", "at_most": 10, "samples": 2}
    return {**within, "steps": True, "in_order": rng.random() < 0.5}


def random_rule(rng: random.Random) -> tuple[str, Rule]:
    """And what it is, for whoever reads that it failed."""
    window = random_window(rng)
    if rng.random() < 0.25:
        condition = _random_sigma(rng)
        window.pop("steps", None), window.pop("in_order", None)
        if "at_least" not in window and "at_most" not in window:
            window.pop("within", None)
        (plan,) = parse(condition.encode())
        where: Any = condition_of(plan, ())
    else:
        condition = where = random_query(rng)
    if window.pop("steps", False):
        other = random_query(rng)
        window["steps"] = [step(where, at_least=rng.randrange(1, 3)), other]
        condition, where = f"{condition} then {other}", None
    try:
        return f"{condition} {window}", rule(where, severity="low", **window)(said)
    except LogweirError as error:
        assert error.problem is RULE_BAD
        return random_rule(rng)  # Not all that can be asked for can be asked of every field.


def said(_found: Any) -> str:
    return "x"


def _random_sigma(rng: random.Random) -> str:
    def selection() -> dict[str, Any]:
        name = rng.choice(NAMES)
        modifier = rng.choice(("", "|contains", "|startswith", "|endswith", "|cased", "|re"))
        if modifier == "|re":
            return {name + modifier: rng.choice(("^log", "1.*0", "(?i)LOGIN", "[a-c].b"))}
        texts = [text for text in VALUES if isinstance(text, str) and text.strip() and len(text) < 40]
        return {name + modifier: rng.sample(texts, rng.randrange(1, 3))}

    condition = rng.choice(("a", "a or b", "a and not b", "not a", "1 of them"))
    return json.dumps(
        {
            "title": "x",
            "logsource": {"category": "auth"},
            "detection": {"a": selection(), "b": selection(), "condition": condition},
        }
    )


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path_factory.mktemp("random")) as store:
        yield store


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return config.load(environment={}, overrides={"data_dir": tmp_path_factory.mktemp("data")})


@pytest.fixture(scope="module")
def documents(store: Store, settings: Settings) -> list[Document]:
    examples = Examples(settings)
    made = [examples.document(one, at) for at, one in enumerate(random_events(random.Random(SEED)), start=1)]
    store.index(made)
    return made


@pytest.mark.sized
@pytest.mark.timeout(size(300, 3_600))
def test_any_rule_finds_in_the_store_what_it_finds_in_the_stream(
    store: Store, settings: Settings, documents: list[Document]
) -> None:
    """In whatever order it comes; but for what may fire before a late event would have kept it from that."""
    rng = random.Random(SEED)
    shuffled = rng.sample(documents, len(documents))
    in_order = sorted(documents, key=lambda one: one.source["timestamp"])
    span = {"from_us": EXAMPLE_TIME_US - HOUR_US, "to_us": EXAMPLE_TIME_US + SPAN_S * 1_000_000 + HOUR_US}
    matched = fired = 0
    for _ in range(RULES):
        about, one = random_rule(rng)
        made = backtest(store, one, settings, **span)
        alerts = sorted((tuple(row.group.values()), row.first, row.last, row.count) for row in made.alerts)

        is_undecided = one.window.kind in (WindowKind.VALUE_AVG, WindowKind.VALUE_MEDIAN)

        assert (alerts, made.matches) == of_stream(one, in_order if is_undecided else shuffled), about
        matched, fired = matched + bool(made.matches), fired + bool(alerts)

    # Rules that are never for anything would show nothing.
    assert matched > RULES / 2 and fired > RULES / 4
