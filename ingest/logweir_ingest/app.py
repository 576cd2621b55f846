"""The endpoints as a table, and which answer each request gets.

Two interfaces serve it: ``asgi.py`` (ASGI, the hot endpoints) and ``wsgi.py`` (Flask, all of them). They move bytes: a
request for events goes to ``IngestApp.take``, any other to ``IngestApp.answer``, and neither raises.

What an answer looks like is said elsewhere: status and words of a refusal by its row in ``logweir/errors.py``, its form
and headers by ``formats/port.py``, a batch's good answer by its format. What breaks HTTP or a limit of the server
(headers, connections, slowness) is answered before it comes here, by ``logweir/http/limits.py`` and ``reply.py``.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import msgspec

from logweir import event, receipt
from logweir.clock import Clock
from logweir.config import Settings
from logweir.errors import (
    BODY_EMPTY,
    BODY_TOO_LARGE,
    HTTP_BAD,
    INTERNAL,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    NOT_READY,
    LogweirError,
)
from logweir.http.reply import RETRY_AFTER_S
from logweir.keys.terms import KEEP
from logweir.metrics import registry
from logweir.record import NUMBER_MAX, Batch, Refused
from logweir_ingest.access.auth import Authenticator, KeyPolicy
from logweir_ingest.access.proxies import SourceAddress
from logweir_ingest.access.quota import Charge
from logweir_ingest.formats import FORMATS
from logweir_ingest.formats.port import Accepted, Format, Parsed, Route, problem_reply
from logweir_ingest.receipts import Receipts
from logweir_ingest.records.batcher import BatchResult, Post, RecordBatcher, call_now
from logweir_ingest.records.encode import NamedBatch
from logweir_ingest.request import emitter_headers, senders
from logweir_ingest.request.compression import encoding_of, plain
from logweir_ingest.request.emitter_headers import EmitterHeaders
from logweir_ingest.request.limits import COUNTED_FROM_BYTES, LONG_AT_ONCE, SMALL_SIZE_BYTES_MAX, BodyBudget, Limits
from logweir_ingest.request.message import Reply, Request
from logweir_ingest.tally import Tally

log = logging.getLogger(__name__)

IDEMPOTENCY_KEY_SIZE_BYTES_MAX = 256
_JSON = ((b"content-type", b"application/json"),)


class IngestApp:
    """Everything that answers need. One a process; safe to use from several threads.

    ``post`` brings a call to the thread that may answer, as the batcher's.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        keys: Authenticator,
        batcher: RecordBatcher,
        clock: Clock,
        receipt_secret: bytes,
        tally: Tally,
        post: Post = call_now,
    ) -> None:
        self.limits = Limits.of(settings)
        self.small_limits = self.limits.small()
        self.bodies = BodyBudget(settings.ingest.bodies_size_bytes_max)
        self.batcher = batcher
        self.clock = clock
        self.receipt_secret = receipt_secret
        self.tally = tally
        self.random = _Random()
        self.post = post
        # What takes long is done on other threads, so that no other request waits.
        self.long = futures.ThreadPoolExecutor(LONG_AT_ONCE, "long-body")
        self._keys = keys
        self._receipts = Receipts(settings, secret=receipt_secret)
        self._source_address = SourceAddress(settings.ingest.trusted_proxies)
        self._said_kept: set[str] = set()
        self._is_stopping = False

    def take(self, request: Request, format: Format, answer: Callable[[Reply], object]) -> EventsRequest:
        """Begin with a request for events, by its headers alone; it is to be handed its body while it ``wants_body``.

        ``answer`` gets the reply, at once or later, on the thread that may answer.
        """
        return EventsRequest(self, request, format, answer)

    def answer(self, request: Request) -> Reply:
        """The answer to any request but one for events."""
        endpoint = endpoint_of(request.path, request.method)
        if endpoint is None or endpoint.answer is None:
            return self.refused("other", request, _no_endpoint(request))
        try:
            reply = endpoint.answer(self, request)
        except LogweirError as error:
            return self.refused(endpoint.name, request, error, endpoint.format)
        except Exception as error:  # noqa: BLE001  A bug of ours must not end the process, nor show itself.
            return self.refused(endpoint.name, request, self.fault(error), endpoint.format)
        self.tally.answered(endpoint.name, reply.status)
        return reply

    # --- by the headers --------------------------------------------------------------------------------------------
    def admit(self, request: Request, format: Format) -> Admitted:
        """Decide by the headers alone whether a request for events may send its body.

        Raises LogweirError as Authenticator.authenticate, or CONTENT_ENCODING_UNKNOWN, BODY_TOO_LARGE,
        EMITTER_HEADER_BAD.
        """
        headers = request.headers
        source_address = self._source_address.of(request.peer, headers.get(b"x-forwarded-for"))
        known = self._keys.authenticate(format.key_of(headers), headers, source_address)
        sent_encoding = headers.get(b"content-encoding")
        encoding = encoding_of(sent_encoding) if sent_encoding else ""
        announced_bytes = int(headers.get(b"content-length", b"0") or 0)
        self.limits.check_announced(announced_bytes)
        return Admitted(
            self,
            request,
            format,
            known.name,
            known.policy,
            encoding,
            announced_bytes,
            emitter_headers.read(headers),
            _idempotency_key(headers),
            source_address,
        )

    # --- what the other endpoints answer ---------------------------------------------------------------------------
    def healthz(self, _: Request) -> Reply:
        """200 as long as this process lives; asks nobody."""
        return Reply(200, _JSON, b'{"status":"ok"}')

    def readyz(self, _: Request) -> Reply:
        """200 when events can be taken, else 503 with the reason why none is."""
        reason = self.unready()
        if reason is None:
            return Reply(200, _JSON, b'{"status":"ready"}')
        body = json.dumps({"status": "not ready", "reason": reason}, separators=(",", ":")).encode()
        return Reply(503, (*_JSON, (b"retry-after", b"%d" % RETRY_AFTER_S)), body)

    def metrics(self, _: Request) -> Reply:
        """The metrics of all processes of this port, for Prometheus."""
        self.tally.flush()
        body, content_type = registry.exposition()
        return Reply(200, ((b"content-type", content_type.encode()),), body)

    def receipt(self, request: Request) -> Reply:
        """What became of the batch that was answered with this receipt; asks the store. docs/how-to/receipts.md

        Raises LogweirError: RECEIPT_BAD, RECEIPT_UNANSWERED.
        """
        token = request.path.rpartition("/")[2]
        address = self._source_address.of(request.peer, request.headers.get(b"x-forwarded-for"))
        body = json.dumps(self._receipts.of(token, address=address), separators=(",", ":")).encode()
        return Reply(200, (*_JSON, (b"cache-control", b"no-store")), body)

    def unready(self) -> str | None:
        """Why no events can be taken, or None."""
        return "this door is stopping" if self._is_stopping else self._keys.unready() or self.batcher.unready()

    # --- refusals --------------------------------------------------------------------------------------------------
    def refused(self, endpoint: str, request: Request, error: LogweirError, format: Format | None = None) -> Reply:
        """The answer to ``error``, counted: as the format has it, if the request is for one."""
        try:
            reply = problem_reply(error) if format is None else format.refused(request, error)
        except Exception:
            log.exception("The format %s could not answer with a refusal", format and format.name)
            reply = problem_reply(error)
        self.tally.answered(endpoint, reply.status)
        if endpoint == EVENTS:
            self.tally.rejected(error.reason)
        return reply

    def say_kept(self, key: str, sender: str) -> None:
        """Say in the log, once of each key, that what it sends is kept though it cannot be read, and why."""
        if key not in self._said_kept:
            self._said_kept.add(key)
            log.warning(
                "The key %r sends what cannot be read. Its sender looks like %s, which a refusal would stop for good:"
                " so it is answered 202, and what cannot be read becomes a dead letter. Correct the sender's template:"
                " docs/how-to/rsyslog.md, docs/how-to/syslog-ng.md. (Said once for each key.)",
                key,
                sender,
                extra={"key": key, "sender": sender},
            )

    def fault(self, error: BaseException) -> LogweirError:
        """What to answer an unexpected exception with, whose trace goes to the log."""
        reference = secrets.token_hex(6)
        log.error("A request failed, reference %s", reference, exc_info=error, extra={"reference": reference})
        return LogweirError(INTERNAL, reference=reference)

    # --- the end ---------------------------------------------------------------------------------------------------
    @property
    def is_connected(self) -> bool:
        """Whether the queue has been reached."""
        return self.batcher.is_connected

    def become_unready(self) -> None:
        """Say so from now on: the process stops, and whoever balances shall go elsewhere."""
        self._is_stopping = True

    def stop(self, timeout_s: float) -> None:
        """Answer what is under way, write the last markers, let go of the queue; takes at most that long."""
        self.batcher.stop(timeout_s)
        self._keys.stop()
        self.tally.flush()


