"""The WSGI face: a Flask app with every endpoint of the table. Like the fast lane, it decides nothing itself."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable

import flask
from werkzeug.exceptions import ClientDisconnected, HTTPException

from logweir.errors import BODY_TOO_LARGE, HTTP_BAD, QUEUE_UNAVAILABLE, LogweirError
from logweir.record import Batch
from logweir_ingest.app import ENDPOINTS, Door, Endpoint, Intake, Reply, Request
from logweir_ingest.records.merge import Result
from logweir_ingest.request.limits import LONG_AT_ONCE

# The merger answers by its own deadline; this one is only for the case that it does not.
_GRACE_S = 10.0
_PIECE_SIZE_BYTES = 64 * 1024


def make_app(door: Callable[[], Door], *, answer_timeout_s: float) -> flask.Flask:
    """The Flask app. ``door`` is asked at each request, because the process makes its door after this app."""
    app = flask.Flask("logweir_ingest")
    app.url_map.merge_slashes = False
    for endpoint in ENDPOINTS:
        view = _events_view(door, answer_timeout_s) if endpoint.answer is None else _answer_view(door)
        app.add_url_rule(
            endpoint.path,
            f"{endpoint.method} {endpoint.path}",
            _answering(door, endpoint, view),
            methods=[endpoint.method],
            provide_automatic_options=False,
            strict_slashes=True,
        )

    @app.errorhandler(HTTPException)
    def no_endpoint(_: HTTPException) -> flask.Response:
        return _response(door().answer(_request()))

    return app


def _answering(
    door: Callable[[], Door], endpoint: Endpoint, view: Callable[[], Reply]
) -> Callable[..., flask.Response]:
    def answer(**_: str) -> flask.Response:
        try:
            # Werkzeug finds //events where /events is: to us, and to a proxy in front, they are two paths.
            return _response(view() if _path() == endpoint.path else door().answer(_request()))
        except LogweirError as error:
            return _response(door().refused(endpoint.name, error))
        except Exception:  # noqa: BLE001  A bug of ours must not end the process, nor show itself to the sender.
            return _response(door().failed(endpoint.name))

    return answer


def _answer_view(door: Callable[[], Door]) -> Callable[[], Reply]:
    return lambda: door().answer(_request())


def _events_view(door: Callable[[], Door], answer_timeout_s: float) -> Callable[[], Reply]:
    long = threading.BoundedSemaphore(LONG_AT_ONCE)

    def batch_of(intake: Intake) -> Batch:
        with door().bodies.hold(intake.announced_bytes) as grow:
            body = _body(door().body_size_bytes_max, grow)
            if (batch := door().brief_batch_of(intake, body)) is not None:
                return batch
            with long:
                return door().batch_of(intake, body)

    def events() -> Reply:
        intake = door().let_in(_request())
        future: concurrent.futures.Future[Result] = concurrent.futures.Future()
        door().enqueue(intake, batch_of(intake), future)
        try:
            result = future.result(answer_timeout_s + _GRACE_S)
        except TimeoutError:
            result = LogweirError(QUEUE_UNAVAILABLE, reason="the door lost track of it")
        return door().accepted(intake, result)

    return events


def _body(size_bytes_max: int, grow: Callable[[int], None]) -> bytes:
    """The whole body.

    Raises LogweirError: BODY_TOO_LARGE, HTTP_BAD when it ends too early, and what ``grow`` raises.
    """
    pieces: list[bytes] = []
    size_bytes = 0
    try:
        # A read waits for all that it asks for: one byte too many, and no more.
        while piece := flask.request.stream.read(min(_PIECE_SIZE_BYTES, size_bytes_max + 1 - size_bytes)):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > size_bytes_max:
                raise LogweirError(BODY_TOO_LARGE, size_bytes_max=size_bytes_max)
            grow(size_bytes)
    except (ClientDisconnected, OSError) as error:
        raise LogweirError(HTTP_BAD, reason="its body ends too early") from error
    return b"".join(pieces)


def _request() -> Request:
    sent = flask.request
    headers = {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in sent.headers.items()}
    return Request(sent.method, _path(), headers, sent.remote_addr or "")


def _path() -> str:
    path: str = flask.request.environ["PATH_INFO"]
    return path.encode("latin-1").decode(errors="replace")


def _response(reply: Reply) -> flask.Response:
    response = flask.Response(reply.body, status=reply.status)
    response.headers.clear()
    for name, value in reply.headers:
        response.headers[name.decode()] = value.decode("latin-1")
    response.headers["content-length"] = str(len(reply.body))
    return response
