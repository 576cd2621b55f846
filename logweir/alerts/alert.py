"""The alert: what the engine writes of it, what people write, and who may change what.

One document. The engine's fields say what was found; people's say what they think of it. Whoever writes takes over the
other's fields as they are, and names the version that was read: neither ever undoes the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from logweir.alerts.rules import SEVERITIES, Rule
from logweir.clock import iso_seconds, now_us
from logweir.errors import (
    ALERT_AMBIGUOUS,
    ALERT_UNFIT,
    ALERT_UNKNOWN,
    DOCUMENT_CHANGED,
    DOCUMENT_TOO_LARGE,
    PARAMETER_BAD,
    LogweirError,
)
from logweir.event import Field, Kind
from logweir.query.parse import parse
from logweir.query.tree import And, Node, Not, Or, Prefix, Term
from logweir.store.documents import DocumentSet, OwnDocument
from logweir.store.port import Documents
from logweir.text import counted

NOTES_MAX = 200
NOTE_LENGTH_MAX = 4_000
NOTES_SIZE_BYTES_MAX = 256 * 1024
"""All notes of one alert together: its document has its limit, too."""
HISTORY_MAX = 1_000
"""Lines of history kept; of more, the second to the last of them are counted in one line."""
SNOOZE_ENDED = "the snooze ended"
_TRIES_MAX = 20
_AT_ONCE = 200


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


CHOICES: Mapping[str, tuple[str, ...]] = {
    "severity": SEVERITIES,
    "status": tuple(Status),
    "reason": tuple(Reason),
    "kind": ("alert", "near_miss", "shadow"),
    "completeness": ("complete", "incomplete", "open"),
    "late": ("yes",),
    "backfilled": ("yes",),
}
"""By field, the values that it can have, of fields that have few."""

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
    Field("backfilled", Kind.KEYWORD, "yes, where it was made after all, of stored events."),
    Field("notes", Kind.TEXT, "What people wrote."),
)


def _view(body: dict[str, Any]) -> dict[str, Any]:
    view = {field.name: body.get(field.name) for field in FIELDS}
    view["group"] = list(body.get("group", {}).values())
    view["reason"] = (body.get("closed") or {}).get("reason")
    view["completeness"] = (body.get("completeness") or {}).get("state")
    view["late"] = "yes" if body.get("late") else None
    view["backfilled"] = "yes" if body.get("backfilled") else None
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


def of_rule(rule: Rule) -> dict[str, Any]:
    """What an alert has from its rule."""
    return {
        "rule": rule.name,
        "revision": rule.revision,
        "severity": rule.severity,
        "category": rule.category,
        "tags": list(rule.tags),
        "runbook": rule.runbook,
        **({"origin": dict(rule.origin)} if rule.origin else {}),
    }


def without_events() -> dict[str, Any]:
    """What an alert has in the place of its events that is about none."""
    return {"evidence": [], "evidence_last": [], "search": {}, "late": None}


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


def sentence(one: Mapping[str, Any]) -> str:
    """A line of a history in words, without its time: ``anna snoozed it until 2026-01-31T13:00:00Z``."""
    by, before, after = one.get("by"), one.get("before"), one.get("after")
    match one["change"]:
        case "opened" | "backfilled" as made:
            return f"{by} {_MADE[made]}"
        case "left out":
            return f"{counted(one['left_out'], 'line')} {'is' if one['left_out'] == 1 else 'are'} left out"
        case "note":
            return f"{by} wrote a note"
        case "assignee":
            instead = ", as before" if before == after else f" instead of {before}" if before else ""
            return f"{by} assigned it to {after or 'nobody'}{instead}"
        case "status":
            return _sentence_of_status(one)
        case "kind":
            return f"{by} made {_A_KIND.get(str(after), after)} of {_THE_KIND.get(str(before), before)}"
        case "went quiet":
            return f"it went quiet after {counted(one['count'], 'event', separator=',')}"
        case "goes on":
            return f"it goes on, with {counted(one['count'], 'event', separator=',')}"
        case "revision":
            had = counted(one["count"], "event", separator=",")
            return f"its rule counts something else ({after}) than what had counted {had} ({before})"
        case "completeness":
            return _SENTENCES_OF_COMPLETENESS.get(str(after), f"its completeness is {after}")
        case "came after all":
            now = f"events came after all: {after:,} are missing, and not {before:,}"
            return now if after else f"all {before:,} missing events came after all"
    return f"{by}: {one['change']}"


_MADE = {"opened": "opened it", "backfilled": "backfilled it: the rule was asked of stored events"}
_A_KIND = {"alert": "an alert", "near_miss": "a near miss", "shadow": "a shadowed rule's finding"}
_THE_KIND = {"alert": "the alert", "near_miss": "the near miss", "shadow": "the shadowed rule's finding"}
_SENTENCES_OF_COMPLETENESS = {
    "complete": "it is complete: nothing is missing",
    "incomplete": "it is incomplete: events are missing",
    "open": "whether it is complete is not known yet",
}


def _sentence_of_status(one: Mapping[str, Any]) -> str:
    by, after = one["by"], one["after"]
    if one.get("because") == SNOOZE_ENDED:
        return f"{SNOOZE_ENDED}; it is {after} again"
    if "merged_into" in one:
        return f"{by} closed it: it is a part of {one['merged_into']}"
    match after:
        case Status.ACKNOWLEDGED:
            return f"{by} acknowledged it" + (" again" if one.get("before") == after else "")
        case Status.SNOOZED:
            return f"{by} snoozed it until {one.get('until')}"
        case Status.CLOSED:
            comment = f": {one['comment']}" if one.get("comment") else ""
            return f"{by} closed it as {one.get('reason')}{comment}"
    return f"{by} reopened it"


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
            raise LogweirError(ALERT_UNKNOWN, id=id)
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
        raise LogweirError(PARAMETER_BAD, name="text", value=text[:40], expected=f"1 to {NOTE_LENGTH_MAX} characters")

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        if len(body["notes"]) >= NOTES_MAX:
            raise LogweirError(PARAMETER_BAD, name="text", value=text[:40], expected=f"one of at most {NOTES_MAX}")
        added = {"time": iso_seconds(now_us), "by": by, "text": text.strip()}
        notes = [*body["notes"], added]
        if sum(len(json.dumps(one["text"], ensure_ascii=False).encode()) for one in notes) > NOTES_SIZE_BYTES_MAX:
            expected = f"shorter: all notes of an alert have at most {NOTES_SIZE_BYTES_MAX} bytes"
            raise LogweirError(PARAMETER_BAD, name="text", value=text[:40], expected=expected)
        return with_line({**body, "notes": notes}, line(now_us, by=by, change="note"))

    return changed


def snooze(by: str, now_us: int, *, until_us: int) -> Change:
    """Nobody wants to hear of it before then; ``end_snoozes`` ends it."""
    if until_us <= now_us:
        raise LogweirError(PARAMETER_BAD, name="until", value=iso_seconds(until_us), expected="a time in the future")

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        _require_not(body, "snoozed", Status.CLOSED, "Reopen it first.")
        until = iso_seconds(until_us)
        return {**_with_status(body, Status.SNOOZED, by, now_us, until=until), "snoozed_until": until}

    return changed


def end_snoozes(documents: Documents, now_us: int) -> None:
    """Have alerts that were snoozed until now be again what they were before: open, or acknowledged.

    Of an alert that somebody changes just then, the next call does it. Raises LogweirError: STORE_DOWN,
    SEARCH_TOO_SLOW.
    """
    after: tuple[Any, ...] | None = None
    while True:
        page = documents.search(ALERTS, Term("status", Status.SNOOZED.value), size=_AT_ONCE, after=after)
        for stored in page.documents:
            if (stored.body["snoozed_until"] or "") <= iso_seconds(now_us):
                status = _before_snooze(stored.body)
                body = _with_status(stored.body, status, "logweir", now_us, because=SNOOZE_ENDED)
                try:
                    documents.put(ALERTS, stored.id, body, version=stored.version)
                except LogweirError as error:
                    # Notes may have filled it to the last byte: others must not wait for it.
                    if error.problem not in (DOCUMENT_CHANGED, DOCUMENT_TOO_LARGE):
                        raise
        if page.after is None:
            return
        after = page.after


def _before_snooze(body: Mapping[str, Any]) -> Status:
    """What a snoozed alert was before; it may have been snoozed several times in a row."""
    for one in reversed(body["history"]):
        if one.get("after") == Status.SNOOZED and one["before"] != Status.SNOOZED:
            return Status(one["before"])
    return Status.OPEN


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
        said = {"reason": reason.value, **({"comment": closed["comment"]} if closed["comment"] else {})}
        return {**_with_status(body, Status.CLOSED, by, now_us, **said), "closed": closed}

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

    Raises LogweirError: QUERY_BAD, QUERY_FIELD_UNKNOWN, QUERY_OPERATOR_UNFIT; PARAMETER_BAD for a value that no alert
    has.
    """
    asked = parse(text.strip(), ALERTS.by_name, now_us=now_us())
    _require_possible(asked)
    nodes: list[Node] = [asked, Term("kind", kind)]
    if not with_closed:
        nodes.append(Not(Term("status", Status.CLOSED.value)))
    nodes += [Term(name, value) for name, value in (("status", status), ("severity", severity)) if value]
    return And(tuple(nodes))


def _require_possible(node: Node) -> None:
    """Raises LogweirError(PARAMETER_BAD): a severity that is misspelt must not look as if there were no alerts."""
    if isinstance(node, And | Or):
        for part in node.nodes:
            _require_possible(part)
    elif isinstance(node, Not):
        _require_possible(node.node)
    elif isinstance(node, Term) and node.value.lower() not in CHOICES.get(node.field, (node.value.lower(),)):
        expected = f"one of {', '.join(CHOICES[node.field])}"
        raise LogweirError(PARAMETER_BAD, name=node.field, value=node.value[:40], expected=expected)


def find(documents: Documents, id: str) -> OwnDocument:
    """The alert of that id, or the only one whose id begins like that.

    Raises LogweirError: ALERT_UNKNOWN, ALERT_AMBIGUOUS.
    """
    stored = documents.get(ALERTS, [id]).get(id)
    if stored is not None:
        return stored
    page = documents.search(ALERTS, Prefix("id", id.lower()) if id else Term("id", ""), size=2)
    if not page.documents:
        raise LogweirError(ALERT_UNKNOWN, id=id)
    if len(page.documents) > 1:
        raise LogweirError(ALERT_AMBIGUOUS, id=id, count=page.total)
    return page.documents[0]
