"""The endpoints as a table, and what each answers: the one place that decides an answer.

Two faces serve it: ``asgi.py`` (ASGI, the hot endpoints) and ``wsgi.py`` (Flask, all of them). Both make a Request,
call the same functions, and write the Reply out.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from logweir import event, receipt
from logweir.clock import Clock
from logweir.config import Settings
from logweir.errors import (
    BODY_EMPTY,
    DECOMPRESSED_TOO_LARGE,
    DEPTH_EXCEEDED,
    ENCODING_BAD,
    EVENT_NOT_OBJECT,
    EVENT_TOO_LARGE,
    EVENTS_TOO_MANY,
    INTERNAL,
    JSON_BAD,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    UTF8_BAD,
    LogweirError,
)
from logweir.metrics import registry
from logweir.record import Batch, Refused
from logweir_ingest.access.auth import Guard, KeyReader
from logweir_ingest.access.proxies import SourceAddress
from logweir_ingest.access.quota import Charge
from logweir_ingest.formats import json as json_format
from logweir_ingest.receipts import Receipts
from logweir_ingest.records.merge import Enqueued, Future, Merger, Result
from logweir_ingest.request import emitter_headers as emitter
from logweir_ingest.request.compression import ENCODINGS, encoding_of, plain
from logweir_ingest.request.emitter_headers import EmitterHeaders
from logweir_ingest.request.limits import SMALL_SIZE_BYTES_MAX, Bodies, Limits
from logweir_ingest.tally import Tally

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2
IDEMPOTENCY_KEY_SIZE_BYTES_MAX = 256

# A body with one of these is kept for the operator, who can then see what the emitter believes it sent.
_UNREADABLE = frozenset(
    problem.code
    for problem in (
        JSON_BAD,
        UTF8_BAD,
        ENCODING_BAD,
        EVENT_NOT_OBJECT,
        DEPTH_EXCEEDED,
        EVENT_TOO_LARGE,
        EVENTS_TOO_MANY,
        DECOMPRESSED_TOO_LARGE,
    )
)


class Request(msgspec.Struct):
    """A request without its body. Header names are in lower case; a header sent twice has both values, with a comma.

    ``peer`` is the address at the other end of the connection.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    peer: str


