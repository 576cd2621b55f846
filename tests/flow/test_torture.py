"""What a run of torture is judged by: every way in which the books can be wrong is a fault."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.tools.torture import Outcome, faults


def outcome(**audit: Any) -> Outcome:
    """A run in which all is right, but for what its audit says."""
    emitters = [{"emitter": "e0", "lost_ranges": [["run", 3, 4], ["run", 9, 9]]}]
    said = {
        "balanced": True,
        "imbalance": 0,
        "in_flight": 0,
        "missing": 0,
        "lost": 3,
        "indexed": 2000,
        "duplicate": 5,
        "emitters": emitters,
        "windows": {"balanced": 12, "closed afterwards": 3},
    }
    counted = Counter(e0=1500, e1=500)
    return Outcome(
        events=2003,
        acknowledged=2000,
        stored=counted,
        alerted=counted,
        withheld={"e0": [3, 4, 9]},
        audit={**said, **audit},
    )


def test_a_run_in_which_all_holds_has_no_fault() -> None:
    """And prints how many events were created, and what became of them."""
    shown = json.loads(str(outcome()))

    assert faults(outcome()) == []
    assert (shown["events"], shown["acknowledged"], shown["duplicate"]) == (2003, 2000, 5)
    assert (shown["withheld"], shown["reported_lost"]) == (3, 3)


@pytest.mark.parametrize(
    "audit",
    [
        {"balanced": False},
        {"imbalance": 1},
        {"in_flight": 1},
        {"missing": 1},
        {"lost": 2},
        {"indexed": 1999},
        {"emitters": [{"emitter": "e0", "lost_ranges": [["run", 3, 5]]}]},
        {"emitters": []},
        {"windows": {"balanced": 12, "open": 1}},
        {"windows": {"open: process gone": 1}},
    ],
    ids=str,
)
def test_whatever_the_audit_says_wrongly_is_one_fault(audit: dict[str, Any]) -> None:
    """Also losses that are as many as were made, and other ones."""
    assert len(faults(outcome(**audit))) == 1


@pytest.mark.parametrize(
    "found",
    [
        {"lost": ["a"]},
        {"twice": ["a"]},
        {"differences": ["w"]},
        {"acknowledged": 100},
        {"alerted": Counter(e0=1501, e1=499)},
        {"untold": ["each is told by one notice"]},
    ],
    ids=str,
)
def test_whatever_the_store_has_wrongly_is_one_fault(found: dict[str, Any]) -> None:
    """And a run without load shows nothing."""
    one = outcome()
    for name, value in found.items():
        setattr(one, name, value)

    assert len(faults(one)) == 1
