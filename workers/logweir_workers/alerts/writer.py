"""Episodes to alerts in the store: each once, whatever dies in between.

For each rule and group a document lists the ids of its alerts. Whoever finds a new episode first looks there for one
that is the same: it was written by a process that died before its checkpoint. An alert says up to which point of the
queue it counts; who has not read as far as that leaves it as it is. So nothing is counted twice, and nothing goes back.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from logweir.alerts.alert import (
    ALERTS,
    Reason,
    Status,
    change,
    close,
    line,
    of_rule,
    opened,
    reopen,
    with_line,
    without_events,
)
from logweir.alerts.beginnings import Begun
from logweir.alerts.rules import Rule
from logweir.clock import Clock, iso_seconds
from logweir.errors import CLAIM_LOST, DOCUMENT_CHANGED, LogweirError
from logweir.event import Field, Kind
from logweir.ledger.emitter import Emitter, name_of
from logweir.store.documents import DocumentSet, OwnDocument
from logweir.store.port import Documents, Store
from logweir.text import counted
from logweir_workers.alerts.checkpoint import Progress
from logweir_workers.alerts.evidence import Evidence, Place
from logweir_workers.alerts.found import Found, iso, one_line, words_of
from logweir_workers.alerts.groups import Episode, Group
from logweir_workers.alerts.guard import Guard
from logweir_workers.alerts.storms import GROUPS_NAMED_MAX, HOUR_US, Hour
from logweir_workers.alerts.windows import needed

log = logging.getLogger(__name__)

LISTED_MAX = 8
"""Alerts of one rule and group that are looked at for an episode that was found before."""
EARLIER_MAX = 20
"""Revisions of its rule that an alert names with what they had counted."""
ALERT, NEAR_MISS, SHADOW = "alert", "near_miss", "shadow"
NEAR_MISS_SEVERITY = "low"
_TRIES_MAX = 50

EPISODES = DocumentSet(
    "alert-episodes",
    (Field("rule", Kind.KEYWORD, "The rule."), Field("updated", Kind.DATE, "When the latest alert was made.")),
    "updated",
    lambda body: {"rule": body["rule"], "updated": body["updated"]},
)
"""For each rule and group, the ids of its latest alerts, and how many there were; of backfilled ones with times."""


class AlertWriter:
    """Writes the alerts of one shard. For one thread.

    ``failed``: told of a rule whose function raises. ``begun``: since when a rule is asked as it is.
    """

    def __init__(
        self,
        store: Store,
        evidence: Evidence,
        *,
        generation: int,
        clock: Clock,
        failed: Callable[[Rule, BaseException], None],
        guard: Guard,
        begun: Callable[[Rule], Begun | None] = lambda _: None,
    ) -> None:
        self._documents = store.documents
        self._evidence = evidence
        self._generation = generation
        self._clock = clock
        self._failed = failed
        self._guard = guard
        self._begun = begun
        self._known: dict[str, OwnDocument] = {}

    def write(
        self,
        group: Group,
        episode: Episode,
        progress: Progress,
        completeness: dict[str, Any],
        *,
        kind: str = ALERT,
        missing: Mapping[Emitter, int] | None = None,
    ) -> bool:
        """Have the alert of an episode say what is known now; False when that has to wait.

        ``missing``: of a near miss, the numbers of its own emitters that could make it fire. An episode whose alert was
        closed meanwhile is split: what happened since is another one. Raises LogweirError: STORE_DOWN (call again),
        CLAIM_LOST.
        """
        for _ in range(_TRIES_MAX):
            stored = self._stored(group, episode)
            self._take_over_others(group, episode)
            body = stored.body if stored is not None else None
            if body is not None:
                require_own(body, self._generation)
            if body is not None and not progress.is_past(body["upto"]):
                return False
            if body is not None and is_withdrawn(body):
                if not episode.fired:
                    return True
                stored = self._reopened(stored, body)
                body = stored.body
            closed = (body or {}).get("closed")
            if closed and episode.closed_us is None:
                group.split(episode, closed["time_us"])
            try:
                self._put(group, episode, stored, progress, completeness, kind, missing or {})
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
                self._known.pop(episode.alert or "", None)
                continue
            self._close_merged(episode)
            return True
        raise LogweirError(DOCUMENT_CHANGED, id=episode.alert)

    def withdraw(self, id: str, completeness: dict[str, Any], *, comment: str) -> None:
        """Close a near miss whose rule can fire no more by what is missing; ``comment`` says why.

        Raises LogweirError: STORE_DOWN, CLAIM_LOST.
        """
        now_us = self._clock()
        closing = close("logweir", now_us, reason=Reason.BENIGN, comment=comment)

        def withdrawn(body: dict[str, Any]) -> dict[str, Any]:
            require_own(body, self._generation)
            if body["kind"] != NEAR_MISS or body["status"] == Status.CLOSED:
                return body
            more = {"completeness": completeness, "generation": self._generation, "updated": iso_seconds(now_us)}
            return {**closing(body), **more}

        self._known.pop(id, None)
        change(self._documents, id, withdrawn)

    def _reopened(self, stored: OwnDocument | None, body: dict[str, Any]) -> OwnDocument:
        """The alert of a near miss that was withdrawn, and fires now."""
        assert stored is not None, "its body was read from there"
        return OwnDocument(stored.id, stored.version, reopen("logweir", self._clock())(body))

    def has_own(self, group: Group, episode: Episode) -> bool:
        """Whether a process that died since has made the episode's alert, which is its own from now on."""
        digest = digest_of(group.rule, group.values)
        listed = self._documents.get(EPISODES, [digest]).get(digest)
        ids = [*_backfilled_near(listed, group), *listed.body["alerts"]] if listed else []
        stored = self._documents.get(ALERTS, ids)
        same = [id for id, one in stored.items() if self._is_same(one.body, group.rule, episode)]
        if same and episode.alert is None:
            episode.alert = same[-1]
        return bool(same)

    def write_storm(
        self,
        rule: Rule,
        number: int,
        hour: Hour,
        progress: Progress,
        completeness: dict[str, Any],
        *,
        kind: str,
        is_over: bool,
    ) -> bool:
        """Have the alert of a rule's hour say how many groups have fired in it; False when that has to wait.

        Raises LogweirError: STORE_DOWN (call again), CLAIM_LOST.
        """
        id = f"{digest_of(rule, ('storm',))}-{number}"
        for _ in range(_TRIES_MAX):
            stored = self._documents.get(ALERTS, [id]).get(id)
            if stored is not None:
                require_own(stored.body, self._generation)
                if not progress.is_past(stored.body["upto"]):
                    return False
            now_us = self._clock()
            before = stored.body if stored else opened(id, created_us=now_us)
            named = [tuple(one) for one in before.get("storm", {}).get("named", ())]
            named = [*named, *(one for one in hour.folded if one not in named)][:GROUPS_NAMED_MAX]
            body = {
                **before,
                **of_storm(rule, number, groups=hour.groups, apart=hour.apart, named=named),
                "kind": ALERT if before.get("kind") == ALERT else kind,
                "is_quiet": is_over,
                "completeness": completeness if _differs(completeness, before) else before["completeness"],
                "generation": self._generation,
                "upto": progress.mark(),
            }
            for one in _changes(stored.body if stored else None, body):
                body = with_line(body, line(now_us, by="logweir", **one))
            if stored is not None and body == {**stored.body, "upto": body["upto"], "generation": self._generation}:
                return True
            body["updated"] = iso_seconds(now_us)
            try:
                self._documents.put(ALERTS, id, body, version=stored.version if stored else None)
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
                continue
            if stored is None:
                log.info("Alert %s (%s): %s", id, body["severity"], body["summary"])
            return True
        raise LogweirError(DOCUMENT_CHANGED, id=id)

    def _take_over_others(self, group: Group, episode: Episode) -> None:
        """Have the episode take over alerts that a process which died since made of parts of it.

        That one had read in another order, so it knew the parts before what connects them.
        """
        if group.others is None:
            digest = digest_of(group.rule, group.values)
            listed = self._documents.get(EPISODES, [digest]).get(digest)
            group.note_others([*_backfilled_near(listed, group), *listed.body["alerts"]] if listed else ())
        if not group.others:
            return
        stored = self._documents.get(ALERTS, sorted(group.others))
        group.others &= {id for id, one in stored.items() if one.body["status"] != Status.CLOSED}
        for id in sorted(group.others):
            if self._is_same(stored[id].body, group.rule, episode):
                group.others.discard(id)
                episode.merged.append(id)

    def _is_same(self, body: dict[str, Any], rule: Rule, episode: Episode) -> bool:
        """Whether an alert is of the same episode: they touch, and it was not closed before the episode began.

        One of an earlier revision only where that had evaluated what is evaluated again, behind a checkpoint.
        """
        if body["revision"] != rule.revision:
            begun = self._begun(rule)
            if begun is None or not begun.at.is_before(body.get("upto")):
                return False
        closed = body.get("closed")
        if closed and iso(closed["time_us"]) < iso(episode.first_us):
            return False
        first, last = str(body["first"]), str(body["last"])
        return iso(episode.first_us - rule.quiet_us) <= last and first <= iso(episode.last_us + rule.quiet_us)

    def _stored(self, group: Group, episode: Episode) -> OwnDocument | None:
        """The episode's alert as it is now, None when it is still to be made; its id is known afterwards."""
        if episode.alert is None:
            return self._adopted(group, episode)
        known = self._known.pop(episode.alert, None)
        return known or self._documents.get(ALERTS, [episode.alert]).get(episode.alert)

    def _adopted(self, group: Group, episode: Episode) -> OwnDocument | None:
        """The alert of the same episode that was made by a process that died since; else a new id is taken."""
        rule = group.rule
        digest = digest_of(rule, group.values)
        while True:
            listed = self._documents.get(EPISODES, [digest]).get(digest)
            ids: list[str] = listed.body["alerts"] if listed else []
            backfilled = _backfilled_near(listed, group)
            stored = self._documents.get(ALERTS, [*backfilled, *ids])
            for id in backfilled:
                if id in stored and self._is_same(stored[id].body, rule, episode):
                    episode.alert = id
                    group.note_others([*backfilled, *ids])
                    return stored[id]
            for id in reversed(ids):
                if id == episode.previous:
                    break
                if id not in stored or self._is_same(stored[id].body, rule, episode):
                    episode.alert = id
                    group.note_others(ids)
                    return stored.get(id)
            try:
                listed, id = take_id(
                    self._documents, rule, group.values, digest, listed, listed_max=LISTED_MAX, now_us=self._clock()
                )
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
                continue
            episode.alert = id
            group.note_others(ids)
            return None

    def _put(
        self,
        group: Group,
        episode: Episode,
        stored: OwnDocument | None,
        progress: Progress,
        completeness: dict[str, Any],
        kind: str,
        missing: Mapping[Emitter, int],
    ) -> None:
        assert episode.alert is not None, "an id was found or taken before"
        now_us = self._clock()
        before = stored.body if stored else opened(episode.alert, created_us=now_us)
        body = {
            **before,
            **self.found(group, episode, before, kind, missing),
            "completeness": completeness if _differs(completeness, before) else before["completeness"],
            "generation": self._generation,
            "upto": progress.mark(),
        }
        if stored is not None and before["revision"] != group.rule.revision:
            counted_by = {name: before[name] for name in ("revision", "count", "first", "last")}
            body["earlier"] = [*before.get("earlier", ()), counted_by][-EARLIER_MAX:]
        for one in _changes(stored.body if stored else None, body):
            body = with_line(body, line(now_us, by="logweir", **one))
        if stored is not None and body == {**stored.body, "upto": body["upto"], "generation": self._generation}:
            self._remember(stored)
            return
        body["updated"] = iso_seconds(now_us)
        version = self._documents.put(ALERTS, episode.alert, body, version=stored.version if stored else None)
        self._remember(OwnDocument(episode.alert, version, body))
        if stored is None:
            log.info("Alert %s (%s): %s", episode.alert, body["severity"], body["summary"])

    def found(
        self, group: Group, episode: Episode, before: dict[str, Any], kind: str, missing: Mapping[Emitter, int]
    ) -> dict[str, Any]:
        """The engine's fields, as far as they follow from the episode."""
        rule = group.rule
        if kind != NEAR_MISS:
            summary = self._summary(group, episode)
        elif missing or "summary" not in before:
            summary = _near_miss_summary(group, episode, missing)
        else:
            summary = before["summary"]  # Until it is withdrawn.
        if kind == SHADOW and before.get("kind") == ALERT:
            kind = ALERT  # It was one before its rule was shadowed.
        shown = {one[1] for one in episode.first}
        last: list[Place] = [one for one in episode.last if one[1] not in shown]
        return {
            **of_rule(rule),
            "kind": kind,
            "severity": NEAR_MISS_SEVERITY if kind == NEAR_MISS else rule.severity,
            "summary": summary,
            "group": dict(zip(rule.group, group.values, strict=True)),
            "first": iso(episode.first_us),
            "last": iso(episode.last_us),
            "received": iso(episode.received_us),
            "count": episode.count,
            "evidence": self._evidence.of(episode.first, before.get("evidence", ())),
            "evidence_last": self._evidence.of(last, before.get("evidence_last", ())),
            "search": search_of(rule, group, episode),
            "emitters": [name_of(emitter) for emitter in episode.emitters],
            # An alert that was made in time stays so, however late others of its events come.
            "late": before["late"] if before.get("kind") in (ALERT, SHADOW) else _late(episode),
            "previous": episode.previous,
            "is_quiet": episode.is_quiet,
            "counts_since": self._counts_since(rule, episode),
            # Of a near miss, how many more it would have taken.
            "lacks": needed(rule.window) - group.best_of(episode) if kind == NEAR_MISS else 0,
        }

    def _counts_since(self, rule: Rule, episode: Episode) -> str | None:
        """Since when the rule is asked as it is, where matches before that may be a part of the episode, or its window.

        These are not known: another revision was asked then, or none.
        """
        begun = self._begun(rule)
        is_cut = begun is not None and episode.first_us - rule.memory_us < begun.at.since_us
        return iso_seconds(begun.at.since_us) if begun is not None and is_cut else None

    def _summary(self, group: Group, episode: Episode) -> str:
        rule = group.rule
        self._guard.watch()
        try:
            with self._guard.running(rule.name):
                return words_of(rule, Found(rule, group, episode))
        except Exception as error:  # noqa: BLE001 - the operator's own code: the alert is made all the same
            self._failed(rule, error)
        finally:
            self._guard.rest()
        of = f" of {', '.join(group.values)}" if group.values else ""
        return one_line(f"{rule.name}: {counted(episode.count, 'event', separator=',')}{of}")

    def _close_merged(self, episode: Episode) -> None:
        """Alerts that late events have shown to be parts of this one: say so, and that nobody need look at them."""
        while episode.merged:
            id = episode.merged[0]
            stored = self._documents.get(ALERTS, [id]).get(id)
            if stored is not None and stored.body["status"] != Status.CLOSED and id != episode.alert:
                now_us = self._clock()
                closed = {"time": iso_seconds(now_us), "time_us": now_us, "by": "logweir", "reason": "duplicate"}
                added = line(now_us, by="logweir", change="status", after="closed", merged_into=episode.alert)
                comment = f"Late events have shown it to be a part of {episode.alert}."
                body = {**stored.body, "status": "closed", "closed": {**closed, "comment": comment}}
                try:
                    self._documents.put(ALERTS, id, with_line(body, added), version=stored.version)
                except LogweirError as error:
                    if error.problem is not DOCUMENT_CHANGED:
                        raise
                    continue
            episode.merged.pop(0)

    def _remember(self, document: OwnDocument) -> None:
        self._known[document.id] = document
        while len(self._known) > 200:
            del self._known[next(iter(self._known))]


