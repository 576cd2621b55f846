"""The page with a search and its hits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import orjson
from flask import render_template, url_for

from logweir import __version__
from logweir.errors import LogweirError
from logweir.query.tree import TIME_FIELDS
from logweir.store.port import Count, Hits
from logweir_console import parameters
from logweir_console.parameters import Search

SINCE_CHOICES = ("15m", "1h", "24h", "7d", "30d")
SINCE_DEFAULT = "24h"
_COLUMNS = ("hostname", "category", "processname", "severity", "summary")


def page(query: bytes, found: Callable[[Search, int], tuple[Hits, Count]], now_us: int) -> tuple[str, int]:
    """The page that a URL's query asks for and its status: with the hits, or with the problem in their place."""
    given: dict[str, str] = {}
    since, search = SINCE_DEFAULT, Search()
    hits, count, problem, status = None, Count(0), None, 200
    try:
        given = parameters.read(query, (*parameters.NAMES, "since"))
        # What is written counts, and not what is chosen beside it.
        since = "" if given.get("from") else given.get("since", SINCE_DEFAULT)
        named = {name: value for name, value in given.items() if name != "since"}
        search = Search.of({**named, "from": given.get("from") or since})
        hits, count = found(search, now_us)
    except LogweirError as error:
        problem, status = error, error.problem.status
    shown = hits.events if hits else []
    return render_template(
        "search.html",
        search=search,
        from_=given.get("from", ""),
        since=since,
        since_choices=SINCE_CHOICES if since in ("", *SINCE_CHOICES) else (*SINCE_CHOICES, since),
        time_fields=TIME_FIELDS,
        columns=_COLUMNS,
        rows=[_row(event, search.time_field) for event in shown],
        total=_total(count, len(shown)) if hits else "",
        cut=hits is not None and search.is_cut(hits),
        older=_url("index", urlencode({**given, "after": orjson.dumps(hits.after)})) if hits and hits.after else None,
        as_json=_url("api_search", search.as_query(now_us)) if hits else _url("api_search", ""),
        problem=problem,
        version=__version__,
    ), status


def _url(endpoint: str, query: str) -> str:
    # Not as arguments of url_for, which gives some names a meaning of its own.
    return f"{url_for(endpoint)}?{query}" if query else url_for(endpoint)


def _total(count: Count, shown: int) -> str:
    total = count.said(seen=shown, separator=",")
    return total if count == Count(shown) else f"{total}, {shown} shown"


def _row(event: dict[str, Any], time_field: str) -> dict[str, Any]:
    """What the page shows of an event: a line, and all of it as JSON to open."""
    return {
        "time": event.get(time_field, ""),
        "cells": [event.get(name, "") for name in _COLUMNS],
        "json": orjson.dumps(event, option=orjson.OPT_INDENT_2).decode(),
    }
