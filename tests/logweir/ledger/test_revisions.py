"""What became of events that were counted already: each change counts once, however often it is made, and by whom."""

from __future__ import annotations

import threading

import pytest

from logweir.errors import STORE_DOWN, LogweirError
from logweir.ledger.documents import WindowId
from logweir.ledger.intervals import Intervals
from logweir.ledger.revisions import BLOCK, Change, read_corrections, read_present, revise
from logweir.ledger.window import Counts, Window
from logweir.outcomes import Outcome
from logweir.store.port import Store

PLACE = WindowId("topic", 0, "07" * 16, 29_000_000)
SENDER = ("app", None)


def change(number: int, outcome: Outcome, counted: Outcome = Outcome.INDEXED, reason: str | None = None) -> Change:
    return Change(number, SENDER, counted, outcome, reason)


def written(store: Store, *changes: Change, cause: str = "replay") -> int:
    return revise(store, "logweir", PLACE, changes, cause=cause, at_us=1, owner="test")


def lines(store: Store) -> list[tuple[str, str, int, str]]:
    found = read_corrections(store, "logweir")
    return sorted((one.from_outcome.value, one.to_outcome.value, one.count, one.cause) for one in found)


def window(**fields: object) -> Window:
    return Window(PLACE, numbers=Intervals([(1, 30_000)]), **fields)  # type: ignore[arg-type]


def test_a_change_made_again_counts_once(store: Store) -> None:
    """What a replay that was killed does over writes the same line; what is as it was counted writes none."""
    some = [change(number, Outcome.FILTERED, reason="noise") for number in (1, 2, 5)]

    assert [written(store, *some), written(store, *some), written(store, change(7, Outcome.INDEXED))] == [3, 0, 0]
    assert lines(store) == [("indexed", "filtered", 3, "replay")]


def test_an_event_goes_from_what_it_was_last_to_what_it_is_now(store: Store) -> None:
    """A retry, a replay and a retry again of one event are three lines, each from the outcome before."""
    dead = Outcome.DEAD_LETTERED
    for outcome, cause in ((Outcome.INDEXED, "retry"), (dead, "replay"), (Outcome.FILTERED, "retry")):
        assert written(store, change(1, outcome, counted=dead), cause=cause) == 1

    assert lines(store) == [
        ("dead_lettered", "filtered", 1, "retry"),
        ("dead_lettered", "indexed", 1, "retry"),
        ("indexed", "dead_lettered", 1, "replay"),
    ]


def test_many_at_once_lose_no_change(store: Store) -> None:
    """Runs that revise the same numbers and others at the same moment: each number counts once, in one line."""
    turns = [range(start, start + 40) for start in (1, 21, 41, 61)]
    threads = [
        threading.Thread(target=lambda one=turn: [written(store, change(at, Outcome.FILTERED)) for at in one])
        for turn in turns
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert lines(store) == [("indexed", "filtered", 100, "replay")]


def test_present_outcomes_are_those_counted_with_those_revised(store: Store) -> None:
    """Over several documents, with the reason; of numbers that no worker counted nothing is said."""
    known = window()
    known.deviations.add(3, [Outcome.DEAD_LETTERED], {0: "event_unfit"}, place=0, key="app", ranges_max=9)
    written(store, change(3, Outcome.INDEXED, counted=Outcome.DEAD_LETTERED))
    written(store, *(change(number, Outcome.FILTERED, reason="noise") for number in (BLOCK - 1, BLOCK, BLOCK + 1)))
    present = read_present(store, "logweir", known, 1, 40_000)

    assert present.counted(2, 4) == {
        2: (Outcome.INDEXED, None),
        3: (Outcome.DEAD_LETTERED, "event_unfit"),
        4: (Outcome.INDEXED, None),
    }
    assert present.counted(30_001, 30_009) == {}
    assert present.revised(1, 40_000) == {
        3: (Outcome.INDEXED, None),
        **dict.fromkeys((BLOCK - 1, BLOCK, BLOCK + 1), (Outcome.FILTERED, "noise")),
    }


def test_of_outcomes_that_were_not_kept_it_is_known_which_are_possible(store: Store) -> None:
    """Beyond accounting.exceptions_max the window still says how many there were of each outcome."""
    known = window(outcomes={SENDER: Counts(indexed=95, filtered=5)})
    for number in (10, 20, 30, 40, 50):
        known.deviations.add(number, [Outcome.FILTERED], {0: "noise"}, place=0, key="app", ranges_max=2)
    present = read_present(store, "logweir", known, 1, 60)
    known.outcomes[SENDER].dead_lettered += 1
    unsure = read_present(store, "logweir", known, 1, 60)

    counted = present.counted(1, 60)
    assert [counted[number] for number in (10, 29, 30, 35, 51)] == [
        (Outcome.FILTERED, "noise"),
        (Outcome.INDEXED, None),
        None,
        (Outcome.INDEXED, None),
        (Outcome.INDEXED, None),
    ]
    assert present.outcomes_unkept == [Outcome.FILTERED]
    assert unsure.outcomes_unkept == [Outcome.FILTERED, Outcome.DEAD_LETTERED]


def test_what_an_event_was_counted_as_is_kept_without_a_line(store: Store) -> None:
    """Where the window had no room for it; a change that comes after is a line from there."""
    known = window(outcomes={SENDER: Counts(indexed=95, filtered=5)})
    noted = written(store, Change(7, SENDER, Outcome.FILTERED, Outcome.FILTERED, "noise"))
    present = read_present(store, "logweir", known, 1, 60).revised(1, 60)
    changed = written(store, Change(7, SENDER, Outcome.INDEXED, Outcome.DEAD_LETTERED, "event_unfit"))

    assert (noted, present) == (0, {7: (Outcome.FILTERED, "noise")})
    assert changed == 1
    assert lines(store) == [("filtered", "dead_lettered", 1, "replay")]


def test_a_claim_that_was_never_written_is_no_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed between claiming and writing leaves a document that says nothing."""

    def die(documents: object) -> None:
        raise LogweirError(STORE_DOWN, url="here", reason="killed")

    with monkeypatch.context() as patched, pytest.raises(LogweirError):
        patched.setattr(store.ledger, "write", die)
        written(store, change(1, Outcome.FILTERED))

    assert lines(store) == []
    assert written(store, change(1, Outcome.FILTERED)) == 1