class EventsRequest:
    """A request for events, on its way from its headers to its answer.

    It is admitted by its headers; it receives its body; its events go to the batcher, which calls ``set_result``. What
    goes wrong is answered, and ends the way: none of the public methods raises. For one thread at a time.
    """

    __slots__ = (
        "_admitted",
        "_answer",
        "_app",
        "_format",
        "_held_bytes",
        "_is_over",
        "_pieces",
        "_received_s",
        "_request",
        "_size_bytes",
    )

    def __init__(self, app: IngestApp, request: Request, format: Format, answer: Callable[[Reply], object]) -> None:
        self._app = app
        self._request = request
        self._format = format
        self._answer = answer
        self._admitted: Admitted | None = None
        self._pieces: list[bytes] = []
        self._size_bytes = self._held_bytes = 0
        self._received_s = 0.0
        self._is_over = False
        try:
            self._admitted = admitted = app.admit(request, format)
            if admitted.announced_bytes > COUNTED_FROM_BYTES:
                self._held_bytes = app.bodies.hold(admitted.announced_bytes, key=admitted.key)
        except Exception as error:  # noqa: BLE001  Whatever goes wrong is answered.
            self._fail(error)

    @property
    def key(self) -> str | None:
        """The name of the good key that it came with, None when it has not."""
        return None if self._admitted is None else self._admitted.key

    @property
    def wants_body(self) -> bool:
        """Whether more of the body is to be received: not after its end, nor after a refusal."""
        return not self._received_s and not self._is_over

    @property
    def has_body(self) -> bool:
        """Whether the body was received to its end."""
        return self._received_s > 0

    @property
    def size_bytes_left(self) -> int:
        """How much of a body may still come, and one byte more, with which it is too large."""
        return self._app.limits.body_size_bytes_max + 1 - self._size_bytes

    def receive(self, piece: bytes, *, is_last: bool) -> None:
        """Take a piece of the body; behind the last one everything else happens by itself."""
        app, admitted = self._app, self._admitted
        if self._is_over or admitted is None:
            return
        try:
            self._size_bytes += len(piece)
            if self._size_bytes > app.limits.body_size_bytes_max:
                raise LogweirError(BODY_TOO_LARGE, size_bytes_max=app.limits.body_size_bytes_max)
            if self._size_bytes > COUNTED_FROM_BYTES:
                self._held_bytes = app.bodies.hold(self._size_bytes, key=admitted.key, held_bytes=self._held_bytes)
            self._pieces.append(piece)
            if not is_last:
                return
            body = piece if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._received_s = time.perf_counter()
            batch = admitted.parse_small(body)
            if batch is not None:
                self._submit(batch)
            else:
                app.long.submit(admitted.parse, body).add_done_callback(self._on_parsed)
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def cut_short(self) -> None:
        """Answer: the body ended before its end."""
        self._refuse(LogweirError(HTTP_BAD, reason="its body ends too early"))

    def abandon(self) -> None:
        """Nobody waits for the answer any more. What the batcher has already stays there."""
        self._is_over = True
        self._release()

    # --- behind the body -------------------------------------------------------------------------------------------
    def _on_parsed(self, parsed: futures.Future[Batch]) -> None:
        """Called on the thread that parsed: what follows belongs to the thread that may answer."""
        self._app.post(self._take_parsed, parsed)

    def _take_parsed(self, parsed: futures.Future[Batch]) -> None:
        # Not raised again here: an error refers to the calls it passed, and those to the error. All that was unpacked
        # would stay in memory with them.
        error = parsed.exception()
        if error is None:
            self._submit(parsed.result())
        else:
            self._fail(error)

    def _submit(self, batch: Batch) -> None:
        if self._held_bytes:
            self._release()
        try:
            self._app.batcher.submit(batch, self)
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def done(self) -> bool:
        return self._is_over

    def set_result(self, result: BatchResult, /) -> None:
        """Called by the batcher: the batch is durable, or is nowhere."""
        app, admitted = self._app, self._admitted
        if isinstance(result, LogweirError):
            self._refuse(result)
            return
        try:
            assert admitted is not None
            token = receipt.encode(
                app.receipt_secret,
                ingest_epoch=app.batcher.ingest_epoch,
                partition=result.partition,
                first=result.first,
                count=result.count,
                window=result.window,
            )
            accepted = Accepted(result.count, result.durable, token, admitted.about, admitted.kept, admitted.batch_id)
            reply = self._format.accepted(self._request, accepted)
            if admitted.charge is not None:
                reply = Reply(reply.status, reply.headers + admitted.charge.quota.headers(), reply.body)
            app.tally.accepted(reply.status, events=result.count, took_s=time.perf_counter() - self._received_s)
            if admitted.kept:
                app.tally.kept(self._format.name, admitted.kept)
            self._is_over = True
            self._answer(reply)
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    # --- refusals --------------------------------------------------------------------------------------------------
    def _fail(self, error: BaseException) -> None:
        """Answer what was raised. A bug of ours must not show itself to the sender."""
        self._refuse(error if isinstance(error, LogweirError) else self._app.fault(error))

    def _refuse(self, error: LogweirError) -> None:
        if self._is_over:
            return
        if self._admitted is not None and self._admitted.charge is not None:
            self._admitted.charge.give_back()
        reply = self._app.refused(EVENTS, self._request, error, self._format)
        self.abandon()
        self._answer(reply)

    def _release(self) -> None:
        if self._held_bytes and self._admitted is not None:
            self._app.bodies.release(self._held_bytes, key=self._admitted.key)
            self._held_bytes = 0


