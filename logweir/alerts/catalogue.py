"""The rules as people and programs see them in the store: what each is, and whether it is asked.

One document for each rule. The alerter writes what the rule's file says; people's part is the state, with who said so,
when and why. Whoever writes takes over the other's part as it is, and names the version that was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from logweir.alerts.alert import line, with_line
from logweir.alerts.rules import Rule
from logweir.clock import iso_seconds
from logweir.errors import DOCUMENT_CHANGED, PARAMETER_BAD, LogweirError
from logweir.event import Field, Kind
from logweir.query.tree import All, Node, Not, Term
from logweir.store.documents import DocumentSet, OwnDocument
from logweir.store.port import Documents

WHY_LENGTH_MAX = 1_000
BACKFILLS_MAX = 20
"""Backfills of a rule that are remembered."""
_TRIES_MAX = 20
_PAGE = 1_000
_EVERY = All()


class RuleState(StrEnum):
    """What becomes of what a rule finds."""

    ENABLED = "enabled"
    """An alert."""
    SHADOW = "shadow"
    """It is counted and kept, and is no alert."""
    DISABLED = "disabled"
    """Nothing: the rule is not asked."""


RULES = DocumentSet(
    "rules",
    (
        Field("name", Kind.KEYWORD, "The rule's name."),
        Field("state", Kind.KEYWORD, ", ".join(RuleState)),
        Field("updated", Kind.DATE, "When anything of it was changed."),
    ),
    "updated",
    lambda body: {name: body[name] for name in ("name", "state", "updated")},
)
"""All rules that an alerter has read, or whose state somebody has said."""

DESCRIBED = (
    *("severity", "window", "where", "group", "category", "tags", "runbook", "description", "origin", "path"),
    "revision",
)
"""The alerter's fields, beside ``is_there``."""


def described(rule: Rule) -> dict[str, Any]:
    """What a rule's file says of it, as programs read it."""
    return {
        "severity": rule.severity,
        "window": rule.window.kind.value,
        "where": rule.where,
        "group": list(rule.group),
        "category": rule.category,
        "tags": list(rule.tags),
        "runbook": rule.runbook,
        "description": rule.description,
        "origin": dict(rule.origin),
        "path": rule.path,
        "revision": rule.revision,
    }


def read_catalogue(documents: Documents) -> dict[str, OwnDocument]:
    """Every rule's document by its name. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
    return {one.id: one for one in _all(documents)}


def read_states(documents: Documents) -> dict[str, RuleState]:
    """The states of rules that are not enabled, by name. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
    return {one.id: state_of(one) for one in _all(documents, Not(Term("state", RuleState.ENABLED.value)))}


def _all(documents: Documents, query: Node = _EVERY) -> Iterator[OwnDocument]:
    after: tuple[Any, ...] | None = None
    while True:
        page = documents.search(RULES, query, size=_PAGE, after=after)
        yield from page.documents
        after = page.after
        if after is None:
            return


def state_of(stored: OwnDocument | None) -> RuleState:
    """Enabled, where nobody has said anything else."""
    return RuleState(stored.body["state"]) if stored is not None else RuleState.ENABLED


def change_state(documents: Documents, name: str, state: RuleState, *, by: str, why: str, now_us: int) -> OwnDocument:
    """Say what becomes of what a rule finds; the rule's document afterwards. An alerter goes by it within two seconds.

    Raises LogweirError: PARAMETER_BAD, STORE_DOWN, DOCUMENT_CHANGED when others never stop writing.
    """
    if len(why) > WHY_LENGTH_MAX:
        raise LogweirError(PARAMETER_BAD, name="why", value=why[:40], expected=f"at most {WHY_LENGTH_MAX} characters")
    said = {"time": iso_seconds(now_us), "by": by, "why": why.strip()}

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        added = line(now_us, by=by, change="state", before=body["state"], after=state.value, why=why.strip())
        return with_line({**body, "state": state.value, "said": said}, added)

    return _write(documents, name, changed, now_us=now_us)


def describe(documents: Documents, name: str, rule: Rule | None, *, now_us: int) -> OwnDocument:
    """Have a rule's document say what its file says, None: that it is not there any more. Raises as change_state."""

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        if rule is None:
            return {**body, "is_there": False}
        if body.get("revision") not in (None, rule.revision):
            body = with_line(
                body, line(now_us, by="logweir", change="revision", before=body["revision"], after=rule.revision)
            )
        return {**body, **described(rule), "is_there": True}

    return _write(documents, name, changed, now_us=now_us)


def note_backfill(documents: Documents, name: str, backfill: dict[str, Any], *, now_us: int) -> None:
    """Remember that stored events were looked at again: ``by``, ``from``, ``to``, ``revision`` and what came of it.

    Raises as change_state.
    """
    at = {"time": iso_seconds(now_us), **backfill}

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        said = {field: backfill[field] for field in ("from", "to", "made")}
        body = with_line(body, line(now_us, by=backfill["by"], change="backfill", **said))
        return {**body, "backfills": [*body.get("backfills", ()), at][-BACKFILLS_MAX:]}

    _write(documents, name, changed, now_us=now_us)


def _write(documents: Documents, name: str, changed: Any, *, now_us: int) -> OwnDocument:
    for attempt in range(_TRIES_MAX):
        stored = documents.get(RULES, [name]).get(name)
        before = stored.body if stored is not None else _new(name, now_us)
        body = {**changed(before), "updated": iso_seconds(now_us)}
        try:
            version = documents.put(RULES, name, body, version=stored.version if stored else None)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED or attempt == _TRIES_MAX - 1:
                raise
            continue
        return OwnDocument(name, version, body)
    raise AssertionError("the last attempt returns or raises")


def _new(name: str, now_us: int) -> dict[str, Any]:
    return {
        "name": name,
        "is_there": False,
        "state": RuleState.ENABLED.value,
        "said": None,
        "history": [line(now_us, by="logweir", change="first seen")],
    }
