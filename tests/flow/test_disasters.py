"""What must not happen to a disk happens: files are lost, torn or older than before. The books say what is gone.

Whatever it was, no audit calls complete what is not, and what the queue still has is stored again.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proof import SEED
from tests.tools.disasters import Files, damaged, set_aside
from tests.tools.emitters import Emitter
from tests.tools.product import Embedded, environment, ids_found, logweir
from tests.tools.torture import lost_numbers

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]  # The product is started several times.

LATE_AFTER_S = 3
LOAD_S = 6.0
SETTLED_S_MAX = 90


class Struck:
    """The embedded product under load; between two times of load, everything is killed and something happens."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.rng = random.Random(SEED)
        self.files = Files(self.data, self.rng)
        self.env = environment(LOGWEIR_ACCOUNTING_LATE_AFTER_S=str(LATE_AFTER_S), LOGWEIR_DATA_DIR=str(self.data))
        self.product = Embedded(self.data, env=self.env)
        self.product.start()
        self.emitters = [self._emitter(number) for number in range(4)]

    def _emitter(self, number: int) -> Emitter:
        return Emitter([self.product.ingest_port], self.product.key, f"e{number}", is_numbered=number < 2)

    @property
    def acknowledged(self) -> set[str]:
        return {text for emitter in self.emitters for text in emitter.accepted}

    def load(self) -> None:
        end_s = time.monotonic() + LOAD_S
        while time.monotonic() < end_s:
            for emitter in self.emitters:
                emitter.send()

    def strike(self, happens: Callable[[], None]) -> None:
        self.product.process.kill_family()
        happens()
        self.product.start()

    def found(self) -> dict[str, int]:
        return dict(ids_found(logweir("search", "*", "--json", "--size", "0", env=self.env, timeout_s=120)))

    def audited(self) -> dict[str, Any]:
        """The audit, as soon as all records are read and nothing numbered is awaited any more."""
        end_s = time.monotonic() + SETTLED_S_MAX
        while True:
            if damaged(self.data):
                self.strike(lambda: set_aside(self.data, self.env))
            said = json.loads(logweir("audit", "--json", env=self.env, statuses=(0, 1, 3)))
            if (said["unread_records"] == 0 and not said["missing"]) or time.monotonic() > end_s:
                return dict(said)
            time.sleep(0.5)


@pytest.fixture
def struck(tmp_path: Path) -> Iterator[Struck]:
    struck = Struck(tmp_path)
    yield struck
    struck.product.process.kill_family()


def assert_told(struck: Struck, *, said: dict[str, Any], found: dict[str, int]) -> None:
    """Nothing is stored twice; what is gone is lost by its number, where it has one, and not called complete."""
    missing = struck.acknowledged - found.keys()
    log = f"{len(missing)} of {len(struck.acknowledged)} are gone, {said}\n{struck.product.process.text[-4000:]}"
    assert max(found.values(), default=1) == 1, log
    if missing:
        assert said["complete"] is not True, log
    if said["balanced"]:
        for emitter in struck.emitters[:2]:
            own = {text for text in missing if text.startswith(f"{emitter.name}-")}
            lost = {f"{emitter.name}-{emitter.epoch}-{number}" for number in lost_numbers(said, emitter.name)}
            assert own <= lost, log


@pytest.mark.parametrize("what", ["lose_store", "lose_ledger"])
def test_what_the_queue_still_has_is_stored_again(struck: Struck, what: str) -> None:
    """Without a ledger, everything in the queue is read once more: nothing is lost, nothing is there twice."""
    struck.load()
    struck.audited()
    struck.strike(getattr(struck.files, what))
    struck.load()
    said, found = struck.audited(), struck.found()

    assert not struck.acknowledged - found.keys()
    assert said["balanced"], said
    assert_told(struck, said=said, found=found)


@pytest.mark.parametrize("what", ["tear_queue", "tear_store"])
@pytest.mark.parametrize("turn", range(4))
def test_a_torn_file_is_told(struck: Struck, what: str, turn: int) -> None:
    """Of a write that the disk had not kept, whatever can be read again is."""
    struck.rng.seed(f"{SEED} {what} {turn}")
    struck.load()
    struck.strike(getattr(struck.files, what))
    struck.load()

    assert_told(struck, said=struck.audited(), found=struck.found())


@pytest.mark.parametrize("has_been_read", [True, False])
def test_a_queue_that_was_set_back_is_told(struck: Struck, has_been_read: bool) -> None:
    """What was stored since stays; what no worker had read is lost, and what comes then is read."""
    struck.load()
    struck.strike(struck.files.keep_queue)
    struck.load()
    if has_been_read:
        struck.audited()
    struck.strike(struck.files.set_queue_back)
    struck.load()
    said, found = struck.audited(), struck.found()

    assert_told(struck, said=said, found=found)
    if has_been_read:
        assert not struck.acknowledged - found.keys()


def test_events_that_somebody_deleted_are_told_and_a_replay_brings_them_back(struck: Struck) -> None:
    struck.load()
    struck.audited()
    struck.strike(struck.files.lose_days)
    gone = struck.audited()
    replayed = json.loads(logweir("replay", "--json", env=struck.env, timeout_s=120))
    said, found = struck.audited(), struck.found()

    assert not gone["balanced"]
    assert sum(-one["difference"] for one in gone["store_shortages"]) == len(struck.acknowledged)
    assert replayed["written"] == len(struck.acknowledged)
    assert said["balanced"] and said["complete"], said
    assert struck.acknowledged == found.keys()