def is_withdrawn(body: Mapping[str, Any]) -> bool:
    """Whether it was a near miss that ``withdraw`` has closed."""
    closed = body.get("closed") or {}
    return body["kind"] == NEAR_MISS and closed.get("by") == "logweir" and closed.get("reason") == Reason.BENIGN


def _near_miss_summary(group: Group, episode: Episode, missing: Mapping[Emitter, int]) -> str:
    """What was seen and what was not: the rule's own words would say that it has happened."""
    of = f" for {', '.join(group.values)}" if group.values else ""
    named = ", ".join(f"{count:,} of {name_of(emitter)}" for emitter, count in list(missing.items())[:3])
    if len(missing) == 1:
        named = f"from {name_of(*missing)}"
    more = f" and {len(missing) - 3} more emitters" if len(missing) > 3 else ""
    text = (
        f"could have fired: {group.rule.name}{of}: {counted(episode.count, 'match', plural='matches', separator=',')}, "
        f"{counted(sum(missing.values()), 'number', separator=',')} missing {named}{more}"
    )
    return one_line(text)


def require_own(body: Mapping[str, Any], generation: int, *, whose: str = "the rules") -> None:
    """Raises LogweirError(CLAIM_LOST) for a document of who has claimed the rules since ``generation``."""
    if body["generation"] > generation:
        raise LogweirError(
            CLAIM_LOST,
            partition=whose,
            generation=body["generation"],
            owner="another one",
            generation_own=generation,
        )


