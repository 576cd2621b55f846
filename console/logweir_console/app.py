"""The console's pages and API: search, and alerts (alerts.py).

``GET /``            a page with a search box and its hits; works without JavaScript
``GET /api/search``  the same search as JSON
``GET /healthz``     200 while the process answers
``GET /metrics``     for Prometheus
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import Flask, Response, abort, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from logweir.clock import Clock, now_us
from logweir.config import ConsoleSettings, WorkerSettings
from logweir.errors import METHOD_NOT_ALLOWED, NOT_FOUND, SEARCH_ABANDONED, SEARCH_TOO_SLOW, LogweirError
from logweir.metrics import registry
from logweir.store.port import Cancellation, Count, Hits, Store
from logweir.text import safe_json
from logweir_console import alerts, api, exceptions, page, parameters, rules
from logweir_console.guard import Guard
from logweir_console.parameters import Search

SEARCHES = ("/", "/api/search", "/alerts", "/api/alerts", "/rules", "/api/rules", "/api/exceptions")
"""The paths that search the store."""
CANCELLATION = "logweir.cancellation"
"""In the ASGI scope of a request: the Cancellation of its search, where somebody would cancel it."""
_PATH_SHOWN = 200
_WHAT_THERE_IS = f"Pages are at /, /alerts and /rules; {api.OPENAPI_PATH} describes the API."
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_app(
    settings: ConsoleSettings,
    store: Store,
    *,
    clock: Clock = now_us,
    group: str = WorkerSettings().group,
    refused: Callable[[str], object] = lambda _: None,
) -> Flask:
    """The console over a store. ``refused`` gets the code of each search that was stopped.

    ``group``: that of the workers, whose ledger it shows.
    """
    app = Flask(__name__)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.config["MAX_CONTENT_LENGTH"] = alerts.BODY_SIZE_BYTES_MAX
    _guard(app, settings)
    _answer_problems(app)

    @app.get("/")
    def index() -> tuple[str, int]:
        return page.page(request.query_string, found, clock())

    @app.get("/api/search")
    def api_search() -> Response:
        started = time.monotonic()
        search = Search.of(parameters.read(request.query_string))
        hits, count = found(search, clock())
        took_ms = round((time.monotonic() - started) * 1000)
        answer = {"total": count.number, "hits": hits.events, "took_ms": took_ms, "after": hits.after}
        return _json({**answer, "cut": search.is_cut(hits), "total_is_exact": count.is_exact}, 200)

    def found(search: Search, now_us: int) -> tuple[Hits, Count]:
        cancellation: Cancellation | None = request.environ.get("asgi.scope", {}).get(CANCELLATION)
        try:
            return search.run(store, now_us, size_bytes_max=settings.page_size_bytes_max, cancellation=cancellation)
        except LogweirError as error:
            if error.problem in (SEARCH_TOO_SLOW, SEARCH_ABANDONED):
                refused(error.problem.code)
            raise

    guard = Guard(settings)
    alerts.add(app, guard, store, clock=clock)
    rules.add(app, store, group=group, clock=clock)
    routes = [
        *alerts.routes(store, clock=clock),
        *rules.routes(store, group=group, clock=clock),
        *exceptions.routes(store, clock=clock),
    ]
    api.add(app, routes, guard, answer=_json)

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @app.get("/metrics")
    def metrics_of_this_process() -> Response:
        text, content_type = registry.exposition()
        return Response(text, content_type=content_type)

    return app


def _guard(app: Flask, settings: ConsoleSettings) -> None:
    """Have it answer to those alone who mean it, and tell their browsers what its pages may do."""
    hosts = settings.hosts or (*_LOOPBACK, *(() if settings.is_open else (settings.address,)))

    # No login yet. A foreign page whose host name is made to resolve to this machine must not read the logs.
    # Prometheus calls whatever it finds by its address, and gets no logs.
    @app.before_request
    def answered_host() -> None:
        if request.path != "/metrics" and not _is_one_of(request.headers.get("Host", ""), hosts):
            abort(400, "The console does not answer to this host name; console.hosts has those that it answers to.")

    @app.before_request
    def own_pages() -> None:
        if _is_foreign():
            abort(403, "The console answers to its own pages, not to those of other sites (Sec-Fetch-Site).")

    @app.after_request
    def guarded(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response


def _answer_problems(app: Flask) -> None:
    @app.errorhandler(LogweirError)
    def problem(error: LogweirError) -> Response:
        return _json(error.as_dict(), error.problem.status, "application/problem+json")

    @app.errorhandler(NotFound)
    def nothing_there(_: NotFound) -> Response:
        return problem(LogweirError(NOT_FOUND, path=request.path[:_PATH_SHOWN], advice=_WHAT_THERE_IS))

    @app.errorhandler(MethodNotAllowed)
    def other_method(error: MethodNotAllowed) -> Response:
        allowed = ", ".join(sorted(error.valid_methods or ()))
        answer = problem(
            LogweirError(
                METHOD_NOT_ALLOWED,
                path=request.path[:_PATH_SHOWN],
                method=request.method[:_PATH_SHOWN],
                allowed=allowed,
            )
        )
        answer.headers["Allow"] = allowed
        return answer

    @app.errorhandler(HTTPException)
    def http_problem(error: HTTPException) -> Response:
        status = error.code or 500
        detail = {"type": "about:blank", "title": error.name, "status": status, "detail": error.description}
        return _json(detail, status, "application/problem+json")


def _json(body: dict[str, Any], status: int, mimetype: str = "application/json") -> Response:
    return Response(safe_json(orjson.dumps(body, default=str).decode()), status, mimetype=mimetype)


def _is_foreign() -> bool:
    """Whether another site's page has a browser ask, which would have this machine search though it reads no answer.

    A link to a page may be followed from anywhere.
    """
    headers = request.headers
    if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return False
    is_followed = (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")
    is_page = request.path in ("/", "/alerts", "/rules") or request.path.startswith("/alerts/")
    return not (is_followed and request.method == "GET" and is_page)


def _is_one_of(header: str, hosts: tuple[str, ...]) -> bool:
    """Whether the Host header names one of the hosts; werkzeug's own check knows no IPv6 address in its list."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    known = [host.lower().strip("[]") for host in hosts]
    return name in known or any(name.endswith(host) or name == host[1:] for host in known if host.startswith("."))
