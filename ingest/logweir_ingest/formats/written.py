"""Events that a format writes itself, because its senders send something else: kept to the limits of one request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from logweir.errors import DECOMPRESSED_TOO_LARGE, EVENT_TOO_LARGE, EVENTS_TOO_MANY, LogweirError
from logweir_ingest.request.limits import Limits


class EventWriter:
    """Writes the events of one body. What is shared by all of them may make them many times as large as the body.

    Where an event came from in the body is a byte's offset, or the bytes that were sent of it: the first ones like them
    are those that are refused.
    """

    def __init__(self, body: bytes, limits: Limits) -> None:
        self._body = body
        self._limits = limits
        self._size_bytes = 0
        self.events: list[bytes] = []

    def write(self, members: Mapping[str, Any], sent: int | bytes) -> None:
        """Write an event; a ``msgspec.Raw`` in it is JSON already.

        Raises LogweirError: EVENTS_TOO_MANY, EVENT_TOO_LARGE, DECOMPRESSED_TOO_LARGE.
        """
        limits, events = self._limits, self.events
        if len(events) >= limits.events_per_request_max:
            raise LogweirError(EVENTS_TOO_MANY, events_max=limits.events_per_request_max)
        event = msgspec.json.encode(members)
        self.check_size(len(event), sent)
        self._size_bytes += len(event)
        if self._size_bytes > limits.decompressed_size_bytes_max:
            raise LogweirError(DECOMPRESSED_TOO_LARGE, size_bytes_max=limits.decompressed_size_bytes_max)
        events.append(event)

    def check_size(self, size_bytes: int, sent: int | bytes) -> None:
        """Refuse what is too large to be in the next event. Raises LogweirError(EVENT_TOO_LARGE)."""
        size_bytes_max = self._limits.event_size_bytes_max
        if size_bytes > size_bytes_max:
            index, offset = len(self.events), self.offset_of(sent)
            raise LogweirError(EVENT_TOO_LARGE, event_index=index, byte_offset=offset, size_bytes_max=size_bytes_max)

    def offset_of(self, sent: int | bytes) -> int:
        return sent if isinstance(sent, int) else max(0, self._body.find(sent))


class Members(dict[str, Any]):
    """The members of one event. No two have the same name; case counts for no name that a worker knows, nor here."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        super().__init__(members)
        self._taken = {name.lower() for name in members}

    def add(self, value: Any, *names: str) -> None:
        """Add a member with the first of the names that is not taken; or with the last one, and a number."""
        name = next((name for name in names if name.lower() not in self._taken), "")
        number = 1
        while not name or name.lower() in self._taken:
            number += 1
            name = f"{names[-1]}_{number}"
        self[name] = value
        self._taken.add(name.lower())

    def merge(self, members: Mapping[str, Any], rest: str) -> None:
        """Add all of them; those whose names are taken stay together, in an object with the name ``rest``."""
        taken = {name: value for name, value in members.items() if name.lower() in self._taken}
        for name, value in members.items():
            if name not in taken:
                self[name] = value
        self._taken.update(map(str.lower, members))
        if taken:
            self.add(taken, rest)


# Half of a surrogate pair, behind all that could be taken for one.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def without_half_pairs(text: bytes) -> bytes:
    """JSON with U+FFFD for each half of a surrogate pair, as a worker reads it: msgspec would not read it at all."""
    return _ESCAPE.sub(lambda escape: b"\\ufffd" if escape["half"] else escape[0], text)