def take_id(
    documents: Documents,
    rule: Rule,
    values: Sequence[str],
    digest: str,
    listed: OwnDocument | None,
    *,
    listed_max: int,
    now_us: int,
) -> tuple[OwnDocument, str]:
    """A new id for an alert of a rule and group, written down in their list; and the list, ``listed`` before.

    Raises LogweirError: DOCUMENT_CHANGED, STORE_DOWN.
    """
    made = (listed.body["made"] if listed else 0) + 1
    ids: list[str] = listed.body["alerts"] if listed else []
    id = f"{digest}-{made}"
    body = {
        **(listed.body if listed else {}),
        "rule": rule.name,
        "group": list(values),
        "made": made,
        "alerts": [*ids, id][-listed_max:],
        "updated": iso_seconds(now_us),
    }
    version = documents.put(EPISODES, digest, body, version=listed.version if listed else None)
    return OwnDocument(digest, version, body), id


def digest_of(rule: Rule, values: Sequence[str]) -> str:
    """What the ids of the alerts of a rule and group begin with; the id of their list."""
    return hashlib.blake2b("\0".join((rule.name, *values)).encode(), digest_size=8).hexdigest()


def _backfilled_near(listed: OwnDocument | None, group: Group) -> list[str]:
    """The backfilled alerts in a group's list that touch one of its episodes."""
    quiet_us = group.rule.quiet_us
    return [
        id
        for id, first_us, last_us in (listed.body.get("backfilled", ()) if listed else ())
        if any(one.first_us - quiet_us <= last_us and first_us <= one.last_us + quiet_us for one in group.episodes)
    ]


