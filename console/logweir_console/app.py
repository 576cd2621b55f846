"""The console's pages and API: search, for now.

``GET /``            a page with a search box and its hits; works without JavaScript
``GET /api/search``  the same search as JSON
``GET /healthz``     200 while the process answers
``GET /metrics``     for Prometheus
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import Flask, Response, abort, render_template, request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException

from logweir import __version__
from logweir.clock import Clock, now_us
from logweir.config import ConsoleSettings
from logweir.errors import PARAMETER_BAD, LogweirError
from logweir.metrics import registry
from logweir.query.parse import parse
from logweir.query.times import time_bounds
from logweir.query.tree import PAGE_MAX, TIME_FIELDS
from logweir.store.port import Hits, Store

SIZE_DEFAULT = 100
SINCE_CHOICES = ("15m", "1h", "24h", "7d", "30d")
SINCE_DEFAULT = "24h"
_COLUMNS = ("hostname", "category", "processname", "severity", "summary")
_PARAMETERS = ("q", "from", "to", "size", "time_field", "after")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class _Search:
    """The parameters of one search, as they were sent; ``run`` reads them."""

    q: str
    from_: str
    to: str
    size: str
    time_field: str
    after: str

    @classmethod
    def of(cls, parameters: MultiDict[str, str]) -> _Search:
        names = {"q": "*", "to": "", "size": str(SIZE_DEFAULT), "time_field": TIME_FIELDS[0], "after": ""}
        values = {name: parameters.get(name, "").strip() or default for name, default in names.items()}
        return cls(from_=parameters.get("from", "").strip(), **values)

    def run(self, store: Store, now: int) -> Hits:
        """Raises LogweirError for whatever cannot be read, and what the store raises."""
        from_us, to_us = time_bounds(self.from_, self.to, now)
        return store.search(
            parse(self.q),
            size=self._size(),
            from_us=from_us,
            to_us=to_us,
            time_field=self.time_field,
            after=self._after(),
        )

    def _size(self) -> int:
        if not (self.size.isascii() and self.size.isdigit() and int(self.size[:9]) <= PAGE_MAX):
            expected = f"a whole number from 0 to {PAGE_MAX}"
            raise LogweirError(PARAMETER_BAD, name="size", value=self.size, expected=expected)
        return int(self.size[:9])

    def _after(self) -> tuple[int, str, int] | None:
        if not self.after:
            return None
        try:
            moment, stream, number = orjson.loads(self.after)
        except (ValueError, TypeError):
            moment = stream = number = None
        if not (isinstance(moment, int) and isinstance(stream, str) and isinstance(number, int)):
            raise LogweirError(PARAMETER_BAD, name="after", value=self.after, expected="what an answer gave as after")
        return moment, stream, number


def _require_known(parameters: MultiDict[str, str]) -> None:
    """Raises LogweirError(PARAMETER_BAD): a misspelt q would find everything, and nobody would notice."""
    for name, value in parameters.items():
        if name not in _PARAMETERS:
            raise LogweirError(PARAMETER_BAD, name=name, value=value[:100], expected=f"one of {', '.join(_PARAMETERS)}")


def make_app(settings: ConsoleSettings, store: Store, *, clock: Clock = now_us) -> Flask:
    """The console over a store."""
    app = Flask(__name__)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    own_hosts = ("127.0.0.1", "localhost", "::1", settings.address) if _is_loopback(settings.address) else ()
    hosts = settings.hosts or own_hosts

    # No login yet. A foreign page whose host name is made to resolve to this machine must not read the logs.
    # Prometheus calls whatever it finds by its address, and gets no logs.
    @app.before_request
    def answered_host() -> None:
        if hosts and request.path != "/metrics" and not _is_one_of(request.headers.get("Host", ""), hosts):
            abort(400, "The console does not answer to this host name; console.hosts has those that it answers to.")

    @app.get("/")
    def index() -> tuple[str, int]:
        return _page(request.args, store, clock())

    @app.get("/api/search")
    def api_search() -> Response:
        _require_known(request.args)
        started = time.monotonic()
        hits = _Search.of(request.args).run(store, clock())
        took_ms = round((time.monotonic() - started) * 1000)
        return _json({"total": hits.total, "hits": hits.events, "took_ms": took_ms, "after": hits.after}, 200)

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @app.get("/metrics")
    def metrics_of_this_process() -> Response:
        text, content_type = registry.exposition()
        return Response(text, content_type=content_type)

    @app.errorhandler(LogweirError)
    def problem(error: LogweirError) -> Response:
        return _json(error.as_dict(), error.problem.status, "application/problem+json")

    @app.errorhandler(HTTPException)
    def http_problem(error: HTTPException) -> Response:
        status = error.code or 500
        detail = {"type": "about:blank", "title": error.name, "status": status, "detail": error.description}
        return _json(detail, status, "application/problem+json")

    @app.after_request
    def guarded(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return app


def _page(parameters: MultiDict[str, str], store: Store, now: int) -> tuple[str, int]:
    """The page with the hits, or with the problem in their place."""
    since = parameters.get("since", "" if parameters.get("from") else SINCE_DEFAULT)
    search = _Search.of(MultiDict({**parameters.to_dict(), "from": parameters.get("from") or since}))
    hits, problem, status = None, None, 200
    try:
        hits = search.run(store, now)
    except LogweirError as error:
        problem, status = error, error.problem.status
    older = None
    if hits is not None and hits.after is not None:
        older = {**parameters.to_dict(), "after": orjson.dumps(hits.after).decode()}
    shown = hits.events if hits else []
    rows = [_row(event, search.time_field) for event in shown]
    names = {"columns": _COLUMNS, "since_choices": SINCE_CHOICES, "time_fields": TIME_FIELDS, "version": __version__}
    given = {"search": search, "from_": parameters.get("from", ""), "since": since}
    page = render_template("search.html", **names, **given, hits=hits, rows=rows, problem=problem, older=older)
    return page, status


def _row(event: dict[str, Any], time_field: str) -> dict[str, Any]:
    """What the page shows of an event: a line, and all of it as JSON to open."""
    return {
        "time": event.get(time_field, ""),
        "cells": [event.get(name, "") for name in _COLUMNS],
        "json": orjson.dumps(event, option=orjson.OPT_INDENT_2).decode(),
    }


def _json(body: dict[str, Any], status: int, mimetype: str = "application/json") -> Response:
    return Response(orjson.dumps(body, default=str), status, mimetype=mimetype)


def _is_one_of(header: str, hosts: tuple[str, ...]) -> bool:
    """Whether the Host header names one of the hosts; werkzeug's own check knows no IPv6 address in its list."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    known = [host.lower().strip("[]") for host in hosts]
    return name in known or any(name.endswith(host) or name == host[1:] for host in known if host.startswith("."))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