class Reply(msgspec.Struct, frozen=True):
    """An answer, ready to be written. ``headers`` are all of them but Content-Length."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Intake(msgspec.Struct):
    """A request for events that may send its body: let in, and within the limits as far as its headers say.

    ``started_s``: when the body was there as a whole; 0 before.
    """

    key: str
    encoding: str
    announced_bytes: int
    emitter: EmitterHeaders
    idempotency_key: str | None
    source_address: str
    guard: Guard | None
    charge: Charge | None = None
    started_s: float = 0.0


class Door:
    """Everything that answers need. One a process; safe to use from several threads.

    The way of events: ``let_in`` (headers) -> ``brief_batch_of`` (body; where that gives none, ``batch_of``) ->
    ``enqueue`` -> ``accepted`` with the result. Each step raises the LogweirError to answer with; ``refused`` makes the
    answer of it.
    """

    def __init__(
        self, settings: Settings, *, keys: KeyReader, merger: Merger, clock: Clock, receipt_secret: bytes, tally: Tally
    ) -> None:
        self._limits = Limits.of(settings)
        self._brief = self._limits.brief()
        self.bodies = Bodies(settings.ingest.bodies_size_bytes_max)
        self._keys = keys
        self._merger = merger
        self._clock = clock
        self._receipt_secret = receipt_secret
        self._receipts = Receipts(settings, secret=receipt_secret)
        self._source_address = SourceAddress(settings.ingest.trusted_proxies)
        self._random = _Random()
        self._tally = tally
        self._is_stopping = False

    @property
    def body_size_bytes_max(self) -> int:
        return self._limits.body_size_bytes_max

    # --- events ----------------------------------------------------------------------------------------------------
    def let_in(self, request: Request) -> Intake:
        """Decide by the headers alone, before any of the body is read.

        Raises LogweirError: as KeyReader.authenticated; CONTENT_ENCODING_UNKNOWN, BODY_TOO_LARGE, EMITTER_HEADER_BAD.
        """
        headers = request.headers
        source_address = self._source_address.of(request.peer, headers.get(b"x-forwarded-for"))
        known = self._keys.authenticated(headers, source_address)
        sent_encoding = headers.get(b"content-encoding")
        encoding = encoding_of(sent_encoding) if sent_encoding else ""
        announced_bytes = int(headers.get(b"content-length", b"0") or 0)
        self._limits.check_announced(announced_bytes)
        return Intake(
            key=known.name,
            encoding=encoding,
            announced_bytes=announced_bytes,
            emitter=emitter.read(headers),
            idempotency_key=_idempotency_key(headers),
            source_address=source_address,
            guard=known.guard,
        )

    def brief_batch_of(self, intake: Intake, body: bytes) -> Batch | None:
        """``batch_of`` for a body that takes milliseconds; None, and nothing has happened, for one that takes longer.

        How long says nothing that is known before: a few KB may be MiB unpacked, or be wrong at their very end.
        """
        if len(body) <= SMALL_SIZE_BYTES_MAX and not intake.encoding:
            return self.batch_of(intake, body)
        limits = self._brief
        if len(body) > limits.decompressed_size_bytes_max:
            return None
        intake.started_s = time.perf_counter()
        try:
            events = json_format.split_fast(plain(body, intake.encoding, limits), limits)
        except LogweirError:
            return None
        return None if events is None else self._batch(intake, events)

    def batch_of(self, intake: Intake, body: bytes) -> Batch:
        """The events of the whole body. Raises LogweirError; a body that cannot be read is kept for the operator."""
        intake.started_s = intake.started_s or time.perf_counter()
        try:
            body = plain(body, intake.encoding, self._limits)
            events = json_format.split(body, self._limits)
        except LogweirError as error:
            # An empty body with Log-High is a heartbeat: it says how far the emitter is, and brings nothing.
            if error.problem is not BODY_EMPTY or intake.emitter.high is None:
                if error.problem.code in _UNREADABLE:
                    self._keep(intake, body, error)
                raise
            events = []
        return self._batch(intake, events)

    def _batch(self, intake: Intake, events: list[bytes]) -> Batch:
        sent = intake.emitter
        if events and sent.epoch is not None and sent.sequence_first is None:
            raise emitter.bad("Log-Seq", b"", "there, though Log-Epoch says that the events are numbered")
        stamp = None
        if intake.guard is not None:
            intake.charge = intake.guard.admit(events)
            stamp = intake.guard.stamp
        received_us = self._clock()
        return Batch(
            self._batch_id(intake, received_us),
            received_us,
            intake.key,
            sent.emitter,
            sent.epoch,
            sent.sequence_first,
            sent.high,
            sent.previous,
            sent.dropped,
            sent.bye,
            intake.source_address,
            json_format.NAME,
            stamp,
            0,
            events,
        )

    def _batch_id(self, intake: Intake, received_us: int) -> bytes:
        if intake.idempotency_key is not None:
            return event.batch_id_from_idempotency_key(intake.key, intake.idempotency_key)
        return event.batch_id_new(received_us, self._random.ten_bytes())

    def _keep(self, intake: Intake, body: bytes, error: LogweirError) -> None:
        size_bytes_max = self._limits.refused_size_bytes_max
        if not size_bytes_max:
            return
        if intake.guard is not None:
            intake.guard.charge_kept(min(len(body), size_bytes_max))
        received_us = self._clock()
        refused = Refused(
            id=event.batch_id_new(received_us, self._random.ten_bytes()),
            received_us=received_us,
            key=intake.key,
            emitter=intake.emitter.emitter,
            source_address=intake.source_address,
            format=json_format.NAME,
            code=error.problem.code,
            detail=error.detail,
            size_bytes=len(body),
            body=body[:size_bytes_max],
        )
        try:
            self._merger.keep(refused)
        except Exception:  # Keeping is a courtesy: it must not change the answer.
            log.exception("An unreadable body could not be kept")

    def enqueue(self, intake: Intake, batch: Batch, future: Future) -> None:
        """Hand the batch over; ``future`` gets the Result for ``accepted``. Raises LogweirError as Merger.submit."""
        try:
            self._merger.submit(batch, future)
        except LogweirError:
            if intake.charge is not None:
                intake.charge.give_back()
            raise

    def accepted(self, intake: Intake, result: Result) -> Reply:
        """The answer to a batch that queue or spool has (202), or neither (503)."""
        if not isinstance(result, Enqueued):
            if intake.charge is not None:
                intake.charge.give_back()
            return self.refused("events", result)
        token = receipt.encode(
            self._receipt_secret,
            ingest_epoch=self._merger.ingest_epoch,
            partition=result.partition,
            first=result.first,
            count=result.count,
            window=result.window,
        )
        body = b'{"accepted":%d,"durable":"%b","receipt":"%b"}' % (result.count, result.durable.encode(), token)
        self._tally.accepted(events=result.count, took_s=time.perf_counter() - intake.started_s)
        return Reply(202, _JSON if intake.charge is None else _JSON + intake.charge.quota.headers(), body)

    # --- everything else -------------------------------------------------------------------------------------------
    def answer(self, request: Request) -> Reply:
        """The answer to any request but one for events."""
        endpoint, parameters = _row_of(request.path, "GET" if request.method == "HEAD" else request.method)
        if endpoint is None or endpoint.answer is None:
            return self.refused("other", _no_endpoint(request))
        reply = endpoint.answer(self, *parameters)
        self._tally.answered(endpoint.name, reply.status)
        return reply

    def healthz(self) -> Reply:
        """200 as long as this process lives; asks nobody."""
        return Reply(200, _JSON, b'{"status":"ok"}')

    @property
    def is_connected(self) -> bool:
        """Whether the queue has been reached."""
        return self._merger.is_connected

    def refuse(self) -> None:
        """Be not ready from now on: the process stops, and whoever balances shall go elsewhere."""
        self._is_stopping = True

    def readyz(self) -> Reply:
        """200 when the queue can take events, else 503 with the reason."""
        reason = "this door is stopping" if self._is_stopping else self._merger.unready()
        if reason is None:
            return Reply(200, _JSON, b'{"status":"ready"}')
        body = json.dumps({"status": "not ready", "reason": reason}, separators=(",", ":")).encode()
        return Reply(503, (*_JSON, (b"retry-after", b"%d" % RETRY_AFTER_S)), body)

    def metrics(self) -> Reply:
        """The metrics of all processes of this port, for Prometheus."""
        self._tally.flush()
        body, content_type = registry.exposition()
        return Reply(200, ((b"content-type", content_type.encode()),), body)

    def receipt(self, token: str) -> Reply:
        """What became of the batch that was answered with this receipt; asks the store. docs/how-to/receipts.md

        Raises LogweirError: RECEIPT_BAD, RECEIPT_UNANSWERED.
        """
        body = json.dumps(self._receipts.of(token), separators=(",", ":")).encode()
        return Reply(200, (*_JSON, (b"cache-control", b"no-store")), body)

    # --- refusals --------------------------------------------------------------------------------------------------
    def refused(self, endpoint: str, error: LogweirError) -> Reply:
        """The problem answer to ``error``, counted."""
        self._tally.answered(endpoint, error.problem.status)
        if endpoint == "events":
            self._tally.rejected(error.reason)
        return problem_reply(error)

    def failed(self, endpoint: str) -> Reply:
        """The answer to an unexpected exception; call it where the exception is handled: its trace goes to the log."""
        reference = secrets.token_hex(6)
        log.exception("A request failed, reference %s", reference, extra={"reference": reference})
        return self.refused(endpoint, LogweirError(INTERNAL, reference=reference))

    def stop(self, timeout_s: float) -> None:
        """Settle what is under way, write the last markers, let go of the queue; takes at most that long."""
        self._merger.stop(timeout_s)
        self._keys.stop()
        self._tally.flush()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row. ``answer`` is None for events, whose body is read and whose answer waits for the queue.

    ``hot``: the fast lane serves it; everything else falls through to Flask. The last part of a path may be a <name>:
    what stands there is the second argument of ``answer``.
    """

    path: str
    method: str
    name: str
    answer: Callable[..., Reply] | None
    hot: bool = False


