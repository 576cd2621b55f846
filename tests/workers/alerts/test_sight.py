"""Rules that are blind: what they need has not come for a week in which events came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from logweir import cli, clock
from logweir.alerts import event, rule, step
from logweir.alerts.rules import Rule
from logweir.config import Settings
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.examples import Examples
from logweir_workers.alerts.matching import Seen
from logweir_workers.alerts.sight import BLIND_HOURS, Sight, needs_of
from tests.logweir.silence_world import World
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_books import RULES as BOOKS_RULES
from tests.workers.alerts.test_books import alerts_of, asked
from tests.workers.alerts.test_engine import an_engine

HOUR_US = 3_600_000_000
RULES = """
from logweir.alerts import rule

@rule(where="category:web AND details.status:500", severity="low")
def web_errors_of_ours(found):
    return "x"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, RULES)


def a_rule(**arguments: Any) -> Rule:
    @rule(severity="low", **arguments)
    def some(found: Any) -> str:
        return "x"

    return some


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        ({"where": "category:Web AND details.status:500"}, {"category:web", "details.status"}),
        ({"where": "details.a:1 OR details.a:2"}, {"details.a"}),
        ({"where": "details.a:1 OR details.b:2"}, set()),
        ({"where": "NOT details.a:1"}, set()),
        ({"where": "some words", "group": ["hostname"]}, {"hostname"}),
        ({"where": "details.a:x*", "distinct": "details.b", "at_least": 2, "within": "1m"}, {"details.a", "details.b"}),
        ({"steps": [step("details.a:1"), "details.b:2"], "within": "1m"}, {"details.a", "details.b"}),
        ({"where": lambda seen: False}, set()),
    ],
)
def test_a_rule_needs_what_each_of_its_matches_must_have(arguments: dict[str, Any], needs: set[str]) -> None:
    assert needs_of(a_rule(**arguments)) == needs


def test_blind_is_after_a_week_of_hours_with_events_and_sees_again_with_the_first(settings: Settings) -> None:
    """A month without anything is no week; what was written down goes on where it was."""
    some = a_rule(where="category:web AND details.status:500")
    examples = Examples(settings)
    other = Seen(examples.document(event(category="ssh", action="login")))
    category = Seen(examples.document(event(category="Web", action="login")))
    whole = Seen(examples.document(event(category="web", status=500)))
    sight = Sight()
    sight.watch([some])
    for hour in range(1, BLIND_HOURS):
        sight.note(other, (hour if hour < 100 else hour + 720) * HOUR_US)
    not_yet = sight.missing("some")
    loaded = Sight()
    loaded.load(json.loads(json.dumps(sight.as_body())))
    loaded.watch([some])
    loaded.note(category, 2000 * HOUR_US)
    blind = loaded.missing("some")
    loaded.note(whole, 2000 * HOUR_US)

    assert not_yet == []
    assert blind == ["details.status"]
    assert loaded.missing("some") == []


def test_a_blind_rule_is_listed_named_by_doctor_and_an_alert_once(
    settings: Settings, queue: Queue, store: Store, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Quiet when what it needs comes."""
    world = World(store, group="logweir")
    world.canaries(0, 5)
    world.flush(6)
    engine = an_engine(settings, queue, store)
    other = Seen(Examples(settings).document(event(category="ssh", action="login")))
    for hour in range(BLIND_HOURS + 1):
        engine.evaluator.sight.note(other, (480_000 + hour) * HOUR_US)

    def write_down() -> None:
        engine._note_rules()
        engine.progress.sight = engine.evaluator.sight.as_body()
        engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
        books.look(BOOKS_RULES)

    books = asked(store, settings)
    write_down()
    write_down()
    capfdbinary.readouterr()
    said = []
    for words in (["rules", "list"], ["doctor"]):
        cli.main([*words, "--data-dir", str(settings.data_dir)])
        said.append(capfdbinary.readouterr().out.decode())
    (blind,) = alerts_of(store)
    engine.evaluator.sight.note(Seen(Examples(settings).document(event(category="web", status=500))), 480_169 * HOUR_US)
    write_down()
    (seeing,) = alerts_of(store)

    assert "blind, no event has brought category:web, details.status for a week" in said[0]
    assert "blind, as nothing that they need has come for a week: web_errors_of_ours" in " ".join(said[1].split())
    assert (blind["rule"], blind["severity"], blind["group"]) == ("rule_blind", "low", {"rule": "web_errors_of_ours"})
    assert "category:web, details.status" in blind["summary"]
    assert (blind["is_quiet"], seeing["is_quiet"], seeing["id"]) == (False, True, blind["id"])
