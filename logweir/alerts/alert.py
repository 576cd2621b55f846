"""The alert: what the engine writes of it, what people write, and who may change what.

One document. The engine's fields say what was found; people's say what they think of it. Whoever writes takes over the
other's fields as they are, and names the version that was read: neither ever undoes the other.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from logweir.alerts.rules import SEVERITIES
from logweir.clock import iso_seconds
from logweir.errors import ALERT_UNFIT, ALERT_UNKNOWN, DOCUMENT_CHANGED, PARAMETER_BAD, LogweirError
from logweir.event import Field, Kind
from logweir.query.parse import parse
from logweir.query.tree import And, Node, Not, Prefix, Term
from logweir.store.documents import DocumentSet, OwnDocument
from logweir.store.port import Documents

NOTES_MAX = 200
NOTE_LENGTH_MAX = 4_000
HISTORY_MAX = 1_000
"""Lines of history kept; of more, the second to the last of them are counted in one line."""
_TRIES_MAX = 20


class Status(StrEnum):
    """What people have made of an alert."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    SNOOZED = "snoozed"


class Reason(StrEnum):
    """Why an alert was closed."""

    TRUE_POSITIVE = "true_positive"
    BENIGN = "benign"
    FALSE_POSITIVE = "false_positive"
    DUPLICATE = "duplicate"
    TEST = "test"


PEOPLES = ("status", "assignee", "notes", "snoozed_until", "closed")
"""The fields that people change; ``history`` gets lines from both."""

FIELDS = (
    Field("id", Kind.KEYWORD, "The alert's id."),
    Field(
        "kind",
        Kind.KEYWORD,
        "alert; near_miss: it could be one with what is missing; shadow: of a shadowed rule.",
    ),
    Field("rule", Kind.KEYWORD, "The name of its rule."),
    Field("revision", Kind.KEYWORD, "The rule's revision."),
    Field("severity", Kind.KEYWORD, f"{', '.join(SEVERITIES)}."),
    Field("summary", Kind.TEXT, "What happened, in one line."),
    Field("category", Kind.KEYWORD, "What the rule is about."),
    Field("tags", Kind.KEYWORD, "The rule's labels."),
    Field("group", Kind.KEYWORD, "The values that its events have in common."),
    Field("count", Kind.NUMBER, "How many events."),
    Field("first", Kind.DATE, "When the first of them happened."),
    Field("last", Kind.DATE, "When the last of them happened."),
    Field("created", Kind.DATE, "When the alert was made."),
    Field("updated", Kind.DATE, "When the engine last changed it."),
    Field("status", Kind.KEYWORD, f"{', '.join(Status)}."),
    Field("assignee", Kind.KEYWORD, "Who looks after it."),
    Field("reason", Kind.KEYWORD, f"Why it was closed: {', '.join(Reason)}."),
    Field("completeness", Kind.KEYWORD, "complete, incomplete, or open: that is not known yet."),
    Field("late", Kind.KEYWORD, "yes, where events came so late that the alert did, too."),
    Field("notes", Kind.TEXT, "What people wrote."),
)


def _view(body: dict[str, Any]) -> dict[str, Any]:
    view = {field.name: body.get(field.name) for field in FIELDS}
    view["group"] = list(body.get("group", {}).values())
    view["reason"] = (body.get("closed") or {}).get("reason")
    view["completeness"] = (body.get("completeness") or {}).get("state")
    view["late"] = "yes" if body.get("late") else None
    view["notes"] = "\n".join(note["text"] for note in body.get("notes", ())) or None
    return {name: value for name, value in view.items() if value not in (None, [])}


ALERTS = DocumentSet("alerts", FIELDS, "updated", _view)
"""The alerts of an installation."""


def opened(id: str, *, created_us: int) -> dict[str, Any]:
    """What people's part of a new alert is, with the first line of its history."""
    return {
        "id": id,
        "created": iso_seconds(created_us),
        "status": Status.OPEN.value,
        "assignee": None,
        "notes": [],
        "snoozed_until": None,
        "closed": None,
        "history": [line(created_us, by="logweir", change="opened")],
    }


def line(time_us: int, *, by: str, change: str, **more: Any) -> dict[str, Any]:
    """One line of a history: when, by whom, what; ``before`` and ``after`` where something has another value since."""
    return {"time": iso_seconds(time_us), "by": by, "change": change, **more}


