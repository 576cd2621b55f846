"""Rules about the accounting itself: findings to alerts, each once, whatever dies in between.

    findings (findings.py) -> those that a rule is for -> episodes by group -> alerts, which say what is known now

An alert is an episode of findings about the same: it goes on while more come within the rule's ``quiet``, and is quiet
when none did. Nothing is added up from one look to the next: each says everything anew, so what is done twice changes
nothing. What has no time in the ledger gets one that is written down before its alert.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from logweir.alerts.alert import ALERTS, Status, line, of_rule, opened, with_line, without_events
from logweir.alerts.findings import NUMBERS_MAX, Finding, FindingKind
from logweir.alerts.rules import Rule
from logweir.clock import WINDOW_US, Clock, iso_seconds
from logweir.config import Settings
from logweir.errors import CLAIM_LOST, DOCUMENT_CHANGED, SEARCH_TOO_SLOW, STORE_DOWN, STORE_REFUSES, LogweirError
from logweir.event import Field, Kind
from logweir.query.match import time_us_of
from logweir.query.tree import Term
from logweir.store.documents import DocumentSet, OwnDocument
from logweir.store.port import Store
from logweir_workers.alerts.blind import blind_rules
from logweir_workers.alerts.findings import BooksState, FindingReader, Findings
from logweir_workers.alerts.found import SUMMARY_LENGTH_MAX, iso, one_line, words_of
from logweir_workers.alerts.writer import ALERT, EPISODES, SHADOW, require_own, take_id
from logweir_workers.backoff import tolerate

log = logging.getLogger(__name__)

LISTED_MAX = 100
"""Alerts of one rule and group that a finding may belong to."""
NAMED_MAX = 50
"""Rules, emitters and hosts that an alert names; it says how many there are."""
# Books of many emitters take long to read: the store is asked for at most this share of the time.
_SHARE_MAX = 0.2
_PAGE = 1_000
_TRIES_MAX = 20

STATE = DocumentSet(
    "alert-books",
    (Field("updated", Kind.DATE, "When findings were judged last."),),
    "updated",
    lambda body: {"updated": body["updated"]},
)
"""For each shard, how far findings are judged (findings.BooksState)."""

Values = tuple[tuple[str, str], ...]


class BooksRules:
    """Asks a shard's rules about the accounting. For one thread.

    ``generation``: that of the shard's claim. ``failed``: told of a rule whose own code raises.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        generation: int,
        clock: Clock,
        failed: Callable[[Rule, BaseException], None],
    ) -> None:
        self._documents = store.documents
        self._shard = settings.alerts.shard.replace("/", "of")
        self._generation = generation
        self._clock = clock
        self._failed = failed
        self._reader = FindingReader(store, settings, clock=clock)
        self._shadowed: Collection[str] = ()
        self._state: BooksState | None = None
        self._version: str | None = None
        self._open: dict[str, set[Values]] = {}
        """By rule, the groups with alerts that are not quiet."""
        self._told: dict[str, dict[Values, tuple[Finding, ...]]] = defaultdict(dict)
        """By rule, what was found of each group, as its alerts say."""

    def run(
        self,
        rules: Callable[[], tuple[Mapping[str, Rule], Collection[str]]],
        stopping: threading.Event,
        *,
        interval_s: float,
    ) -> None:
        """Look every so often until told to stop, or until another process has the shard.

        ``rules``: those in force, and which of them are shadowed.
        """
        while not stopping.is_set():
            began_s = time.monotonic()
            try:
                self.look(*rules())
            except LogweirError as error:
                if error.problem is CLAIM_LOST:
                    return
                tolerate(error, STORE_DOWN, STORE_REFUSES, SEARCH_TOO_SLOW)
            except Exception:
                log.exception("Rules about the accounting could not be asked; they are again in %.0f s.", interval_s)
            took_s = time.monotonic() - began_s
            stopping.wait(max(interval_s, took_s / _SHARE_MAX - took_s))

    def look(self, rules: Mapping[str, Rule], shadowed: Collection[str] = ()) -> None:
        """Read what there is, and have the alerts say so.

        ``rules``: all in force of the shard; ``shadowed``: the names of those whose alerts are none.
        Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW (call again), CLAIM_LOST.
        """
        self._shadowed = shadowed
        mine = [rule for rule in rules.values() if rule.is_about_books]
        if self._state is None:
            self._load()
        assert self._state is not None, "it was read just now"
        found = self._reader.read(self._state) if mine else None
        if found is None:
            return
        if found.state.growths != self._state.growths:
            self._keep(found.state)  # Before the alerts: after a crash, the times are the same.
        for rule in mine:
            of_rule: dict[Values, list[Finding]] = defaultdict(list)
            for one in found.findings:
                if one.of == rule.of and self._is_for(rule, one):
                    of_rule[tuple(sorted(one.values.items()))].append(one)
            for values in of_rule.keys() | self._opened(rule) | self._told[rule.name].keys():
                self._write_group(rule, values, of_rule.get(values, []), found, rules.values())
        self._keep(BooksState(max(found.judged_us, self._state.judged_us), found.state.growths))

    def _is_for(self, rule: Rule, one: Finding) -> bool:
        (where,) = rule.conditions
        assert callable(where), "the condition of a rule about the accounting is a function"
        try:
            return bool(where(one))  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the operator's own code
            self._failed(rule, error)
            return False

    # --- state ------------------------------------------------------------------------------------------------------
    def _load(self) -> None:
        stored = self._documents.get(STATE, [self._shard]).get(self._shard)
        if stored is not None:
            self._require_own(stored.body)
        self._version = stored.version if stored else None
        self._state = BooksState.from_body(stored.body if stored else {})
        self._keep(self._state)  # At once: whoever had the shard before can write it no more.

    def _keep(self, state: BooksState) -> None:
        body = {**state.as_body(), "generation": self._generation, "updated": iso_seconds(self._clock())}
        try:
            self._version = self._documents.put(STATE, self._shard, body, version=self._version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            # Somebody else has, or a write of ours took effect of which we got no answer: read it again, and write.
            self._state = None
            stored = self._documents.get(STATE, [self._shard]).get(self._shard)
            if stored is not None:
                self._require_own(stored.body)
            self._load()
            self._keep(state)
            return
        self._state = state

    def _require_own(self, body: Mapping[str, Any]) -> None:
        require_own(body, self._generation, whose=f"the rules {self._shard}")

    def _opened(self, rule: Rule) -> set[Values]:
        """The groups of a rule that have alerts which may change; read from the store the first time."""
        if rule.name not in self._open:
            groups: set[Values] = set()
            after: tuple[Any, ...] | None = None
            while True:
                page = self._documents.search(ALERTS, Term("rule", rule.name), size=_PAGE, after=after)
                groups |= {_values(one.body) for one in page.documents if _may_change(one.body)}
                after = page.after
                if after is None:
                    break
            self._open[rule.name] = groups
        return set(self._open[rule.name])

    # --- one group --------------------------------------------------------------------------------------------------
    def _write_group(
        self, rule: Rule, values: Values, findings: Sequence[Finding], found: Findings, rules: Iterable[Rule]
    ) -> None:
        signature = tuple(replace(one, last_us=0) if one.lasts else one for one in findings)
        told, still_open = self._told[rule.name], self._open[rule.name]
        if told.get(values) == signature and values not in still_open:
            return
        for attempt in range(_TRIES_MAX):
            try:
                is_open = self._write_alerts(rule, values, findings, found, rules)
                break
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED or attempt == _TRIES_MAX - 1:
                    raise
        if findings:
            told[values] = signature
        else:
            told.pop(values, None)
        (still_open.add if is_open else still_open.discard)(values)

    def _write_alerts(
        self, rule: Rule, values: Values, findings: Sequence[Finding], found: Findings, rules: Iterable[Rule]
    ) -> bool:
        """Have all alerts of one group say what is known; whether one of them is not quiet.

        Raises LogweirError(DOCUMENT_CHANGED) when somebody else wrote at the same time: nothing is wrong until then.
        """
        digest = hashlib.blake2b("\0".join((rule.name, *(f"{a}\0{b}" for a, b in values))).encode()).hexdigest()[:16]
        listed = self._documents.get(EPISODES, [digest]).get(digest)
        ids: list[str] = listed.body["alerts"] if listed else []
        stored = self._documents.get(ALERTS, ids)
        alerts = [stored[id] for id in ids if id in stored]
        for one in alerts:
            self._require_own(one.body)
        closed_us = [one.body["closed"]["time_us"] for one in alerts if one.body.get("closed")]
        used: set[str] = set()
        is_open = False
        for episode in episodes(rule, findings, closed_us):
            same = next((one for one in reversed(alerts) if one.id not in used and _is_same(one, episode, rule)), None)
            if same is None:
                if episode.last_us < found.since_us:
                    continue
                listed, id = self._new_id(rule, values, digest, listed, stored)
                previous = next((one.id for one in reversed(alerts) if _goes_on(one, episode, rule)), None)
            else:
                id, previous = same.id, same.body["previous"]
            used.add(id)
            is_open |= self._put(rule, episode, id, same, previous, found, rules)
        for one in alerts:
            if one.id not in used:
                is_open |= self._end(rule, one, found)
        return is_open

    def _new_id(
        self, rule: Rule, values: Values, digest: str, listed: OwnDocument | None, stored: Mapping[str, OwnDocument]
    ) -> tuple[OwnDocument, str]:
        """An id of the group's that no alert has: one that was taken before a crash, or another one."""
        ids: list[str] = listed.body["alerts"] if listed else []
        free = next((id for id in ids if id not in stored and not self._documents.get(ALERTS, [id])), None)
        if free is not None:
            assert listed is not None, "the id was in it"
            return listed, free
        group = [value for _, value in values]
        now_us = self._clock()
        return take_id(self._documents, rule, group, digest, listed, listed_max=LISTED_MAX, now_us=now_us)

    def _put(
        self,
        rule: Rule,
        episode: Finding,
        id: str,
        stored: OwnDocument | None,
        previous: str | None,
        found: Findings,
        rules: Iterable[Rule],
    ) -> bool:
        now_us = self._clock()
        before = stored.body if stored else opened(id, created_us=now_us)
        is_quiet = not episode.lasts and found.judged_us > episode.last_us + rule.quiet_us
        if stored is not None:
            episode = _united(episode, before)
        body = {
            **before,
            **of_rule(rule),
            **without_events(),
            "kind": ALERT if rule.name not in self._shadowed or before.get("kind") == ALERT else SHADOW,
            "group": dict(episode.values),
            "first": iso(episode.first_us),
            "last": iso(episode.last_us),
            "count": episode.count,
            "emitters": list(episode.emitters[:NAMED_MAX]),
            "previous": previous,
            "is_quiet": is_quiet,
            "completeness": {"state": "complete", "up_to": iso_seconds(found.judged_us), "missing": 0, "emitters": []},
            "finding": _finding_body(episode, blind_rules(rules, episode.categories)),
            "generation": self._generation,
        }
        if stored is not None and _said({**body, "summary": ""}) == _said({**before, "summary": ""}):
            return not before["is_quiet"]
        body["summary"] = self._summary(rule, episode)
        for one in _changes(stored.body if stored else None, body):
            body = with_line(body, line(now_us, by="logweir", **one))
        body["updated"] = iso_seconds(now_us)
        self._documents.put(ALERTS, id, body, version=stored.version if stored else None)
        if stored is None:
            log.info("Alert %s (%s): %s", id, body["severity"], body["summary"])
        return not is_quiet

    def _end(self, rule: Rule, stored: OwnDocument, found: Findings) -> bool:
        """Of an alert of which nothing is found any more: it is over, or all that was lost came after all."""
        body = before = stored.body
        now_us = self._clock()
        if _is_withdrawn(before, found):
            body = {**body, "count": 0, "finding": {**body["finding"], "numbers": []}, "is_quiet": True}
            body["summary"] = f"All came after all. {body['summary']}"[:SUMMARY_LENGTH_MAX]
            body = with_line(body, line(now_us, by="logweir", change="came after all", before=before["count"], after=0))
        elif not before["is_quiet"] and (
            before["finding"]["lasts"] or found.judged_us > time_us_of(before["last"]) + rule.quiet_us
        ):
            last = iso(found.judged_us) if before["finding"]["lasts"] else before["last"]
            body = {**body, "is_quiet": True, "last": last}
            body = with_line(body, line(now_us, by="logweir", change="went quiet", count=body["count"]))
        if body is not before:
            body = {**body, "updated": iso_seconds(now_us), "generation": self._generation}
            self._documents.put(ALERTS, stored.id, body, version=stored.version)
        return not body["is_quiet"]

    def _summary(self, rule: Rule, episode: Finding) -> str:
        try:
            return words_of(rule, episode)
        except Exception as error:  # noqa: BLE001 - the operator's own code: the alert is made all the same
            self._failed(rule, error)
        return one_line(f"{rule.name}: {episode.count} of {episode.group}")


# --- episodes -----------------------------------------------------------------------------------------------------
def episodes(rule: Rule, findings: Iterable[Finding], closed_us: Sequence[int] = ()) -> list[Finding]:
    """Findings about the same, put together where less than ``quiet`` is between them.

    ``closed_us``: when alerts about it were closed; what happened since is another episode.
    """
    whole: list[Finding] = []
    for one in sorted(findings, key=lambda one: (one.first_us, one.last_us)):
        before = whole[-1] if whole else None
        if (
            before is None
            or one.first_us > before.last_us + rule.quiet_us
            or any(before.first_us <= at_us < one.first_us for at_us in closed_us)
        ):
            whole.append(one)
        else:
            whole[-1] = _joined(before, one)
    return whole


def _joined(one: Finding, other: Finding) -> Finding:
    return replace(
        other,
        count=one.count + other.count,
        usual=one.usual + other.usual,
        first_us=one.first_us,
        last_us=max(one.last_us, other.last_us),
        lasts=one.lasts or other.lasts,
        emitters=tuple(dict.fromkeys((*one.emitters, *other.emitters))),
        hosts=tuple(dict.fromkeys((*one.hosts, *other.hosts))),
        categories=tuple(dict.fromkeys((*one.categories, *other.categories))),
        numbers=(*one.numbers, *other.numbers)[:NUMBERS_MAX],
        alerts=tuple(dict.fromkeys((*one.alerts, *other.alerts))),
    )


def _united(episode: Finding, body: Mapping[str, Any]) -> Finding:
    """The episode with what its alert knows, and findings do not tell any more because it is long ago."""
    episode = replace(episode, first_us=min(episode.first_us, time_us_of(body["first"])))
    if episode.lasts:
        # When it was heard of last follows from who is silent with it: the alert is not written anew for every look.
        return replace(episode, last_us=time_us_of(body["last"]))
    if _may_come(episode.of, episode.values):
        return episode
    return replace(
        episode, count=max(episode.count, body["count"]), last_us=max(episode.last_us, time_us_of(body["last"]))
    )


def _is_same(stored: OwnDocument, episode: Finding, rule: Rule) -> bool:
    """Whether an alert is of the same episode: they touch, and it was not closed before the episode began."""
    body = stored.body
    first_us, last_us = time_us_of(body["first"]), time_us_of(body["last"])
    if episode.lasts:
        # One that began later is another: something came in between.
        return not body["is_quiet"] or episode.first_us <= first_us + 1000
    closed = body.get("closed")
    if closed and closed["time_us"] < episode.first_us:
        return False
    return episode.first_us - rule.quiet_us <= last_us + 1000 and first_us <= episode.last_us + rule.quiet_us


def _goes_on(stored: OwnDocument, episode: Finding, rule: Rule) -> bool:
    closed = stored.body.get("closed")
    return bool(closed) and episode.first_us <= time_us_of(stored.body["last"]) + rule.quiet_us


def _is_withdrawn(body: Mapping[str, Any], found: Findings) -> bool:
    """Whether nothing of an alert is lost any more; not merely because its run is no longer looked at."""
    of = body["finding"]["of"]
    if not _may_come(of, body["group"]) or not body["count"]:
        return False
    if any(one.of == of and dict(one.values) == body["group"] for one in found.findings):
        return False  # It is the rule that is not for it any more.
    if of == FindingKind.QUEUE_LOSS:
        return True
    emitter, run = body["group"]["emitter"], body["group"]["run"]
    if of == FindingKind.AFTER_MATCH:
        # What was lost after a match is told for a day only: by the loss itself it is known whether it still is.
        begin_us, end_us = time_us_of(body["first"]) - WINDOW_US, time_us_of(body["last"]) + WINDOW_US
        lost = (one for one in found.findings if one.of is FindingKind.LOST and begin_us <= one.first_us <= end_us)
        if any((one.values["emitter"], one.values["run"]) == (emitter, run) for one in lost):
            return False
    return (emitter, run) in found.runs


def _may_come(of: str, group: Mapping[str, str]) -> bool:
    """Whether what such a finding is about may come after all."""
    return of in (FindingKind.LOST, FindingKind.QUEUE_LOSS) or (of == FindingKind.AFTER_MATCH and "run" in group)


def _may_change(body: Mapping[str, Any]) -> bool:
    """Whether an alert may change although nothing is found of its group any more."""
    return not body["is_quiet"] or (
        _may_come(body["finding"]["of"], body["group"]) and body["count"] > 0 and body["status"] != Status.CLOSED
    )


def _values(body: Mapping[str, Any]) -> Values:
    return tuple(sorted(body["group"].items()))


def _finding_body(episode: Finding, blind: Sequence[str]) -> dict[str, Any]:
    return {
        "of": str(episode.of),
        "lasts": episode.lasts,
        "emitters": list(episode.emitters[:NAMED_MAX]),
        "hosts": list(episode.hosts[:NAMED_MAX]),
        "numbers": [list(pair) for pair in episode.numbers],
        "usual": round(episode.usual, 1),
        "alerts": list(episode.alerts),
        "text": episode.text,
        "blind": list(blind[:NAMED_MAX]),
        "blind_count": len(blind),
    }


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    """What an alert says, without how far that is judged; blind rules are those of when it was written."""
    left_out = ("completeness", "generation", "updated", "history", "revision")
    finding = {name: value for name, value in body.get("finding", {}).items() if not name.startswith("blind")}
    return {**{name: value for name, value in body.items() if name not in left_out}, "finding": finding}


def _changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the changes, those that belong into the history."""
    if before is None:
        return []
    changes: list[dict[str, Any]] = []
    if after["count"] < before["count"]:
        changes.append({"change": "came after all", "before": before["count"], "after": after["count"]})
    if before["is_quiet"] != after["is_quiet"]:
        changes.append({"change": "went quiet" if after["is_quiet"] else "goes on", "count": after["count"]})
    return changes
