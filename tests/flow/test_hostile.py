"""The door under siege: good, careless, slow, greedy and hostile clients at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof import SEED, size
from tests.tools import hostile
from tests.tools.siege import besiege

# Some hundred take seconds on two cores that have nothing else to do.
SECONDS_MAX = size(150.0, 1200.0)
HEALTH_S_MAX = 5.0


@pytest.mark.sized
@pytest.mark.timeout(size(240, 1500))
@pytest.mark.parametrize(("interface", "cases"), [("asgi", size(240, 5000)), ("wsgi", size(240, 5000))])
def test_whatever_is_sent_the_door_stays_what_it_is_and_keeps_its_word(
    tmp_path: Path, interface: str, cases: int
) -> None:
    """No 5xx, no trace, no hang, no process lost, memory in bounds, health without delay, the books in order.

    The same cases each time; `make proof` sends others, `python -m bench.hostile` for as long as you like.
    """
    report = besiege(
        tmp_path, seed=SEED, seconds=SECONDS_MAX, cases_max=cases, interface=interface, health_s_max=HEALTH_S_MAX
    )
    outcomes = report.outcomes()
    print(outcomes, f"{report.rss_mib:.0f} MiB, the slowest {report.slowest_s:.1f} s, health {report.health_s:.2f} s")

    assert not report.faults, "\n".join(report.faults)
    assert report.cases.total() >= cases
    assert outcomes.keys() == {kind.__name__ for kind in hostile.KINDS}
    assert report.accepted_events > cases / 5
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
