"""What a wire format is: where its senders send, how they say who they are, what a body holds, what they are answered.

README.md says how to add one. A format reads and writes bytes; who is let in, what is queued and when it is answered
is the same for all of them, and stands in ``app.py``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from logweir.errors import CONTENT_ENCODING_UNKNOWN, METHOD_NOT_ALLOWED, LogweirError
from logweir.http.reply import RETRY_AFTER_S
from logweir_ingest.request.compression import ENCODINGS
from logweir_ingest.request.emitter_headers import EmitterHeaders
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request


@dataclass(frozen=True, slots=True)
class Route:
    """One row of a format: a path that its senders use."""

    path: str
    """Compared as it is; a segment that is written <name> stands for any that is not empty."""
    method: str = "POST"
    """GET answers HEAD, too."""
    answer: Callable[[Request], Reply] | None = None
    """What senders ask beside sending (a version, a licence, health); None where events come in."""
    needs_key: bool = True
    """Of a route with an ``answer``, as what follows; events always need one. One that ``key_of`` finds is checked."""
    needs_door: bool = False
    """Whether it is refused while the door takes no events (NOT_READY): what asks after the door's health."""
    body_size_bytes_max: int = 0
    """How large a body may be, to be ``Request.body``; 0: its body is not read."""


class Parsed(msgspec.Struct):
    """What a body holds."""

    events: list[bytes]
    """Each the bytes of one JSON object, in order: this is what is queued, and what a worker reads.

    ``kept`` of them may be bytes of any other kind."""
    emitter: EmitterHeaders | None = None
    """What body or path say of the emitter; None: what its Log-* headers say counts."""
    about: Any = None
    """Comes back in ``Accepted``: what the answer must repeat of the body."""
    kept: int = 0
    """How many of ``events`` cannot be read, and are kept all the same: a worker makes a dead letter of each.

    They are events of the batch like all others: durable before the answer, numbered, counted, judged by the terms of
    the key, none larger than ``limits.event_size_bytes_max``."""
    names: list[str | None] | None = None
    """For each event what its sender calls it, if he does: by that it is known when it comes again, in whichever
    request, as one posted alone is by its Idempotency-Key. Does not count for events that have numbers."""
    stamp: dict[str, str] | None = None
    """What events get that do not say it themselves, as by a key's stamp, which goes before this one."""
    left_out: tuple[tuple[LogweirError, bytes], ...] = ()
    """What the answer says of as not taken, and why: not accepted, and kept for the operator as a refused body is.

    Where the events are numbered, nothing can be left out: the request is refused with the first of these."""


class Accepted(msgspec.Struct, frozen=True):
    """A batch that is durable."""

    count: int
    """All of its events, those that are ``kept`` among them."""
    durable: str
    """Where: "queue" or "spool"."""
    receipt: bytes
    about: Any = None
    """From ``Parsed``, as is ``kept``."""
    kept: int = 0
    id: bytes = b""
    """Of the batch: what the ids of its events are made of, unless they have numbers or names."""


class Format(ABC):
    """A wire format. One object serves all requests, from several threads.

    A request is taken whole or not at all. What its body came wrapped in (Content-Encoding) is off already.
    """

    name: ClassVar[str]
    """Stored with each event: never to be changed."""
    routes: ClassVar[tuple[Route, ...]]

    def key_of(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The key, where senders of this format carry it; None: where all may (ingest.key_headers, Bearer, Basic)."""
        return None

    @abstractmethod
    def split(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        """What the body holds. Keeps to ``limits``; may take seconds.

        Raises LogweirError: BODY_EMPTY when no event is in it; for any other the body is kept for the operator.
        """

    def split_fast(self, request: Request, body: bytes, limits: Limits) -> Parsed | None:
        """The same as ``split`` within milliseconds while all other requests wait; None when that is not possible."""
        return None

    def keep(self, request: Request, body: bytes, limits: Limits) -> Parsed | None:
        """What a body holds that ``split`` refused, with what cannot be read among the events, as it came.

        None when nothing may be kept: the refusal stands. Raises LogweirError as ``split``, for what is beyond a limit.
        """
        return None

    @abstractmethod
    def accepted(self, request: Request, accepted: Accepted) -> Reply:
        """The answer to a batch that is durable."""

    def hears_no_refusal(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a sender takes any whole answer for final, and sends again only what has none."""
        return False

    def refused(self, request: Request, error: LogweirError) -> Reply:
        """The answer to a request of which nothing was accepted: a problem of RFC 9457, unless senders want another."""
        return problem_reply(error)


_PROBLEM = (b"content-type", b"application/problem+json")
_RETRY_STATUSES = frozenset((429, 503))
_HEADERS_BY_STATUS: dict[int, tuple[tuple[bytes, bytes], ...]] = {401: ((b"www-authenticate", b"Bearer"),)}
_ENCODINGS = (b"accept-encoding", ", ".join(ENCODINGS).encode())


def problem_reply(error: LogweirError, status: int | None = None) -> Reply:
    """The answer to a problem, as RFC 9457 has it; with another status, for senders that take the right one amiss."""
    status = error.problem.status if status is None else status
    body = json.dumps({**error.as_dict(), "status": status}, separators=(",", ":"), ensure_ascii=False)
    return Reply(status, (_PROBLEM, *problem_headers(error)), body.encode(errors="replace"))


def problem_headers(error: LogweirError) -> tuple[tuple[bytes, bytes], ...]:
    """What a client must know beside the problem's status: when to come again, what is allowed instead."""
    headers = _HEADERS_BY_STATUS.get(error.problem.status, ())
    if error.problem is CONTENT_ENCODING_UNKNOWN:
        headers = (*headers, _ENCODINGS)
    if error.problem is METHOD_NOT_ALLOWED:
        headers = (*headers, (b"allow", str(error.numbers["allowed"]).encode()))
    if error.problem.status in _RETRY_STATUSES:
        headers = (*headers, (b"retry-after", b"%d" % error.numbers.get("retry_after_s", RETRY_AFTER_S)))
    return headers