ENDPOINTS = (
    Endpoint("/events", "POST", "events", None, hot=True),
    Endpoint("/", "POST", "events", None, hot=True),
    Endpoint("/healthz", "GET", "healthz", Door.healthz, hot=True),
    Endpoint("/readyz", "GET", "readyz", Door.readyz, hot=True),
    Endpoint("/metrics", "GET", "metrics", Door.metrics),
    Endpoint("/receipts/<token>", "GET", "receipts", Door.receipt),
)
BY_ROUTE = {(endpoint.path, endpoint.method): endpoint for endpoint in ENDPOINTS if "<" not in endpoint.path}
_BY_FOLDER = {
    (endpoint.path.rpartition("/")[0], endpoint.method): endpoint for endpoint in ENDPOINTS if "<" in endpoint.path
}

_JSON = ((b"content-type", b"application/json"),)
_PROBLEM = ((b"content-type", b"application/problem+json"),)
_RETRY_STATUSES = frozenset((429, 503))
_HEADERS_BY_STATUS: dict[int, tuple[tuple[bytes, bytes], ...]] = {
    401: ((b"www-authenticate", b"Bearer"),),
    415: ((b"accept-encoding", ", ".join(ENCODINGS).encode()),),
}


def problem_reply(error: LogweirError) -> Reply:
    """The answer to a problem, as RFC 9457 has it."""
    headers = _PROBLEM + _HEADERS_BY_STATUS.get(error.problem.status, ())
    if error.problem is METHOD_NOT_ALLOWED:
        headers = (*headers, (b"allow", str(error.numbers["allowed"]).encode()))
    if error.problem.status in _RETRY_STATUSES:
        headers = (*headers, (b"retry-after", b"%d" % error.numbers.get("retry_after_s", RETRY_AFTER_S)))
    body = json.dumps(error.as_dict(), separators=(",", ":"), ensure_ascii=False)
    return Reply(error.problem.status, headers, body.encode(errors="replace"))