class Admitted(msgspec.Struct):
    """A request that may send its body: what its headers say, and how that and the body become a batch."""

    app: IngestApp
    request: Request
    format: Format
    key: str
    policy: KeyPolicy | None
    encoding: str
    announced_bytes: int
    emitter: EmitterHeaders
    idempotency_key: str | None
    source_address: str
    charge: Charge | None = None
    """What the batch has taken from its key's quota."""
    batch_id: bytes = b""
    about: Any = None
    """What the format wants to know of the body when it answers."""
    kept: int = 0
    """How many events of the batch cannot be read."""

    def parse_small(self, body: bytes) -> Batch | None:
        """``parse`` for a body that takes milliseconds; None, and nothing has happened, for one that takes longer.

        How long says nothing that is known before: a few KB may be MiB unpacked, or be wrong at their very end.
        """
        if len(body) <= SMALL_SIZE_BYTES_MAX and not self.encoding:
            return self.parse(body)
        limits = self.app.small_limits
        if len(body) > limits.decompressed_size_bytes_max:
            return None
        try:
            parsed = self.format.split_fast(self.request, plain(body, self.encoding, limits), limits)
        except LogweirError:
            return None
        return None if parsed is None else self._batch(parsed)

    def parse(self, body: bytes) -> Batch:
        """The batch of the whole body; takes what it costs from the key's quota.

        Raises LogweirError; a body that cannot be read is kept for the operator.
        """
        try:
            body = plain(body, self.encoding, self.app.limits)
            parsed = self._parsed(body)
        except LogweirError as error:
            # An empty body with Log-High is a heartbeat: it says how far the emitter is, and brings nothing.
            if error.problem is not BODY_EMPTY or self.emitter.high is None:
                self._pay(len(body))
                if error.problem is not BODY_EMPTY:
                    self._keep(body, error)
                raise
            parsed = Parsed([])
        return self._batch(parsed)

    def _parsed(self, body: bytes) -> Parsed:
        """What the body holds: what cannot be read, too, where the key or the kind of sender calls for that."""
        try:
            return self.format.split(self.request, body, self.app.limits)
        except LogweirError:
            # An emitter that numbers its events says which numbers a body has: nobody can tell those of its parts.
            if self.emitter.epoch is not None or not self._keeps_unreadable():
                raise
            kept = self.format.keep(self.request, body, self.app.limits)
            if kept is None:
                raise
            return kept

    def _keeps_unreadable(self) -> bool:
        said = None if self.policy is None else self.policy.unreadable
        if said is not None:
            return said == KEEP
        sender = senders.stopped_by_refusal(self.request.headers)
        if sender is not None:
            self.app.say_kept(self.key, sender)
        return sender is not None

    def _batch(self, parsed: Parsed) -> Batch:
        events = parsed.events
        sent = self.emitter if parsed.emitter is None else parsed.emitter
        if events and sent.epoch is not None and sent.sequence_first is None:
            self._pay(0)
            raise emitter_headers.bad("Log-Seq", b"", "there, though Log-Epoch says that the events are numbered")
        if sent.sequence_first is not None and sent.sequence_first > NUMBER_MAX + 1 - len(events):
            self._pay(0)
            raise emitter_headers.last_too_high(sent.sequence_first, len(events))
        if parsed.left_out and sent.epoch is not None:
            # Those behind it would have its number.
            self._pay(len(parsed.left_out[0][1]))
            raise parsed.left_out[0][0]
        stamp = parsed.stamp
        if self.policy is not None:
            self.charge = self.policy.charge(events)
            if self.policy.stamp:
                stamp = {**(stamp or {}), **self.policy.stamp}
        for error, left_out in parsed.left_out:
            self._pay(len(left_out))
            self._keep(left_out, error)
        self.about, self.kept = parsed.about, parsed.kept
        received_us = self.app.clock()
        self.batch_id = self._batch_id(received_us)
        batch = Batch(
            self.batch_id,
            received_us,
            self.key,
            sent.emitter,
            sent.epoch,
            sent.sequence_first,
            sent.high,
            sent.previous,
            sent.dropped,
            sent.bye,
            self.source_address,
            self.format.name,
            stamp,
            0,
            events,
        )
        if parsed.names is None or sent.epoch is not None:
            return batch
        ids = [None if name is None else event.batch_id_from_name(self.key, name) for name in parsed.names]
        return NamedBatch.of(batch, ids)

    def _batch_id(self, received_us: int) -> bytes:
        if self.idempotency_key is not None:
            return event.batch_id_from_idempotency_key(self.key, self.idempotency_key)
        return event.batch_id_new(received_us, self.app.random.ten_bytes())

    def _pay(self, size_bytes: int) -> None:
        """Take from the key's quota what a request costs that cannot be read."""
        if self.policy is not None:
            self.policy.charge_refused(min(size_bytes, self.app.limits.refused_size_bytes_max))

    def _keep(self, body: bytes, error: LogweirError) -> None:
        """Keep an unreadable body for the operator, who can then see what the emitter believes it sent."""
        app = self.app
        size_bytes_max = app.limits.refused_size_bytes_max
        if not size_bytes_max:
            return
        received_us = app.clock()
        refused = Refused(
            id=event.batch_id_new(received_us, app.random.ten_bytes()),
            received_us=received_us,
            key=self.key,
            emitter=self.emitter.emitter,
            source_address=self.source_address,
            format=self.format.name,
            code=error.problem.code,
            detail=error.detail,
            size_bytes=len(body),
            body=body[:size_bytes_max],
        )
        try:
            app.batcher.keep(refused)
        except Exception:  # Keeping is a courtesy: it must not change the answer.
            log.exception("An unreadable body could not be kept")