def of_storm(
    rule: Rule, number: int, *, groups: int, apart: int, named: Sequence[Sequence[str]], time: str = "receivedtimestamp"
) -> dict[str, Any]:
    """The engine's fields of the alert for those of a rule's hour that have none of their own.

    ``time``: the field that the hour, the ``number``-th since 1970, is one of.
    """
    return {
        **of_rule(rule),
        **without_events(),
        "summary": f"{rule.name}: {groups:,} groups within the hour, {groups - apart:,} of them only here",
        "group": {},
        "first": iso(number * HOUR_US),
        "last": iso((number + 1) * HOUR_US - 1000),
        "count": groups,
        "search": _search_of_hour(rule, number, time),
        "emitters": [],
        "previous": None,
        "storm": {"groups": groups, "apart": apart, "named": [list(one) for one in named]},
    }


def _search_of_hour(rule: Rule, number: int, time: str) -> dict[str, str]:
    """A search for what a rule is for, of an hour."""
    if any(not isinstance(one, str) for one in rule.conditions):
        return {}
    return {
        "query": " OR ".join(f"({one})" for one in rule.conditions),
        "from": iso(number * HOUR_US),
        "to": iso((number + 1) * HOUR_US),
        "time_field": time,
    }


def search_of(rule: Rule, group: Group, episode: Episode) -> dict[str, str]:
    """A search that finds all events of an episode, where the rule's conditions are searches."""
    if any(not isinstance(one, str) for one in rule.conditions):
        return {}
    parts = [f"({one})" for one in rule.conditions]
    query = f"({' OR '.join(parts)})" if len(parts) > 1 else parts[0]
    for name, value in zip(rule.group, group.values, strict=True):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        query += f' AND {name}:"{escaped}"'
    return {
        "query": query,
        "from": iso(episode.first_us),
        "to": iso(episode.last_us + 1_000),
        "time_field": "timestamp",
    }


def _late(episode: Episode) -> dict[str, int] | None:
    return {"late_s": episode.late_us // 1_000_000} if episode.late_us else None


def _differs(completeness: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether it says something else than the alert did: a later time up to which all is there does not."""
    known = dict(before.get("completeness") or {})
    return {**known, "up_to": None} != {**completeness, "up_to": None}


def _changes(before: dict[str, Any] | None, after: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the engine's changes, those that belong into the history."""
    if before is None:
        return []
    changes: list[dict[str, Any]] = []
    if before["kind"] != after["kind"]:
        changes.append({"change": "kind", "before": before["kind"], "after": after["kind"]})
    if before["is_quiet"] != after["is_quiet"]:
        changes.append({"change": "went quiet" if after["is_quiet"] else "goes on", "count": after["count"]})
    if before["revision"] != after["revision"]:
        said = {"before": before["revision"], "after": after["revision"], "count": before["count"]}
        changes.append({"change": "revision", **said})
    states = before["completeness"].get("state"), after["completeness"].get("state")
    if states[0] != states[1] and "incomplete" in states:
        changes.append({"change": "completeness", "before": states[0], "after": states[1]})
    return changes
