"""Numbered lines through a syslog daemon into the product, with poison among them; and what became of each."""

from __future__ import annotations

import base64
import collections
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.services.syslog import Syslog, line
from tests.tools.product import Embedded, logweir
from tests.waiting import until

POISON_EVERY = 1_000
SETTLED_S_MAX = 600.0  # Seconds, on a machine that does nothing else.
DATA = b'[origin software="app" note="say \\"hello\\" \\] there"][x@1 n="1"]'
_NUMBER = re.compile(r"line (\d+) end")


def is_poison(number: int) -> bool:
    return number % POISON_EVERY == POISON_EVERY // 2


def lines(first: int, count: int) -> Iterator[bytes]:
    """Every third with structured data; of each thousand one that no template with a bare property survives."""
    for number in range(first, first + count):
        process = b'ap"p' if is_poison(number) else b"app"
        text = b'line %d end, "quoted" and \\back' % number
        yield line(text, data=DATA if number % 3 == 0 else b"-", process=process)


def send_with_restarts(daemon: Syslog, product: Embedded, *, count: int, restarts: int = 2) -> None:
    """Send in parts, and restart the product behind each part but the last, while the daemon may still send it."""
    part = count // (restarts + 1)
    for sent in range(restarts + 1):
        first = sent * part
        daemon.send(lines(first, count - first if sent == restarts else part))
        if sent < restarts:
            until(lambda least=first + part // 4: _stored(product) > least, wait_s=SETTLED_S_MAX)  # type: ignore[misc]
            product.process.stop()
            product.start()


@dataclass
class Found:
    """How often each number is stored, or is a dead letter."""

    stored: collections.Counter[int]
    dead: collections.Counter[int]

    @property
    def numbers(self) -> set[int]:
        return set(self.stored) | set(self.dead)

    @property
    def repeated(self) -> int:
        """How many came once too often: accepted, and sent again since their answer was lost with the door."""
        return sum((self.stored + self.dead).values()) - len(self.numbers)


def found(product: Embedded) -> Found:
    events = product.search("hostname:web1", "--json", "--size", "0").splitlines()
    letters = logweir("deadletters", "list", "--json", "--size", "0", *at(product)).splitlines()
    return Found(
        collections.Counter(_numbers(json.loads(event).get("summary", "") for event in events)),
        collections.Counter(
            _numbers(base64.b64decode(json.loads(letter)["raw"]).decode(errors="replace") for letter in letters)
        ),
    )


def wait_for(product: Embedded, count: int) -> Found:
    """Until each number below ``count`` is stored or a dead letter."""
    wanted = set(range(count))
    end_s = time.monotonic() + SETTLED_S_MAX
    poison = sum(map(is_poison, wanted))
    while _stored(product) < count - poison and time.monotonic() < end_s:
        time.sleep(1)
    while not wanted <= (here := found(product)).numbers:
        missing = sorted(wanted - here.numbers)
        assert time.monotonic() < end_s, f"{len(missing)} of {count} never came, as {missing[:10]}"
        time.sleep(1)
    return here


def at(product: Embedded) -> tuple[str, str]:
    """For a command: the product that it is about."""
    return "--data-dir", str(product.data_dir)


def _stored(product: Embedded) -> int:
    return int(product.search("hostname:web1", "--count"))


def books(product: Embedded) -> dict[str, int]:
    """The audit's figures, once nothing is in flight; it must balance and be complete."""
    told = ("audit", "--json", *at(product))
    until(lambda: json.loads(logweir(*told, statuses=(0, 1, 3)))["in_flight"] == 0, wait_s=SETTLED_S_MAX)
    figures: dict[str, int] = json.loads(logweir(*told))
    return figures


def _numbers(texts: Iterator[str]) -> Iterator[int]:
    for text in texts:
        if number := _NUMBER.search(text):
            yield int(number[1])
