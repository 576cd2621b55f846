"""The WSGI interface: a Flask app with every endpoint of the table. Like the ASGI interface, it decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures

import flask
from werkzeug.exceptions import ClientDisconnected, HTTPException, InternalServerError

from logweir.http.cycle import WRITER
from logweir_ingest.app import ENDPOINTS, EventsRequest, IngestApp, endpoint_of
from logweir_ingest.formats.port import Format
from logweir_ingest.request.message import Reply, Request

_PIECE_SIZE_BYTES = 64 * 1024


def make_wsgi(app: Callable[[], IngestApp]) -> flask.Flask:
    """The Flask app. ``app`` is asked at each request, because the process opens its IngestApp after this one."""

    def view(**_: str) -> flask.Response:
        request = _request()
        # Werkzeug finds //events where /events is: to us, and to a proxy in front, they are two paths.
        endpoint = endpoint_of(request.path, request.method)
        if endpoint is not None and endpoint.format is not None and endpoint.answer is None:
            return _response(_events(app(), request, endpoint.format))
        request.read = _read
        return _response(app().answer(request))

    def no_endpoint(_: HTTPException) -> flask.Response:
        return _response(app().answer(_request()))

    def fault(error: InternalServerError) -> flask.Response:
        return _response(app().refused("other", _request(), app().fault(error.original_exception or error)))

    flask_app = flask.Flask("logweir_ingest")
    flask_app.url_map.merge_slashes = False
    flask_app.register_error_handler(HTTPException, no_endpoint)
    flask_app.register_error_handler(InternalServerError, fault)
    for endpoint in ENDPOINTS:
        flask_app.add_url_rule(
            endpoint.path,
            f"{endpoint.method} {endpoint.path}",
            view,
            methods=[endpoint.method],
            provide_automatic_options=False,
            strict_slashes=True,
        )
    return flask_app


def _events(app: IngestApp, request: Request, format: Format) -> Reply:
    answered: futures.Future[Reply] = futures.Future()
    events = app.take(request, format, answered.set_result)
    writer = flask.request.environ.get("asgi.scope", {}).get(WRITER)
    if events.key is not None and writer is not None:
        writer.show_key(events.key)
    try:
        _receive_body(events)
        # The batcher has a deadline for it.
        return answered.result()
    finally:
        events.abandon()


def _receive_body(events: EventsRequest) -> None:
    try:
        while events.wants_body:
            # A read waits for all that it asks for: one byte too many, and no more.
            piece = flask.request.stream.read(min(_PIECE_SIZE_BYTES, events.size_bytes_left))
            events.receive(piece, is_last=not piece)
    except (ClientDisconnected, OSError):
        events.cut_short()


def _read(size_bytes_max: int) -> bytes:
    try:
        return flask.request.stream.read(size_bytes_max)
    except ClientDisconnected as error:
        raise ConnectionResetError from error


def _request() -> Request:
    sent = flask.request
    headers = {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in sent.headers.items()}
    path: str = sent.environ["PATH_INFO"]
    query: str = sent.environ["QUERY_STRING"]
    return Request(
        sent.method,
        path.encode("latin-1").decode(errors="replace"),
        headers,
        sent.remote_addr or "",
        query.encode("latin-1"),
    )


def _response(reply: Reply) -> flask.Response:
    response = flask.Response(reply.body, status=reply.status)
    response.headers.clear()
    for name, value in reply.headers:
        response.headers[name.decode()] = value.decode("latin-1")
    response.headers["content-length"] = str(len(reply.body))
    return response
