"""The alerts' pages and their part of the API: list, one alert, and what people change of it.

``GET /alerts``, ``GET /alerts/ID``    pages, which work without JavaScript
``POST /alerts/ID/CHANGE``             a form of the page: ack, assign, note, snooze, close or reopen

The API (``api.py``) does the same with JSON. Who may change what, ``guard.py`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

import orjson
from flask import Flask, redirect, render_template, request, url_for

from logweir import __version__
from logweir.alerts import alert
from logweir.alerts.alert import ALERTS, NOTE_LENGTH_MAX, Reason, Status, query_of
from logweir.alerts.exceptions import RuleException, fields_of, made_from
from logweir.alerts.rules import SEVERITIES
from logweir.clock import Clock, duration_in_words
from logweir.errors import (
    ALERT_AMBIGUOUS,
    ALERT_UNFIT,
    ALERT_UNKNOWN,
    DOCUMENT_CHANGED,
    PARAMETER_BAD,
    QUERY_BAD,
    QUERY_FIELD_UNKNOWN,
    QUERY_OPERATOR_UNFIT,
    TIME_BAD,
    LogweirError,
)
from logweir.event import Kind
from logweir.query.times import time_bounds, time_from_now
from logweir.store.port import Store
from logweir.text import counted
from logweir_console import exceptions as exceptions_api
from logweir_console import parameters
from logweir_console.api import TEXT, Parameter, Route
from logweir_console.guard import Guard
from logweir_console.parameters import NAME_LENGTH_MAX

BODY_SIZE_BYTES_MAX = 64 * 1024
LIST_MAX = 200
SINCE_CHOICES = ("1h", "24h", "7d", "30d")
SINCE_DEFAULT = "7d"
_BARS = 60
_MINUTE_US = 60_000_000
_NAME_COOKIE = "logweir_name"
"""The name of who changed something last, for the next form."""
_BY = Parameter("by", "Who says so.", {**TEXT, "minLength": 1, "maxLength": NAME_LENGTH_MAX}, is_required=True)
CHANGES: dict[str, tuple[str, tuple[Parameter, ...]]] = {
    "ack": ("Somebody looks after it.", ()),
    "assign": ("Somebody else looks after it, or nobody.", (Parameter("to", "Who; empty: nobody.", TEXT),)),
    "note": (
        "Something to remember.",
        (Parameter("text", "What.", {**TEXT, "minLength": 1, "maxLength": NOTE_LENGTH_MAX}, is_required=True),),
    ),
    "snooze": (
        "Nobody wants to hear of it for a while.",
        (Parameter("until", "Until when: 2h, 1d, or a time as ISO 8601.", TEXT, is_required=True),),
    ),
    "close": (
        "It is done with.",
        (
            Parameter("reason", "Why.", {**TEXT, "enum": [str(one) for one in Reason]}, is_required=True),
            Parameter("comment", "What else is to be said.", {**TEXT, "maxLength": NOTE_LENGTH_MAX}),
        ),
    ),
    "reopen": ("It is not done with.", ()),
}
"""What can be done with an alert, and what has to be sent for it beside ``by``."""
_FILTERS = (
    Parameter("q", "What to look for, in the search language.", TEXT),
    Parameter("since", "Only what changed since: 1h, 7d, or a time as ISO 8601 (7d).", TEXT),
    Parameter("status", "Only those; all: also closed ones.", {**TEXT, "enum": ["all", *(str(one) for one in Status)]}),
    Parameter("severity", "Only those.", {**TEXT, "enum": list(SEVERITIES)}),
    Parameter("near_misses", "yes: what could have fired with events that are missing.", {"enum": ["yes"]}),
    Parameter("shadow", "yes: what shadowed rules would have said.", {"enum": ["yes"]}),
    Parameter("size", "Most alerts of one answer.", {"type": "integer", "minimum": 1, "maximum": LIST_MAX}),
    Parameter("after", "What an answer gave as after: go on behind it.", TEXT),
)
_NAMES = tuple(one.name for one in _FILTERS)
_QUERY_PROBLEMS = (QUERY_BAD, QUERY_FIELD_UNKNOWN, QUERY_OPERATOR_UNFIT, TIME_BAD)
_SCHEMAS: dict[Kind, dict[str, Any]] = {
    Kind.KEYWORD: {"type": "string"},
    Kind.TEXT: {"type": "string"},
    Kind.NUMBER: {"type": "integer"},
    Kind.DATE: {"type": "string", "format": "date-time"},
}
_ALERT: dict[str, Any] = {
    "type": "object",
    "required": ["id", "status", "assignee", "notes", "closed", "history", "created"],
    "properties": {
        **{field.name: {**_SCHEMAS[field.kind], "description": field.help} for field in ALERTS.fields},
        "assignee": {"type": ["string", "null"], "description": "Who looks after it."},
        "tags": {"type": "array", "items": TEXT},
        "group": {"type": "object", "additionalProperties": TEXT},
        "notes": {"type": "array", "items": {"type": "object"}},
        "snoozed_until": {"type": ["string", "null"], "description": "Until when nobody wants to hear of it."},
        "closed": {"type": ["object", "null"], "description": "When, by whom, and for which reason."},
        "history": {"type": "array", "items": {"type": "object"}},
        "evidence": {"type": "array", "items": {"type": "object"}, "description": "Its first events."},
        "evidence_last": {"type": "array", "items": {"type": "object"}, "description": "Its last events."},
        "completeness": {"type": "object", "description": "Whether it could be wrong: state, missing, emitters."},
        "late": {"type": ["object", "null"]},
        "previous": {"type": ["string", "null"], "description": "The alert that it goes on from, which was closed."},
        "search": {"type": "object", "description": "A search for all of its events."},
        "finding": {"type": "object", "description": "Of an alert about the accounting: numbers, hosts, blind rules."},
        "storm": {"type": "object", "description": "Of one that many groups are folded in: how many."},
    },
}
del _ALERT["properties"]["reason"]  # It is in ``closed``.
_FIELDS_OFFERED_MAX = 40
_SHOWN = {"complete": "complete", "incomplete": "incomplete", "open": "not known yet"}


def add(app: Flask, guard: Guard, store: Store, *, clock: Clock) -> None:
    """Give the application its pages for alerts."""

    @app.get("/alerts")
    def alerts() -> tuple[str, int]:
        return _list_page(store, request.query_string, clock())

    @app.get("/alerts/<id>")
    def one_alert(id: str) -> tuple[str, int]:
        try:
            body = alert.find(store.documents, id).body
        except LogweirError as error:
            return _problem_page(error, url_for("alerts"), "All alerts"), error.problem.status
        return _page(body, guard, clock(), made_from(store.documents, body["id"])), 200

    @app.post("/alerts/<id>/<any(ack, assign, note, snooze, close, reopen):change>")
    def change_by_form(id: str, change: str) -> Any:
        try:
            guard.require_form(request.form.get("token", ""))
            found = alert.find(store.documents, id)
            alert.change(store.documents, found.id, change_of(change, request.form, clock()))
        except LogweirError as error:
            return _problem_page(error, url_for("one_alert", id=id), "Back to the alert"), error.problem.status
        answer = redirect(url_for("one_alert", id=found.id), 303)
        return _remembering(answer)

    @app.post("/alerts/<id>/except")
    def except_by_form(id: str) -> Any:
        try:
            guard.require_form(request.form.get("token", ""))
            found = alert.find(store.documents, id)
            given = {**request.form, "alert": found.id, "fields": request.form.getlist("field")}
            exceptions_api.make(store.documents, given, now_us=clock())
        except LogweirError as error:
            return _problem_page(error, url_for("one_alert", id=id), "Back to the alert"), error.problem.status
        return _remembering(redirect(url_for("one_alert", id=found.id, _anchor="exceptions"), 303))

    def _remembering(answer: Any) -> Any:
        """With the name of who changes something, so that nobody types it into every form."""
        name = parameters.name_of(request.form)
        answer.set_cookie(_NAME_COOKIE, name, path=url_for("alerts"), samesite="Strict", httponly=True)
        return answer


def routes(store: Store, *, clock: Clock) -> list[Route]:
    """The API's routes for alerts."""

    def listed(_: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        page = _Listed(given).read(store, clock())
        after = None if page.after is None else orjson.dumps(page.after).decode()
        return {"total": page.total, "alerts": [one.body for one in page.documents], "after": after}

    def shown(named: Mapping[str, str], _: Mapping[str, str]) -> dict[str, Any]:
        return alert.find(store.documents, named["id"]).body

    def changed(change: str, named: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        made = change_of(change, given, clock())
        return alert.change(store.documents, alert.find(store.documents, named["id"]).id, made).body

    answer = {
        "type": "object",
        "required": ["total", "alerts", "after"],
        "properties": {
            "total": {"type": "integer"},
            "alerts": {"type": "array", "items": _ALERT},
            "after": {"type": ["string", "null"]},
        },
    }
    return [
        Route("GET", "/api/alerts", "alerts", "Alerts, the newest first.", answer, listed, _FILTERS, _QUERY_PROBLEMS),
        Route("GET", "/api/alerts/{id}", "alert", "One alert.", _ALERT, shown, (), (ALERT_UNKNOWN, ALERT_AMBIGUOUS)),
        *(
            Route(
                "POST",
                f"/api/alerts/{{id}}/{change}",
                f"{change}_alert",
                summary,
                _ALERT,
                partial(changed, change),
                (_BY, *sent),
                (ALERT_UNKNOWN, ALERT_AMBIGUOUS, ALERT_UNFIT, DOCUMENT_CHANGED, TIME_BAD),
            )
            for change, (summary, sent) in CHANGES.items()
        ),
    ]


def change_of(name: str, given: Mapping[str, str], now_us: int) -> alert.Change:
    """The change that a form or an object asks for. Raises LogweirError(PARAMETER_BAD)."""
    by = parameters.name_of(given)
    if name == "ack":
        return alert.acknowledge(by, now_us)
    if name == "assign":
        to = given.get("to", "").strip()
        if len(to) > NAME_LENGTH_MAX:
            raise LogweirError(PARAMETER_BAD, name="to", value=to, expected=f"at most {NAME_LENGTH_MAX} characters")
        return alert.assign(by, now_us, to=to or None)
    if name == "note":
        return alert.note(by, now_us, text=given.get("text", ""))
    if name == "snooze":
        return alert.snooze(by, now_us, until_us=time_from_now(given.get("until", ""), now_us))
    if name == "close":
        reason = given.get("reason", "")
        if reason not in [str(one) for one in Reason]:
            raise LogweirError(PARAMETER_BAD, name="reason", value=reason, expected=f"one of {', '.join(Reason)}")
        return alert.close(by, now_us, reason=Reason(reason), comment=given.get("comment", ""))
    return alert.reopen(by, now_us)


# --- the list -----------------------------------------------------------------------------------------------------
class _Listed:
    """Which alerts are asked for."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = dict(given)
        self.q = given.get("q", "")
        self.since = given.get("since", SINCE_DEFAULT)
        self.status = given.get("status", "")
        self.severity = given.get("severity", "")
        is_shadow, is_near_miss = (given.get(name, "") == "yes" for name in ("shadow", "near_misses"))
        self.kind = "shadow" if is_shadow else "near_miss" if is_near_miss else "alert"
        if self.status not in ("", "all", *(str(one) for one in Status)):
            raise LogweirError(PARAMETER_BAD, name="status", value=self.status, expected=f"one of {', '.join(Status)}")
        if self.severity not in ("", *SEVERITIES):
            expected = f"one of {', '.join(SEVERITIES)}"
            raise LogweirError(PARAMETER_BAD, name="severity", value=self.severity, expected=expected)

    @classmethod
    def of(cls, query: bytes) -> _Listed:
        """Raises LogweirError(PARAMETER_BAD)."""
        return cls(parameters.read(query, _NAMES))

    def read(self, store: Store, now_us: int) -> Any:
        """Raises LogweirError for what cannot be read, and what the store raises."""
        query = query_of(
            self.q,
            with_closed=self.status in ("all", Status.CLOSED),
            kind=self.kind,
            status=self.status if self.status not in ("", "all") else None,
            severity=self.severity or None,
        )
        from_us, _ = time_bounds(self.since, "", now_us)
        size = self.given.get("size") or str(LIST_MAX)
        if not (size.isascii() and size.isdigit() and len(size) < 5 and 1 <= int(size) <= LIST_MAX):
            raise LogweirError(PARAMETER_BAD, name="size", value=size, expected=f"from 1 to {LIST_MAX}")
        return store.documents.search(ALERTS, query, size=int(size), from_us=from_us, after=self._after())

    def _after(self) -> tuple[int, str] | None:
        text = self.given.get("after")
        if not text:
            return None
        try:
            moment, id = orjson.loads(text)
        except (ValueError, TypeError):
            moment = id = None
        if type(moment) is not int or type(id) is not str or len(id) > 100:
            raise LogweirError(PARAMETER_BAD, name="after", value=text[:100], expected="what an answer gave as after")
        return moment, id

    def link(self, **changed: str) -> str:
        """The list with some of its filters changed; an empty value takes one away."""
        named = {**self.given, **changed}
        named.pop("after", None) if "after" not in changed else None
        return f"{url_for('alerts')}?{urlencode({name: value for name, value in named.items() if value})}"


def _list_page(store: Store, query: bytes, now_us: int) -> tuple[str, int]:
    listed, problem, page, status = _Listed({}), None, None, 200
    try:
        listed = _Listed.of(query)
        page = listed.read(store, now_us)
    except LogweirError as error:
        problem, status = error, error.problem.status
    bodies = [one.body for one in page.documents] if page else []
    older = page.after if page else None
    return render_template(
        "alerts.html",
        listed=listed,
        rows=[_row(body, now_us) for body in bodies],
        total=_total(page.total, len(bodies)) if page else "",
        bars=_bars(bodies, now_us) if bodies else [],
        older=listed.link(after=orjson.dumps(older).decode()) if older else None,
        statuses=("", *(str(one) for one in Status), "all"),
        severities=("", *SEVERITIES),
        since_choices=SINCE_CHOICES if listed.since in SINCE_CHOICES else (*SINCE_CHOICES, listed.since),
        problem=problem,
        version=__version__,
    ), status


def _total(total: int, shown: int) -> str:
    text = counted(total, "alert", separator=",")
    return text if shown == total else f"{text}, {shown} shown"


def _row(body: Mapping[str, Any], now_us: int) -> dict[str, Any]:
    return {
        **body,
        "age": _age(body["last"], now_us),
        "group_text": ", ".join(body["group"].values()),
        "completeness_text": _completeness(body["completeness"]),
    }


def _completeness(completeness: Mapping[str, Any]) -> str:
    missing = completeness.get("missing")
    return f"{missing:,} missing" if missing else _SHOWN[completeness["state"]]


def _age(time: str, now_us: int) -> str:
    """How long ago, in the largest unit that fits: 42s, 12m, 3h, 9d."""
    seconds = max(0, now_us // 1_000_000 - int(datetime.fromisoformat(time).timestamp()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _bars(bodies: list[dict[str, Any]], now_us: int) -> list[dict[str, Any]]:
    """How many of the alerts were made in each part of the time that they cover, by severity; for a picture."""
    times = [int(datetime.fromisoformat(body["created"]).timestamp()) for body in bodies]
    begin, end = min(times), max(now_us // 1_000_000, max(times) + 1)
    width = max(60, -(-(end - begin + 1) // _BARS))
    bars: list[dict[str, Any]] = [
        {"from": begin + width * number, "counts": dict.fromkeys(SEVERITIES, 0)}
        for number in range((end - begin) // width + 1)
    ]
    for time, body in zip(times, bodies, strict=True):
        bars[(time - begin) // width]["counts"][body["severity"]] += 1
    most = max(sum(bar["counts"].values()) for bar in bars)
    for number, bar in enumerate(bars):
        top = 48.0
        bar["x"], bar["width"] = round(600 / len(bars) * number, 1), round(max(1.0, 600 / len(bars) - 1), 1)
        bar["total"] = sum(bar["counts"].values())
        bar["time"] = datetime.fromtimestamp(bar["from"]).astimezone().isoformat(timespec="minutes")
        bar["parts"] = []
        for severity in reversed(SEVERITIES):
            height = round(48 * bar["counts"][severity] / most, 1)
            top = round(top - height, 1)
            if height:
                bar["parts"].append({"severity": severity, "y": top, "height": height})
    return bars


# --- one alert ----------------------------------------------------------------------------------------------------
def _page(body: dict[str, Any], guard: Guard, now_us: int, exceptions: list[RuleException]) -> str:
    events = [*body["evidence"], *body["evidence_last"]]
    return render_template(
        "alert.html",
        alert={**_row(body, now_us), "runbook": body.get("runbook") or ""},
        events=[
            {
                "time": one["event"].get("timestamp", ""),
                "host": one["event"].get("hostname", ""),
                "summary": one["event"].get("summary", ""),
                "number": f"{one['ingest_number']} of {one['ingest_stream']}",
                "json": orjson.dumps(one, option=orjson.OPT_INDENT_2).decode(),
            }
            for one in events
        ],
        exceptions=exceptions,
        fields=[] if body.get("finding") else fields_of(body)[:_FIELDS_OFFERED_MAX],
        search=_search_link(body["search"]),
        may_change=guard.is_local,
        token=guard.form_token,
        reasons=[str(one) for one in Reason],
        history=[{"time": one.get("time"), "sentence": alert.sentence(one)} for one in body["history"]],
        by=request.cookies.get(_NAME_COOKIE, "")[:NAME_LENGTH_MAX],
        counted=counted,
        duration_in_words=duration_in_words,
        note_length_max=NOTE_LENGTH_MAX,
        name_length_max=NAME_LENGTH_MAX,
        version=__version__,
    )


def _search_link(search: Mapping[str, str]) -> str | None:
    """The console's search for all of an alert's events."""
    if not search:
        return None
    named = {"q": search["query"], "from": search["from"], "to": search["to"], "time_field": search["time_field"]}
    return f"{url_for('index')}?{urlencode(named)}"


def _problem_page(error: LogweirError, back: str, back_words: str) -> str:
    return render_template("problem.html", problem=error, back=back, back_words=back_words, version=__version__)
