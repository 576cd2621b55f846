"""Certificates: of how many accepted events a rule has looked at how many, what it found, and that we said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import cli, clock
from logweir.alerts.catalogue import note_backfill
from logweir.config import Settings
from logweir.errors import LogweirError
from logweir.queue.port import Queue
from logweir.record import Accepted, Kind, Marker
from logweir.store.port import Store
from logweir_workers.alerts.certificate import certify, require_genuine
from logweir_workers.alerts.loading import RuleFiles
from tests.waiting import until
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_engine import RULES, an_engine, batch, login
from tests.workers.helpers import Door, running_worker

SECRET = b"s" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, RULES, **{"alerts.lateness_s": 2 * 3600})


@pytest.fixture
def certified(settings: Settings, queue: Queue, store: Store, door: Door) -> Any:
    """Makes a certificate of the last hour, once so many events are stored."""

    def call(events: int, **numbered: Any) -> dict[str, Any]:
        made = [login("failure", at=at * 0.1) for at in range(events)]
        door.write(batch(*made, received_us=clock.now_us(), **numbered))
        door.write_as(
            Kind.MARKER, Marker([Accepted("app", numbered.get("emitter"), events, 0)], []), first=1, count=events
        )
        an_engine(settings, queue, store)  # From now on, and for what came in the two hours before.
        rule = RuleFiles(settings.alerts, settings.rules_path).rules["failures"]
        with running_worker(settings, queue, store):

            def of_the_hour() -> dict[str, Any]:
                now_us = clock.now_us()
                times = {"from_us": now_us - 3_600_000_000, "to_us": now_us + 1, "now_us": now_us}
                return certify(store, rule, settings, secret=SECRET, **times)

            until(lambda: of_the_hour()["looked_at"] == events)
            until(lambda: (of_the_hour()["accepted"], of_the_hour()["in_flight"]) == (events, 0))
            return of_the_hour()

    return call


def test_a_rule_that_has_looked_at_everything_is_certified(certified: Any) -> None:
    """Accepted, indexed, looked at: the same number; what it found is named."""
    made = certified(7)

    assert (made["accepted"], made["indexed"], made["looked_at"]) == (7, 7, 7)
    assert (made["whole"], made["balanced"], made["complete"]) == (True, True, True)
    assert (made["matches"], made["would_be_alerts"]) == (7, 1)
    require_genuine(made, SECRET)


def test_what_was_lost_before_it_came_was_not_looked_at(certified: Any) -> None:
    """Numbers that are missing make a certificate that says that it is not whole."""
    made = certified(5, emitter="web", epoch="e1", sequence_first=1, high=9)

    assert (made["accepted"], made["looked_at"], made["missing"], made["whole"]) == (5, 5, 4, False)


def test_no_revision_is_certified_for_what_another_one_was_asked_of(
    certified: Any, settings: Settings, queue: Queue, store: Store
) -> None:
    """It says of which time, and that is mended by a backfill with the revision of now."""
    certified(7)
    (settings.rules_path / "own.py").write_text(RULES.replace('within="2m"', 'within="3m"'))
    rule = RuleFiles(settings.alerts, settings.rules_path).rules["failures"]
    now_us = clock.now_us()
    from_us, to_us = now_us - 3_600_000_000, now_us + 1

    def made() -> dict[str, Any]:
        times = {"from_us": from_us, "to_us": to_us, "now_us": now_us}
        return certify(store, rule, settings, secret=SECRET, **times)

    not_in_force = made()
    engine = an_engine(settings, queue, store)
    engine.progress.times = {0: now_us - 60_000_000}
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    (settings.rules_path / "own.py").write_text(RULES.replace('within="2m"', 'within="4m"'))
    engine = an_engine(settings, queue, store)
    rule = RuleFiles(settings.alerts, settings.rules_path).rules["failures"]
    partly = made()
    said = {"by": "anna", "revision": rule.revision, "stopped": False, "made": 1}
    span = {"from": clock.iso_seconds(from_us - 60_000_000), "to": clock.iso_seconds(now_us)}
    note_backfill(store.documents, "failures", {**said, **span}, now_us=now_us)
    backfilled = made()

    assert (not_in_force["whole"], not_in_force["revision_since"]) == (False, None)
    assert not_in_force["other_revision"] == [(not_in_force["from"], not_in_force["to"])]
    assert (partly["whole"], partly["revision_since"]) == (False, clock.iso_seconds(now_us - 60_000_000))
    assert partly["other_revision"] == [(partly["from"], partly["revision_since"])]
    assert (backfilled["whole"], backfilled["other_revision"]) == (True, [])


@pytest.mark.parametrize("change", [{"looked_at": 8}, {"whole": True, "lost": 0, "rule": "x"}, {"signature": "0" * 32}])
def test_one_that_was_changed_is_none(certified: Any, change: dict[str, Any]) -> None:
    made = certified(5)
    require_genuine(json.loads(json.dumps(made)), SECRET)
    with pytest.raises(LogweirError, match="no certificate"):
        require_genuine({**made, **change}, SECRET)
    with pytest.raises(LogweirError, match="no certificate"):
        require_genuine(made, b"t" * 32)


def test_one_is_made_and_verified_by_command(
    certified: Any, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certified(5)

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(["rules", "certify", *words, "--data-dir", str(tmp_path)])
        said = capsys.readouterr()
        return status, said.out, said.err

    status, out, _ = run("failures", "--from", "1h", "--json")
    path = tmp_path / "certificate.json"
    path.write_text(out)
    verified = run(str(path))
    path.write_bytes(orjson.dumps({**orjson.loads(out), "matches": 0}))
    changed = run(str(path))

    assert (status, orjson.loads(out)["rule"]) == (0, "failures")
    assert verified[0] == 0 and "all was looked at" in verified[1]
    assert changed[0] != 0 and "no certificate" in changed[2]
