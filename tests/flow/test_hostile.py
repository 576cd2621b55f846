"""The door under siege: good, careless, slow, greedy and hostile clients at once."""

from __future__ import annotations

import random
from pathlib import Path

from tests.flow import hostile
from tests.flow.siege import besiege

SECONDS = 14.0


def test_whatever_is_sent_the_door_stays_what_it_is_and_keeps_its_word(tmp_path: Path) -> None:
    """No 5xx, no trace, no hang, no process lost, memory in bounds; the queue has what was accepted, and no more.

    The seed is printed: `python -m bench.hostile --seed N` sends the same again, for as long as you like.
    """
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    report = besiege(tmp_path, seed=seed, seconds=SECONDS)
    outcomes = report.outcomes()
    print(outcomes, f"{report.rss_mib:.0f} MiB, the slowest case {report.slowest_s:.1f} s")

    assert not report.faults, "\n".join(report.faults)
    # Two thousand cases on two cores that have nothing else to do; a busy machine makes fewer.
    assert report.cases.total() > 150
    assert outcomes.keys() == {kind.__name__ for kind in hostile.KINDS}
    assert report.accepted_events > 50
    assert {"202", "400", "401"} <= {outcome for _, outcome in report.cases}


def test_events_are_told_apart_without_the_doors_own_parser() -> None:
    """The siege's own reading of a body, by which the door is judged, knows the rules."""
    assert hostile.split(b' \xef\xbb\xbf{"a":1}') is None
    assert hostile.split(b'\xef\xbb\xbf{"a":1}\n {"b":[]}{}') == (b'{"a":1}', b'{"b":[]}', b"{}")
    assert hostile.split(b'[ {"a":"]"} ,{} ]\n') == (b'{"a":"]"}', b"{}")
    for refused in (b"", b"[]", b"[{},]", b"[{}]{}", b'{"a":NaN}', b"{}1", b'{"a":"\xff"}', b"[1]", b'{"a":"\n"}'):
        assert hostile.split(refused) is None
    assert hostile.split(b'{"a":' * 32 + b"0" + b"}" * 32) is not None
    assert hostile.split(b'{"a":' * 33 + b"0" + b"}" * 33) is None
