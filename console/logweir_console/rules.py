"""The rules' page and API: which there are, what they have found, and whether they are asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import Flask, render_template, request, url_for

from logweir import __version__
from logweir.alerts.alert import ALERTS, Reason, Status
from logweir.alerts.beginnings import read_beginnings
from logweir.alerts.catalogue import RULES, WHY_LENGTH_MAX, RuleState, change_state, read_catalogue
from logweir.clock import DAY_US, Clock, iso_seconds
from logweir.errors import PARAMETER_BAD, RULE_UNKNOWN, LogweirError
from logweir.ledger.documents import ALERTER
from logweir.query.tree import Term
from logweir.store.port import Store
from logweir.text import counted
from logweir_console import parameters
from logweir_console.api import TEXT, Parameter, Route

LIST_MAX = 1_000
_ALERTS_MAX = 10_000
"""Alerts that the page looks at for what became of rules' alerts."""
_ALERTS_AT_ONCE = 200
_JUDGED_US = 90 * DAY_US
_VERDICTS = (Reason.TRUE_POSITIVE, Reason.BENIGN, Reason.FALSE_POSITIVE)
_CHANGES = {
    "enable": (RuleState.ENABLED, "Have alerts made of what a rule finds."),
    "shadow": (RuleState.SHADOW, "Keep what a rule would have said, and make no alerts of it."),
    "disable": (RuleState.DISABLED, "Ask a rule no more."),
}
_RULE = {
    "type": "object",
    "required": ["name", "state", "is_there", "said", "history", "updated"],
    "properties": {
        "name": TEXT,
        "state": {"type": "string", "enum": [str(one) for one in RuleState]},
        "is_there": {"type": "boolean", "description": "It is in the files that an alerter reads."},
        "said": {"type": ["object", "null"], "description": "Who has said of its state what, when and why."},
        "history": {"type": "array", "items": {"type": "object"}},
        "updated": {"type": "string", "format": "date-time"},
        "severity": TEXT,
        "window": {"type": "string", "description": "What is asked of its matches."},
        "where": TEXT,
        "group": {"type": "array", "items": TEXT},
        "tags": {"type": "array", "items": TEXT},
        "runbook": TEXT,
        "origin": {"type": "object", "description": "Of a rule of Sigma's, what its author says of it."},
        "revision": TEXT,
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "parked": {"type": ["string", "null"], "description": "Why it is not evaluated: its own code fails."},
        "blind": {"type": ["array", "null"], "description": "What it needs that no event has brought for a week."},
        "since": {"type": ["string", "null"], "description": "Since when it counts what it counts now."},
        "begun": {"type": "object", "description": "The revision, and by partition the first offset it is asked of."},
        "backfills": {
            "type": "array",
            "items": {"type": "object"},
            "description": "When it was asked of stored events after all, and what came of it.",
        },
    },
}
_BY = Parameter("by", "Who says so.", {"type": "string", "minLength": 1, "maxLength": 64}, is_required=True)
_WHY = Parameter("why", "Why.", {"type": "string", "maxLength": WHY_LENGTH_MAX})


def add(app: Flask, store: Store, *, group: str, clock: Clock) -> None:
    """Give the application its page of rules."""

    @app.get("/rules")
    def rules_page() -> tuple[str, int]:
        given: dict[str, str] = {}
        problem, rows, total, cut, more = None, [], 0, 0, None
        try:
            given = parameters.read(request.query_string, ("state", "after"))
            bodies, total, after = _page_of(store, group, given)
            stood, cut = _standing(store, clock())
            rows = [_row(body, stood.get(body["name"], Stood())) for body in bodies]
            more = None if after is None else f"{url_for('rules_page')}?{urlencode({**given, 'after': after})}"
        except LogweirError as error:
            problem = error
        return render_template(
            "rules.html",
            states=("", *(str(one) for one in RuleState)),
            state=given.get("state", ""),
            rows=rows,
            total=counted(total, "rule", separator=",") + (f", {len(rows):,} shown" if more else ""),
            troubled=sum(bool(row["trouble"]) for row in rows),
            cut=cut,
            next=more,
            problem=problem,
            version=__version__,
        ), (200 if problem is None else problem.problem.status)


@dataclass(slots=True)
class Stood:
    """What became of a rule's alerts."""

    open: int = 0
    judged: int = 0
    """Closed with a verdict."""
    false: int = 0
    last: str = ""