def with_line(body: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """The body with one more line in its history."""
    history = [*body["history"], added]
    if len(history) > HISTORY_MAX:
        left_out = history[1].get("left_out", 1) + 1
        history = [history[0], {"change": "left out", "left_out": left_out}, *history[3:]]
    return {**body, "history": history}


# --- what people change -------------------------------------------------------------------------------------------
Change = Callable[[dict[str, Any]], dict[str, Any]]
"""An alert's body to the body after the change. Raises LogweirError."""


def change(documents: Documents, id: str, by_person: Change) -> OwnDocument:
    """Apply a change to the alert as it is now, also when others write at the same time; the alert afterwards.

    Raises LogweirError: ALERT_UNKNOWN, whatever the change raises, DOCUMENT_CHANGED when others never stop writing.
    """
    for attempt in range(_TRIES_MAX):
        stored = documents.get(ALERTS, [id]).get(id)
        if stored is None:
            raise LogweirError(ALERT_UNKNOWN, id=id, count="is no alert")
        body = by_person(stored.body)
        try:
            version = documents.put(ALERTS, id, body, version=stored.version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED or attempt == _TRIES_MAX - 1:
                raise
            continue
        return OwnDocument(id, version, body)
    raise AssertionError("the last attempt returns or raises")


def acknowledge(by: str, now_us: int) -> Change:
    """Somebody looks after it; who says so is its assignee, if it had none."""

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        _require_not(body, "acknowledged", Status.CLOSED, "Reopen it first.")
        assigned = {**body, "assignee": body["assignee"] or by}
        return _with_status(assigned, Status.ACKNOWLEDGED, by, now_us)

    return changed


def assign(by: str, now_us: int, *, to: str | None) -> Change:
    """Somebody else looks after it, or nobody."""

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        added = line(now_us, by=by, change="assignee", before=body["assignee"], after=to)
        return with_line({**body, "assignee": to}, added)

    return changed


def note(by: str, now_us: int, *, text: str) -> Change:
    """Something to remember. Raises LogweirError(PARAMETER_BAD) for one that is empty, too long, or one too many."""
    if not 0 < len(text.strip()) <= NOTE_LENGTH_MAX:
        raise LogweirError(PARAMETER_BAD, name="note", value=text[:40], expected=f"1 to {NOTE_LENGTH_MAX} characters")

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        if len(body["notes"]) >= NOTES_MAX:
            raise LogweirError(PARAMETER_BAD, name="note", value=text[:40], expected=f"one of at most {NOTES_MAX}")
        added = {"time": iso_seconds(now_us), "by": by, "text": text.strip()}
        return with_line({**body, "notes": [*body["notes"], added]}, line(now_us, by=by, change="note"))

    return changed


def snooze(by: str, now_us: int, *, until_us: int) -> Change:
    """Nobody wants to hear of it before then."""
    if until_us <= now_us:
        raise LogweirError(PARAMETER_BAD, name="until", value=iso_seconds(until_us), expected="a time in the future")

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        _require_not(body, "snoozed", Status.CLOSED, "Reopen it first.")
        until = iso_seconds(until_us)
        return {**_with_status(body, Status.SNOOZED, by, now_us, until=until), "snoozed_until": until}

    return changed


def close(by: str, now_us: int, *, reason: Reason, comment: str = "") -> Change:
    """It is done with. What matches from now on is a new alert, which names this one."""
    if len(comment) > NOTE_LENGTH_MAX:
        raise LogweirError(
            PARAMETER_BAD, name="comment", value=comment[:40], expected=f"at most {NOTE_LENGTH_MAX} characters"
        )

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        _require_not(body, "closed", Status.CLOSED, "Reopen it, to close it for another reason.")
        closed = {
            "time": iso_seconds(now_us),
            "time_us": now_us,
            "by": by,
            "reason": reason.value,
            "comment": comment.strip(),
        }
        return {**_with_status(body, Status.CLOSED, by, now_us, reason=reason.value), "closed": closed}

    return changed


def reopen(by: str, now_us: int) -> Change:
    """It is not done with after all, or is to be heard of again."""

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        if body["status"] == Status.OPEN:
            raise LogweirError(
                ALERT_UNFIT, id=body["id"], status="open already", change="reopened", what="Nothing needs to be done."
            )
        return {**_with_status(body, Status.OPEN, by, now_us), "closed": None}

    return changed


def _with_status(body: dict[str, Any], status: Status, by: str, now_us: int, **more: Any) -> dict[str, Any]:
    added = line(now_us, by=by, change="status", before=body["status"], after=status.value, **more)
    return with_line({**body, "status": status.value, "snoozed_until": None}, added)


def _require_not(body: dict[str, Any], change: str, status: Status, what: str) -> None:
    if body["status"] == status:
        raise LogweirError(ALERT_UNFIT, id=body["id"], status=status.value, change=change, what=what)


# --- finding -----------------------------------------------------------------------------------------------------
def query_of(
    text: str,
    *,
    with_closed: bool,
    kind: str = "alert",
    status: str | None = None,
    severity: str | None = None,
) -> Node:
    """The query for a list of alerts: what ``text`` asks for, and what else is wanted of them.

    Raises LogweirError: QUERY_BAD, QUERY_FIELD_UNKNOWN, QUERY_OPERATOR_UNFIT.
    """
    nodes: list[Node] = [parse(text.strip(), ALERTS.by_name), Term("kind", kind)]
    if not with_closed:
        nodes.append(Not(Term("status", Status.CLOSED.value)))
    nodes += [Term(name, value) for name, value in (("status", status), ("severity", severity)) if value]
    return And(tuple(nodes))


def find(documents: Documents, id: str) -> OwnDocument:
    """The alert of that id, or the only one whose id begins like that. Raises LogweirError(ALERT_UNKNOWN)."""
    stored = documents.get(ALERTS, [id]).get(id)
    if stored is not None:
        return stored
    page = documents.search(ALERTS, Prefix("id", id.lower()) if id else Term("id", ""), size=2)
    if len(page.documents) != 1:
        count = "are several alerts" if page.documents else "is no alert"
        raise LogweirError(ALERT_UNKNOWN, id=id, count=count)
    return page.documents[0]
