"""What scheduled rules have found, as alerts: each slot counts once in them, whoever dies in between."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from logweir.alerts.alert import ALERTS, Status, line, of_rule, opened, with_line
from logweir.alerts.rules import Rule
from logweir.alerts.schedules import FoundAlert, Slot
from logweir.clock import Clock, iso_seconds
from logweir.errors import DOCUMENT_CHANGED, LogweirError
from logweir.query.match import milliseconds_of, time_us_of
from logweir.query.tree import And, Not, Term
from logweir.store.documents import OwnDocument
from logweir.store.port import Documents
from logweir_workers.alerts.evidence import frozen
from logweir_workers.alerts.found import iso, one_line
from logweir_workers.alerts.writer import ALERT, EPISODES, LISTED_MAX, SHADOW, require_own, take_id

log = logging.getLogger(__name__)

EVIDENCE_MAX = 10
"""So many of the first and of the last events are kept."""
_TRIES_MAX = 20
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A slot that a rule was asked for."""

    slot: Slot
    completeness: Mapping[str, Any]
    is_shadowed: bool = False


class ScheduledAlerts:
    """Writes them. For one thread. ``generation``: that of the claim under which the rules are asked."""

    def __init__(self, documents: Documents, *, generation: int, clock: Clock) -> None:
        self._documents = documents
        self._generation = generation
        self._clock = clock

    def write(self, rule: Rule, asked: Asked, found: Iterable[FoundAlert]) -> int:
        """Have alerts say what was found; how many they are. What is written already stays as it is.

        Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW (call again), CLAIM_LOST.
        """
        united: dict[tuple[tuple[str, str], ...], FoundAlert] = {}
        for one in found:
            values = tuple(sorted(one.group.items()))
            united[values] = one if values not in united else _united(united[values], one)
        for one in united.values():
            self._write_one(rule, asked, one)
        self._end_quiet(rule, asked.slot)
        return len(united)

    def _write_one(self, rule: Rule, asked: Asked, found: FoundAlert) -> None:
        for attempt in range(_TRIES_MAX):
            try:
                self._try(rule, asked, found)
                return
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED or attempt == _TRIES_MAX - 1:
                    raise

    def _try(self, rule: Rule, asked: Asked, found: FoundAlert) -> None:
        parts = (rule.name, *(f"{name}\0{value}" for name, value in sorted(found.group.items())))
        digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        listed = self._documents.get(EPISODES, [digest]).get(digest)
        ids: list[str] = listed.body["alerts"] if listed else []
        stored = self._documents.get(ALERTS, ids)
        for one in stored.values():
            require_own(one.body, self._generation)
        if any(asked.slot.end_us in one.body.get("slots", ()) for one in stored.values()):
            return
        before = next((stored[id] for id in reversed(ids) if id in stored), None)
        previous = None
        if before is not None and not self._goes_on(rule, asked.slot, before):
            previous, before = before.id if before.body["closed"] else None, None
        if before is not None:
            self._put(before.id, before, self._continued(rule, asked, found, before.body))
            return
        # One that was taken before a crash, or another one.
        id = next((id for id in ids if id not in stored and not self._documents.get(ALERTS, [id])), None)
        if id is None:
            values = list(found.group.values())
            now_us = self._clock()
            _, id = take_id(self._documents, rule, values, digest, listed, listed_max=LISTED_MAX, now_us=now_us)
        begun = {**opened(id, created_us=self._clock()), "previous": previous}
        self._put(id, None, self._begun(rule, asked, found, begun))

    def _goes_on(self, rule: Rule, slot: Slot, stored: OwnDocument) -> bool:
        body = stored.body
        if body["closed"] or "asked_until" not in body:
            return False
        return slot.begin_us <= time_us_of(body["asked_until"]) + rule.quiet_us

    def _begun(self, rule: Rule, asked: Asked, found: FoundAlert, opened: Mapping[str, Any]) -> dict[str, Any]:
        slot, events = asked.slot, sorted(found.events, key=_time_us)
        times = [_time_us(one) for one in events]
        return {
            **opened,
            **self._said(rule, asked, found),
            "kind": SHADOW if asked.is_shadowed else ALERT,
            "group": dict(found.group),
            "first": iso(min(times, default=slot.begin_us)),
            "last": iso(max(times, default=slot.end_us - 1)),
            "received": iso(slot.end_us - 1),
            "count": found.count,
            "evidence": _evidence(events[:EVIDENCE_MAX]),
            "evidence_last": _evidence(events[EVIDENCE_MAX:][-EVIDENCE_MAX:]),
            "emitters": [],
            "late": None,
            "slots": [slot.end_us],
        }

    def _continued(self, rule: Rule, asked: Asked, found: FoundAlert, before: Mapping[str, Any]) -> dict[str, Any]:
        now = self._begun(rule, asked, found, {})
        overlaps = asked.slot.begin_us < max(before["slots"])
        first = {one["id"]: one for one in before["evidence"]}
        known = {**first, **{one["id"]: one for one in before["evidence_last"]}}
        added = [one for one in (*now["evidence"], *now["evidence_last"]) if one["id"] not in known]
        evidence = [*before["evidence"], *added]
        last = [*before["evidence_last"], *evidence[EVIDENCE_MAX:]]
        return {
            **before,
            **self._said(rule, asked, found),
            "kind": ALERT if before["kind"] == ALERT else now["kind"],
            "first": min(before["first"], now["first"]),
            "last": max(before["last"], now["last"]),
            "received": max(before["received"], now["received"]),
            # Of slots that overlap, the same events are counted in both.
            "count": max(before["count"], found.count) if overlaps else before["count"] + found.count,
            "evidence": evidence[:EVIDENCE_MAX],
            "evidence_last": last[-EVIDENCE_MAX:],
            # Those that may come again after a crash: only the latest.
            "slots": [*before["slots"], asked.slot.end_us][-10:],
        }

    def _said(self, rule: Rule, asked: Asked, found: FoundAlert) -> dict[str, Any]:
        slot, of = asked.slot, of_rule(rule)
        return {
            **of,
            "severity": found.severity or rule.severity,
            "tags": list(dict.fromkeys((*of["tags"], *found.tags))),
            "category": found.category or rule.category,
            "summary": one_line(found.summary),
            "search": _search(slot, found.query),
            "completeness": dict(asked.completeness),
            "is_quiet": False,
            "asked_until": iso(slot.end_us),
            **found.more,
        }

    def _put(self, id: str, stored: OwnDocument | None, body: dict[str, Any]) -> None:
        now_us = self._clock()
        if stored is not None and stored.body["is_quiet"]:
            body = with_line(body, line(now_us, by="logweir", change="goes on", count=body["count"]))
        body = {**body, "generation": self._generation, "updated": iso_seconds(now_us)}
        self._documents.put(ALERTS, id, body, version=stored.version if stored is not None else None)
        if stored is None:
            log.info("Alert %s (%s): %s", id, body["severity"], body["summary"])

    def _end_quiet(self, rule: Rule, slot: Slot) -> None:
        """Mark the rule's alerts of which nothing was found for as long as ``quiet``."""
        after: tuple[Any, ...] | None = None
        query = And((Term("rule", rule.name), Not(Term("status", Status.CLOSED.value))))
        while True:
            page = self._documents.search(ALERTS, query, size=_PAGE, after=after)
            for one in page.documents:
                until = one.body.get("asked_until")
                if until and not one.body["is_quiet"] and slot.end_us > time_us_of(until) + rule.quiet_us:
                    self._mark_quiet(one)
            after = page.after
            if after is None:
                return

    def _mark_quiet(self, stored: OwnDocument) -> None:
        require_own(stored.body, self._generation)
        now_us = self._clock()
        body = with_line(stored.body, line(now_us, by="logweir", change="went quiet", count=stored.body["count"]))
        body = {**body, "is_quiet": True, "updated": iso_seconds(now_us), "generation": self._generation}
        try:
            self._documents.put(ALERTS, stored.id, body, version=stored.version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise  # Somebody has changed it: the next time.


def _united(one: FoundAlert, other: FoundAlert) -> FoundAlert:
    """What was found twice in one slot."""
    events = {event.get("_id", id(event)): event for event in (*one.events, *other.events)}
    return replace(other, count=one.count + other.count, events=list(events.values()))


def _time_us(event: Mapping[str, Any]) -> int:
    milliseconds = milliseconds_of(event.get("timestamp"))
    return time_us_of(event.get("receivedtimestamp")) if milliseconds is None else milliseconds * 1000


def _evidence(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        frozen(one["_id"], one["_index"][-8:], {name: v for name, v in one.items() if name not in ("_id", "_index")})
        for one in events
        if "_id" in one and "_index" in one
    ]


def _search(slot: Slot, query: str) -> dict[str, str]:
    if not query:
        return {}
    return {
        "query": query,
        "from": iso(slot.begin_us),
        "to": iso(slot.end_us),
        "time_field": "receivedtimestamp",
    }