def _standing(store: Store, now_us: int) -> tuple[dict[str, Stood], int]:
    """By rule, what became of its alerts of the last 90 days; and how many were looked at, if that is not all."""
    stood: dict[str, Stood] = defaultdict(Stood)
    after: tuple[Any, ...] | None = None
    # A page at a time: each alert has its evidence with it.
    for _ in range(_ALERTS_MAX // _ALERTS_AT_ONCE):
        page = store.documents.search(
            ALERTS, Term("kind", "alert"), size=_ALERTS_AT_ONCE, from_us=now_us - _JUDGED_US, after=after
        )
        for one in page.documents:
            body, row = one.body, stood[one.body["rule"]]
            row.last = max(row.last, body["last"])
            if body["status"] != Status.CLOSED:
                row.open += 1
            elif (reason := (body["closed"] or {}).get("reason")) in _VERDICTS:
                row.judged += 1
                row.false += reason == Reason.FALSE_POSITIVE
        after = page.after
        if after is None:
            return stood, 0
    return stood, _ALERTS_MAX


def _row(body: dict[str, Any], stood: Stood) -> dict[str, Any]:
    counts = body.get("counts") or {}
    if body.get("parked"):
        trouble = f"parked: {body['parked']}"
    elif body.get("blind"):
        trouble = f"blind: nothing has {', '.join(body['blind'])}"
    elif not body["is_there"]:
        trouble = "its file is gone"
    else:
        trouble = ""
    return {
        **body,
        "matches": counts.get("matches", 0),
        "excepted": counts.get("excepted", 0),
        "unevaluated": counts.get("unevaluated", 0),
        "offsets": ", ".join(
            f"{partition}: {at:,}" for partition, at in (body.get("begun") or {}).get("offsets", {}).items()
        ),
        "trouble": trouble,
        **{name: getattr(stood, name) for name in Stood.__slots__},
    }


def _page_of(store: Store, group: str, given: Mapping[str, str]) -> tuple[list[dict[str, Any]], int, str | None]:
    """Rules that are asked for, how many there are, and behind which name the others are.

    Raises LogweirError(PARAMETER_BAD).
    """
    state, size, after = given.get("state", ""), given.get("size") or str(LIST_MAX), given.get("after", "")
    if state not in ("", *(str(one) for one in RuleState)):
        raise LogweirError(PARAMETER_BAD, name="state", value=state, expected=f"one of {', '.join(RuleState)}")
    if not (size.isascii() and size.isdigit() and len(size) < 6 and 1 <= int(size) <= LIST_MAX):
        raise LogweirError(PARAMETER_BAD, name="size", value=size[:100], expected=f"from 1 to {LIST_MAX}")
    found, has_gone = _counted(store, group), given.get("gone") == "yes"
    bodies = [
        {**one.body, **found.get(name, {})}
        for name, one in sorted(read_catalogue(store.documents).items())
        if name > after and state in ("", one.body["state"]) and (one.body["is_there"] or has_gone)
    ]
    rows = bodies[: int(size)]
    return rows, len(bodies), (rows[-1]["name"] if len(bodies) > len(rows) else None)


def routes(store: Store, *, group: str, clock: Clock) -> list[Route]:
    """The API's routes for rules. ``group``: that of the workers, whose alerters evaluate them."""

    def listed(_: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        bodies, total, after = _page_of(store, group, given)
        return {"total": total, "rules": bodies, "after": after}

    def shown(named: Mapping[str, str], _: Mapping[str, str]) -> dict[str, Any]:
        name = named["name"]
        return {**_body(store, name), **_counted(store, group).get(name, {})}

    def changed(state: RuleState, named: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        by, name = parameters.name_of(given), named["name"]
        _body(store, name)
        return change_state(store.documents, name, state, by=by, why=given.get("why", ""), now_us=clock()).body

    return [
        Route(
            "GET",
            "/api/rules",
            "rules",
            "The rules that there are, by name.",
            {
                "type": "object",
                "required": ["total", "rules", "after"],
                "properties": {
                    "total": {"type": "integer"},
                    "rules": {"type": "array", "items": _RULE},
                    "after": {"type": ["string", "null"]},
                },
            },
            listed,
            (
                Parameter("state", "Only those in this state.", {"type": "string", "enum": [*RuleState]}),
                Parameter("gone", "yes: also those whose file is not there any more.", {"enum": ["yes"]}),
                Parameter("size", "Most rules of one answer.", {"type": "integer", "minimum": 1, "maximum": LIST_MAX}),
                Parameter("after", "What an answer gave as after: go on behind it.", TEXT),
            ),
        ),
        Route(
            "GET", "/api/rules/{name}", "rule", "One rule, with what it has found.", _RULE, shown, (), (RULE_UNKNOWN,)
        ),
        *(
            Route(
                "POST",
                f"/api/rules/{{name}}/{change}",
                f"{change}_rule",
                summary,
                _RULE,
                _with_state(changed, state),
                (_BY, _WHY),
                (RULE_UNKNOWN,),
            )
            for change, (state, summary) in _CHANGES.items()
        ),
    ]


def _with_state(changed: Any, state: RuleState) -> Any:
    return lambda named, given: changed(state, named, given)


def _body(store: Store, name: str) -> dict[str, Any]:
    """Raises LogweirError(RULE_UNKNOWN)."""
    stored = store.documents.get(RULES, [name]).get(name)
    if stored is None:
        raise LogweirError(RULE_UNKNOWN, name=name[:100], nearest="")
    return stored.body


def _counted(store: Store, group: str) -> dict[str, dict[str, Any]]:
    """By rule, what the alerters' checkpoints say of it."""
    found: dict[str, dict[str, Any]] = {
        name: {"since": iso_seconds(begun.at.since_us), "begun": {"revision": begun.revision, **begun.as_json()}}
        for name, begun in read_beginnings(store, group).items()
    }
    for _, document in ALERTER.scan(store.ledger, group):
        for name, row in document.body["rules"].items():
            found[name] = {
                **{member: row.get(member) for member in ("counts", "parked", "since", "blind")},
                **found.get(name, {}),
            }
    return found