def _row_of(path: str, method: str) -> tuple[Endpoint | None, tuple[str, ...]]:
    """The row for a request, and what stands where its path has a parameter."""
    if (endpoint := BY_ROUTE.get((path, method))) is not None:
        return endpoint, ()
    folder, _, parameter = path.rpartition("/")
    return _BY_FOLDER.get((folder, method)) if parameter else None, (parameter,)


def _no_endpoint(request: Request) -> LogweirError:
    allowed = sorted({row.method for row in ENDPOINTS if _row_of(request.path, row.method)[0] is not None})
    if not allowed:
        return LogweirError(NOT_FOUND, path=request.path[:200])
    if "GET" in allowed:
        allowed.append("HEAD")
    return LogweirError(METHOD_NOT_ALLOWED, path=request.path, method=request.method[:20], allowed=", ".join(allowed))


def _idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    value = headers.get(b"idempotency-key")
    if value is None:
        return None
    if not 0 < len(value) <= IDEMPOTENCY_KEY_SIZE_BYTES_MAX:
        raise emitter.bad("Idempotency-Key", value, f"1 to {IDEMPOTENCY_KEY_SIZE_BYTES_MAX} bytes")
    return value.decode("latin-1")


class _Random:
    """Random bytes for batch ids, fetched from the kernel many at a time."""

    _IDS = 400

    def __init__(self) -> None:
        self._tens: list[bytes] = []

    def ten_bytes(self) -> bytes:
        try:
            return self._tens.pop()
        except IndexError:
            pool = os.urandom(10 * self._IDS)
            self._tens = [pool[start : start + 10] for start in range(10, len(pool), 10)]
            return pool[:10]