# --- endpoints ------------------------------------------------------------------------------------------------------
EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row."""

    path: str
    """A segment that is written <name> stands for any that is not empty."""
    method: str
    name: str
    """In the metrics."""
    answer: Callable[[IngestApp, Request], Reply] | None
    """None for events, whose body is read and whose answer waits for the queue."""
    format: Format | None = None
    hot: bool = False
    """Served by ``asgi.py``; everything else goes on to Flask."""


def _endpoints_of(format: Format) -> Iterator[Endpoint]:
    for route in format.routes:
        if route.answer is None:
            yield Endpoint(route.path, route.method, EVENTS, None, format, hot=True)
        else:
            yield Endpoint(route.path, route.method, "handshakes", _handshake(format, route), format)


def _handshake(format: Format, route: Route) -> Callable[[IngestApp, Request], Reply]:
    def answer(app: IngestApp, request: Request) -> Reply:
        assert route.answer is not None
        # Who shows a key wants to know whether it is good, also where none is needed.
        if route.needs_key or format.key_of(request.headers) is not None:
            app.admit(request, format)
        if route.needs_door and (reason := app.unready()) is not None:
            raise LogweirError(NOT_READY, reason=reason)
        if route.body_size_bytes_max and request.read is not None:
            request.body = _body(app, request, request.read, route.body_size_bytes_max)
        return route.answer(request)

    return answer


def _body(app: IngestApp, request: Request, read: Callable[[int], bytes], size_bytes_max: int) -> bytes:
    """The body without its Content-Encoding. Raises LogweirError: BODY_TOO_LARGE, and as compression.plain."""
    try:
        body = read(size_bytes_max + 1)
    except OSError as error:
        raise LogweirError(HTTP_BAD, reason="its body ends too early") from error
    if len(body) > size_bytes_max:
        raise LogweirError(BODY_TOO_LARGE, size_bytes_max=size_bytes_max)
    return plain(body, encoding_of(request.headers.get(b"content-encoding", b"")), app.small_limits)


ENDPOINTS = (
    *(endpoint for format in FORMATS for endpoint in _endpoints_of(format)),
    Endpoint("/healthz", "GET", "healthz", IngestApp.healthz, hot=True),
    Endpoint("/readyz", "GET", "readyz", IngestApp.readyz, hot=True),
    Endpoint("/metrics", "GET", "metrics", IngestApp.metrics),
    Endpoint("/receipts/<token>", "GET", "receipts", IngestApp.receipt),
)
_BY_ROUTE = {(endpoint.path, endpoint.method): endpoint for endpoint in ENDPOINTS if "<" not in endpoint.path}
_BY_PATTERN = [(endpoint.path.split("/"), endpoint) for endpoint in ENDPOINTS if "<" in endpoint.path]


def endpoint_of(path: str, method: str) -> Endpoint | None:
    """The row for a request; one with its very path goes before one with a <name>."""
    method = "GET" if method == "HEAD" else method
    endpoint = _BY_ROUTE.get((path, method))
    if endpoint is not None:
        return endpoint
    segments = path.split("/")
    for pattern, endpoint in _BY_PATTERN:
        if endpoint.method == method and len(pattern) == len(segments) and all(map(_is_like, pattern, segments)):
            return endpoint
    return None


def _is_like(pattern: str, segment: str) -> bool:
    return segment != "" if pattern.startswith("<") else segment == pattern


def _no_endpoint(request: Request) -> LogweirError:
    allowed = sorted({row.method for row in ENDPOINTS if endpoint_of(request.path, row.method) is not None})
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
        raise emitter_headers.bad("Idempotency-Key", value, f"1 to {IDEMPOTENCY_KEY_SIZE_BYTES_MAX} bytes")
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
