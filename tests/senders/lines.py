"""Numbered lines through a syslog daemon into the product, with poison among them; and what became of each."""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.services.syslog import Syslog, line
from tests.tools.product import Embedded, logweir
from tests.waiting import until

POISON_EVERY = 1_000
SETTLED_S_MAX = 600.0  # Seconds, on a machine that does nothing else.
DATA = b'[origin software="app" note="say \\"hello\\" \\] there"][x@1 n="1"]'
_NUMBER = re.compile(r"line (\d+) end")


@contextlib.contextmanager
def running(product: Embedded) -> Iterator[Embedded]:
    """The product while the block runs, which may restart it."""
    product.start()
    try:
        yield product
    finally:
        product.process.kill_family()


def is_poison(number: int) -> bool:
    return number % POISON_EVERY == POISON_EVERY // 2


def lines(host: str, numbers: Iterable[int]) -> Iterator[bytes]:
    """Every third with structured data; of each thousand one that no template with a bare property survives."""
    for number in numbers:
        process = b'ap"p' if is_poison(number) else b"app"
        text = b'line %d end, "quoted" and \\back' % number
        yield line(text, data=DATA if number % 3 == 0 else b"-", host=host.encode(), process=process)


def send_with_restarts(daemon: Syslog, product: Embedded, host: str, *, count: int, restarts: int) -> None:
    """Send in parts, and restart the product behind each part but the last, while the daemon may still send it."""
    part = count // (restarts + 1)
    for sent in range(restarts + 1):
        first = sent * part
        daemon.send(lines(host, range(first, count if sent == restarts else first + part)))
        if sent < restarts:
            until(lambda least=first + part // 4: _stored(product, host) > least, wait_s=SETTLED_S_MAX)  # type: ignore[misc]
            product.process.stop()
            product.start()


@dataclass
class Found:
    """How often each number of a host is stored, or is a dead letter."""

    stored: collections.Counter[int]
    dead: collections.Counter[int]

    @property
    def numbers(self) -> set[int]:
        return set(self.stored) | set(self.dead)

    @property
    def repeated(self) -> int:
        """How many came once too often: accepted, and sent again since their answer was lost with the door."""
        return sum((self.stored + self.dead).values()) - len(self.numbers)


def wait_for(product: Embedded, host: str, count: int) -> Found:
    """Until each number below ``count`` is stored or a dead letter."""
    wanted = set(range(count))
    end_s = time.monotonic() + SETTLED_S_MAX
    poison = sum(map(is_poison, wanted))
    while _stored(product, host) < count - poison and time.monotonic() < end_s:
        time.sleep(0.5)
    while not wanted <= (here := _found(product, host)).numbers:
        missing = sorted(wanted - here.numbers)
        assert time.monotonic() < end_s, f"{len(missing)} of {count} never came, as {missing[:10]}"
        time.sleep(2)
    return here


def events(product: Embedded, query: str) -> list[dict[str, object]]:
    listed = logweir("search", query, "--json", "--size", "0", *at(product), timeout_s=SETTLED_S_MAX)
    return [json.loads(row) for row in listed.splitlines()]


def books(product: Embedded) -> dict[str, int]:
    """The audit's figures, once nothing is in flight; it must balance and be complete."""
    told = ("audit", "--json", *at(product))
    until(lambda: json.loads(logweir(*told, statuses=(0, 1, 3)))["in_flight"] == 0, wait_s=SETTLED_S_MAX)
    figures: dict[str, int] = json.loads(logweir(*told))
    return figures


def at(product: Embedded) -> tuple[str, str]:
    """For a command: the product that it is about."""
    return "--data-dir", str(product.data_dir)


def _found(product: Embedded, host: str) -> Found:
    listed = logweir("deadletters", "list", "--json", "--size", "0", *at(product), timeout_s=SETTLED_S_MAX).splitlines()
    letters = [base64.b64decode(json.loads(letter)["raw"]).decode(errors="replace") for letter in listed]
    return Found(
        collections.Counter(_numbers(str(event.get("summary")) for event in events(product, f"hostname:{host}"))),
        collections.Counter(_numbers(letter for letter in letters if f'"hostname":"{host}"' in letter)),
    )


def _stored(product: Embedded, host: str) -> int:
    # Asked often: a command each time would cost more than all else.
    query = urllib.parse.urlencode({"q": f"hostname:{host}", "size": 0})
    with urllib.request.urlopen(f"http://127.0.0.1:{product.console_port}/api/search?{query}", timeout=60) as answer:
        return int(json.load(answer)["total"])


def _numbers(texts: Iterable[str]) -> Iterator[int]:
    for text in texts:
        if number := _NUMBER.search(text):
            yield int(number[1])
