"""Besiege the door, for as long as told, with good, careless, slow, greedy and hostile requests that hypothesis makes.

    python -m bench.hostile --minutes 10
    python -m bench.hostile --seed 7 --interface wsgi

The cases and what must hold are in tests/tools/hostile.py and tests/tools/siege.py. One JSON line a minute: the seed,
what the door answered to each kind of case, its peak memory, how long its health took to be told, and what was wrong.
Each minute is a door of its own, with the next seed. Exit status 1 when anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.tools.siege import besiege

_ROUND_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--seed", type=int, default=None, help="begin with this one; by default a random one")
    parser.add_argument("--interface", choices=("asgi", "wsgi"), default="asgi", help="as of `logweir ingest` (asgi)")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    end_s = time.monotonic() + arguments.minutes * 60
    faults = 0
    while (left_s := end_s - time.monotonic()) > 0:
        with tempfile.TemporaryDirectory(prefix="logweir-hostile-") as folder:
            report = besiege(Path(folder), seed=seed, seconds=min(left_s, _ROUND_S), interface=arguments.interface)
        print(
            json.dumps(
                {
                    "figure": "hostile",
                    "interface": arguments.interface,
                    "seed": seed,
                    "cases": report.cases.total(),
                    "outcomes": report.outcomes(),
                    "accepted_events": report.accepted_events,
                    "rss_peak_mib": round(report.rss_mib, 1),
                    "slowest_s": round(report.slowest_s, 2),
                    "health_s": round(report.health_s, 3),
                    "faults": report.faults,
                }
            ),
            flush=True,
        )
        faults += len(report.faults)
        seed += 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
