"""Emitters that never pause: numbered ones that send again until they are answered, and bare ones that never do."""

from __future__ import annotations

import collections
import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Sequence

PART_EVENTS = 500
"""So many events of an emitter, one after the other, are a part."""


class Emitter(threading.Thread):
    """One request at a time, over a kept connection, to one of the doors; another one after each failure.

    Numbered: the same numbers again until they are answered 2xx, as an emitter with a buffer does. Bare: never again.
    ``accepted``: the texts of the events in the order in which they were acknowledged. ``withheld``: the numbers that
    it created and never sent, one in about fifty when ``withholds``.
    """

    def __init__(
        self,
        ports: Sequence[int],
        key: str,
        name: str,
        *,
        is_numbered: bool,
        withholds: bool = False,
        pause_s: float = 0.004,
        category: str = "flow",
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.epoch = uuid.uuid4().hex[:12]
        self.accepted: list[str] = []
        self.withheld: list[int] = []
        self.created = 0
        self.durable: collections.Counter[str] = collections.Counter()
        self.statuses: collections.Counter[int] = collections.Counter()
        self.slowest_s = 0.0
        self._ports = list(ports)
        self._key = key
        self._is_numbered = is_numbered
        self._withholds = withholds
        self._pause_s = pause_s
        self._category = category
        self._stopping = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._rng = random.Random(name)

    def stop(self) -> None:
        """Ask it to end, and wait until what it has created is acknowledged, where it is numbered."""
        self._stopping.set()
        self.join(60)
        assert not self.is_alive(), f"{self.name} is not answered 2xx"

    def run(self) -> None:
        while not self._stopping.is_set():
            self.send()
            self._stopping.wait(self._pause_s)

    def send(self) -> None:
        """Create a few events; numbered ones are sent until they are acknowledged."""
        if self._withholds and self._rng.random() < 0.02:
            self.created += 1
            self.withheld.append(self.created)
        first, count = self.created + 1, self._rng.choice((1, 1, 2, 5))
        self.created += count
        texts = [f"{self.name}-{self.epoch}-{first + n}" for n in range(count)]
        while not self._post(texts, self._numbers(first)) and self._is_numbered:
            pass

    def _numbers(self, first: int) -> dict[str, str]:
        if not self._is_numbered:
            return {}
        return {"Log-Emitter": self.name, "Log-Epoch": self.epoch, "Log-Seq": str(first), "Log-High": str(self.created)}

    def _post(self, texts: list[str], numbers: dict[str, str]) -> bool:
        body = json.dumps([self._event(text) for text in texts])
        started_s = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._rng.choice(self._ports), timeout=10)
            self._connection.request("POST", "/events", body, {"X-Log-Key": self._key, **numbers})
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException):
            self._connection = None
            time.sleep(0.02)
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
        self.statuses[response.status] += 1
        if response.status != 202:
            time.sleep(0.1)
            return False
        self.accepted += texts
        self.durable[answer["durable"]] += len(texts)
        return True

    def _event(self, text: str) -> dict[str, object]:
        part = int(text.rpartition("-")[2]) // PART_EVENTS
        details = {"id": text, "sender": self.name, "part": str(part)}
        return {"summary": text, "category": self._category, "details": details}

    def say_goodbye(self) -> None:
        """A numbered emitter's last word: how far it came, so that nothing at its end can be missed."""
        headers = {
            "X-Log-Key": self._key,
            "Log-Emitter": self.name,
            "Log-Epoch": self.epoch,
            "Log-High": str(self.created),
            "Log-Bye": "1",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[0], timeout=10)
        connection.request("POST", "/events", b"", headers)
        assert connection.getresponse().status == 202
        connection.close()
