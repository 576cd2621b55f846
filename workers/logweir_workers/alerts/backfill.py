"""Alerts that a rule would have made of stored events, made after all: each once, whoever dies or runs beside.

    stored events -> the rule's condition -> groups -> episodes that have ended -> alerts that are not there

An alert's id follows from rule, revision, group and first event, and it is created only where there is none. The list
of a group's alerts is the one that the alerter goes by, too: whoever writes it second looks again. Nothing is done to
what the alerter may still have open: what happened within the lateness before its watermark.
"""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.alerts.alert import ALERTS, line, opened, with_line
from logweir.alerts.beginnings import read_beginnings
from logweir.alerts.catalogue import RuleState, read_states
from logweir.alerts.rules import Rule
from logweir.clock import WINDOW_US, Clock, iso_seconds
from logweir.config import Settings
from logweir.errors import DOCUMENT_CHANGED, RULE_BAD, LogweirError
from logweir.ledger.activity import caught_up_minutes, of_latest_topic, read_activities
from logweir.ledger.documents import ALERTER
from logweir.ledger.position import read_positions
from logweir.query.match import time_us_of
from logweir.query.tree import And, Range, Term
from logweir.store.documents import OwnDocument
from logweir.store.port import Store
from logweir.text import counted
from logweir_workers.alerts.backtest import ALERTS_MAX, Backtest, StoredRun, unfit, would_be
from logweir_workers.alerts.completeness import Completeness
from logweir_workers.alerts.evidence import Evidence
from logweir_workers.alerts.groups import Episode, Group, GroupValues
from logweir_workers.alerts.guard import Guard
from logweir_workers.alerts.in_force import rules_of_shard
from logweir_workers.alerts.storms import GROUPS_NAMED_MAX, HOUR_US
from logweir_workers.alerts.writer import ALERT, EPISODES, NEAR_MISS, SHADOW, AlertWriter, digest_of, of_storm
from logweir_workers.backoff import Stopped

LISTED_MAX = 1_000
"""Backfilled alerts of one group that late events can still be found to be a part of."""
_PAGE = 200
_TRIES_MAX = 50
# An id that was taken a moment ago gets its alert at once, unless its alerter has died.
_PENDING_US = 60_000_000
_PENDING_WAIT_S = 0.1
_PENDING_TRIES = 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Up to when alerts of a rule may be made after all, in microseconds of the events' own time."""

    alerter_us: int
    """Nothing from before then changes in the alerter any more, unless an event comes late."""
    stored_us: int
    """What was received by then is stored."""

    @property
    def end_us(self) -> int:
        return min(self.alerter_us, self.stored_us)


def read_bounds(store: Store, rule: Rule, settings: Settings) -> Bounds:
    """Raises LogweirError: RULE_BAD where no alerter has the rule in force as it is here; STORE_DOWN."""
    if not rule.is_about_events:
        if rule.is_about_books:
            raise unfit(rule)
        reason = "it is a scheduled one: `logweir rules run` asks it for any time, and makes the alerts"
        raise LogweirError(RULE_BAD, rule=rule.name, reason=reason)
    if read_states(store.documents).get(rule.name) is RuleState.DISABLED:
        raise LogweirError(RULE_BAD, rule=rule.name, reason="it is disabled, so it makes no alerts")
    bodies = [
        document.body
        for place, document in ALERTER.scan(store.ledger, settings.worker.group)
        if rules_of_shard({rule.name: rule}, place.shard.replace("of", "/"))
    ]
    body = max(bodies, key=lambda one: one["written_us"], default={})
    begun = read_beginnings(store, settings.worker.group).get(rule.name)
    if not body.get("times") or begun is None:
        raise LogweirError(RULE_BAD, rule=rule.name, reason="no alerter has it in force yet")
    if begun.revision != rule.revision:
        reason = f"the alerter has revision {begun.revision} of it in force, and here it is {rule.revision}"
        raise LogweirError(RULE_BAD, rule=rule.name, reason=reason)
    group = settings.worker.group
    caught_up = of_latest_topic(caught_up_minutes(read_positions(store, group), read_activities(store, group)))
    return Bounds(
        alerter_us=min(body["times"].values()) - int(settings.alerts.lateness_s * 1e6),
        stored_us=min(caught_up.values(), default=0) * WINDOW_US,
    )


@dataclass(slots=True)
class Backfilled:
    """What came of it."""

    rule: str
    revision: str
    from_us: int
    to_us: int
    """Of the episodes that begin before then."""
    is_dry_run: bool
    looked: Backtest
    made: int = 0
    """Alerts that were made, or would be."""
    there: int = 0
    """Episodes that have an alert already, or a part in a folded one of the alerter's."""
    folded: int = 0
    """Episodes beyond those of their hour that may have an alert of their own: in the hour's, with their number."""
    begun_before: int = 0
    """Episodes that began before ``from_us``: left out, as they are not whole."""
    going_on: int = 0
    """Episodes that may go on behind the end: left to the alerter."""
    is_stopped: bool = False
    alerts: list[dict[str, Any]] = field(default_factory=list)
    """Of those that were made, the first ALERTS_MAX: id, group, first, last, count, summary."""

    def as_json(self) -> dict[str, Any]:
        counts = ("made", "there", "folded", "begun_before", "going_on")
        return {
            "rule": self.rule,
            "revision": self.revision,
            "from": iso_seconds(self.from_us),
            "to": iso_seconds(self.to_us),
            "dry_run": self.is_dry_run,
            "stopped": self.is_stopped,
            **{name: getattr(self, name) for name in counts},
            **{name: value for name, value in self.looked.as_json().items() if name not in ("alerts", "alerts_count")},
            "alerts": self.alerts,
        }


class _Known(NamedTuple):
    """An alert that is there."""

    id: str
    revision: str
    first_us: int
    last_us: int

    @classmethod
    def of(cls, body: dict[str, Any]) -> _Known:
        # Times of alerts are of whole milliseconds.
        return cls(body["id"], body["revision"], time_us_of(body["first"]), time_us_of(body["last"]) + 999)

    def has(self, rule: Rule, episode: Episode) -> bool:
        """Whether it is of the episode: of another revision, only where the two overlap."""
        near_us = rule.quiet_us if self.revision == rule.revision else 0
        return self.first_us <= episode.last_us + near_us and episode.first_us - near_us <= self.last_us


_Ranked = tuple[tuple[int, str, GroupValues], Group, Episode]


@dataclass(slots=True)
class _Hour:
    """The episodes that begin within an hour."""

    count: int = 0
    first: list[_Ranked] = field(default_factory=list)
    """Those that may have an alert of their own, and those that the folded one names."""


class Backfill:
    """Makes the alerts of a rule and time, from the beginning of an hour on. For one thread.

    ``by``: who wants it. ``is_told``: channels are told of the alerts. ``stopping`` ends it between two alerts.
    """

    def __init__(
        self,
        store: Store,
        rule: Rule,
        settings: Settings,
        *,
        from_us: int,
        to_us: int,
        bounds: Bounds,
        by: str,
        is_told: bool,
        is_dry_run: bool,
        stopping: threading.Event,
        clock: Clock,
    ) -> None:
        self._documents = store.documents
        self._rule = rule
        self._by = by
        self._is_told = is_told
        self._stopping = stopping
        self._clock = clock
        self._alerts_max = settings.alerts.storm_alerts_max
        self._end_us = bounds.end_us
        # Which of an hour's episodes have alerts of their own must not depend on where the time begins.
        from_us = from_us // HOUR_US * HOUR_US
        self._kind = SHADOW if read_states(store.documents).get(rule.name) is RuleState.SHADOW else ALERT
        self._run = StoredRun(
            *(store, rule, settings),
            from_us=from_us,
            to_us=bounds.end_us,
            until_us=min(to_us, bounds.end_us),
            found=self._take,
            stopping=stopping,
        )
        self._done = Backfilled(
            *(rule.name, rule.revision, from_us, min(to_us, bounds.end_us), is_dry_run), looked=self._run.looked
        )
        self._writer = AlertWriter(
            store, Evidence(store), generation=0, clock=clock, failed=self._failed, guard=Guard()
        )
        self._completeness = Completeness(store, group=settings.worker.group, late_us=settings.accounting.late_us)
        self._completeness.up_to_us = bounds.stored_us
        self._hours: dict[int, _Hour] = defaultdict(_Hour)
        """By hour since 1970, until they are written."""
        self._known: dict[GroupValues, list[_Known]] = defaultdict(list)
        """By group, the alerts that were there in the beginning."""
        self._storms: set[int] = set()
        """The hours of receipt of which the alerter has folded alerts into one."""
        self._storms_backfilled: set[int] = set()
        """The hours of which another revision's backfill has."""

    def run(self, progressed: Callable[[int, Backfilled], object]) -> Backfilled:
        """Make them; what came of it. ``progressed``: told now and then up to when all is read.

        Raises LogweirError: RULE_BAD for too many matches within a second; STORE_DOWN, SEARCH_TOO_SLOW (call again:
        what is made stays, and is not made twice).
        """
        self._completeness.read_missing()
        self._read_known()

        def turn(at_us: int, _: Backtest) -> None:
            self._write_hours(self._run.open_since_us(at_us))
            progressed(at_us, self._done)

        try:
            if self._done.from_us < self._done.to_us:
                self._run.run(turn)
                self._write_hours(None)
        except Stopped:
            self._done.is_stopped = True
        return self._done

    def _read_known(self) -> None:
        """Read which alerts the rule has. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
        from_ms, end_ms = (self._done.from_us - self._rule.memory_us) // 1000, self._end_us // 1000 + 1
        query = And((Term("rule", self._rule.name), Range("last", from_ms, None), Range("first", None, end_ms)))
        after: tuple[Any, ...] | None = None
        while True:
            page = self._documents.search(ALERTS, query, size=_PAGE, after=after)
            for body in (one.body for one in page.documents):
                if "storm" in body:
                    hour = time_us_of(body["first"]) // HOUR_US
                    if "backfilled" not in body:
                        self._storms.add(hour)
                    elif body["revision"] != self._rule.revision:
                        self._storms_backfilled.add(hour)
                elif body["kind"] != NEAR_MISS:
                    self._known[tuple(body["group"].values())].append(_Known.of(body))
            after = page.after
            if after is None:
                return

    # --- episodes ---------------------------------------------------------------------------------------------------
    def _take(self, group: Group, episode: Episode) -> None:
        """An episode has ended."""
        done, rule = self._done, self._rule
        if episode.last_us < done.from_us or episode.first_us >= done.to_us:
            return
        own = self._id_of(group, episode)
        number = episode.first_us // HOUR_US
        if (
            any(one.id != own and one.has(rule, episode) for one in self._known.get(group.values, ()))
            or episode.fired_hour in self._storms
            or number in self._storms_backfilled
        ):
            done.there += 1
        elif episode.first_us < done.from_us:
            done.begun_before += 1
        elif not episode.is_quiet or episode.last_us + rule.quiet_us >= self._end_us:
            done.going_on += 1
        else:
            hour = self._hours[number]
            hour.count += 1
            key = episode.first_us, episode.first[0][1], group.values
            insort(hour.first, (key, group, episode), key=lambda one: one[0])
            del hour.first[self._alerts_max + GROUPS_NAMED_MAX :]

    def _id_of(self, group: Group, episode: Episode) -> str:
        """The id of an episode's alert. Nothing of when, or for which time, it was asked for is in it."""
        said = "\0".join((self._rule.revision, *map(str, episode.first[0])))
        return f"{digest_of(self._rule, group.values)}-b{hashlib.blake2b(said.encode(), digest_size=6).hexdigest()}"

    def _write_hours(self, before_us: int | None) -> None:
        """Make the alerts of hours of which all episodes are known: that end by then; None: all. Raises Stopped."""
        for number in sorted(self._hours):
            if before_us is None or (number + 1) * HOUR_US <= before_us:
                self._write_hour(number, self._hours[number])
                del self._hours[number]

    def _write_hour(self, number: int, hour: _Hour) -> None:
        # Which of them have alerts of their own follows from all of them: also when some were made before a crash.
        for _, group, episode in hour.first[: self._alerts_max]:
            if self._stopping.is_set():
                raise Stopped
            self._make(group, episode)
        folded = [group.values for _, group, _ in hour.first[self._alerts_max :]]
        if folded:
            self._done.folded += hour.count - self._alerts_max
            if not self._done.is_dry_run:
                self._fold(number, hour.count, folded)

    # --- alerts -----------------------------------------------------------------------------------------------------
    def _make(self, group: Group, episode: Episode) -> None:
        """Have the alert of an episode there."""
        done, id = self._done, self._id_of(group, episode)
        if any(one.id == id for one in self._known.get(group.values, ())):
            done.there += 1
            return
        if done.is_dry_run:
            row: dict[str, Any] = would_be(group, episode, done.looked).as_json()
        else:
            body = self._body(group, episode, id)
            listed = self._listed(group, episode, id)
            if listed is None or not self._create(body, episode, listed):
                done.there += 1
                return
            row = {name: body[name] for name in ("group", "first", "last", "count", "summary")}
        done.made += 1
        if len(done.alerts) < ALERTS_MAX:
            done.alerts.append({"id": id, **row})

    def _listed(self, group: Group, episode: Episode, id: str) -> OwnDocument | None:
        """The list of the group's alerts, with this one in it; None where another one is of the episode."""
        digest = digest_of(self._rule, group.values)
        for _ in range(_TRIES_MAX):
            listed = self._documents.get(EPISODES, [digest]).get(digest)
            if self._has_other(listed, episode, id):
                return None
            now = iso_seconds(self._clock())
            empty: dict[str, Any] = {
                "rule": self._rule.name,
                "group": list(group.values),
                "made": 0,
                "alerts": [],
                "updated": now,
            }
            body = listed.body if listed is not None else empty
            others = [row for row in body.get("backfilled", ()) if row[0] != id]
            rows = sorted([*others, [id, episode.first_us, episode.last_us]], key=lambda row: row[2])
            body = {**body, "backfilled": rows[-LISTED_MAX:], "updated": now}
            try:
                version = self._documents.put(EPISODES, digest, body, version=listed.version if listed else None)
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
                continue  # The alerter has made one meanwhile.
            return OwnDocument(digest, version, body)
        raise LogweirError(DOCUMENT_CHANGED, id=digest)

    def _create(self, body: dict[str, Any], episode: Episode, listed: OwnDocument) -> bool:
        """Whether the alert was not there, and is the only one of its episode."""
        id = body["id"]
        try:
            version = self._documents.put(ALERTS, id, body, version=None)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            return False
        now = self._documents.get(EPISODES, [listed.id]).get(listed.id)
        if now is not None and now.version != listed.version and self._has_other(now, episode, id):
            # The alerter has found it at the same time, and did not see this one yet.
            try:
                self._documents.delete(ALERTS, id, version=version)
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
            return False
        return True

    def _has_other(self, listed: OwnDocument | None, episode: Episode, id: str) -> bool:
        """Whether an alert in the list, but for this one, is of the episode."""
        if listed is None:
            return False
        rule, ids = self._rule, listed.body["alerts"]
        rows = (_Known(name, rule.revision, *times) for name, *times in listed.body.get("backfilled", ()) if name != id)
        near = [one.id for one in rows if one.has(rule, episode)]
        is_fresh = listed.body["updated"] >= iso_seconds(self._clock() - _PENDING_US)
        for attempt in range(_PENDING_TRIES):
            stored = self._documents.get(ALERTS, [*ids, *near])
            if any(one.body["kind"] != NEAR_MISS and _Known.of(one.body).has(rule, episode) for one in stored.values()):
                return True
            if not is_fresh or all(one in stored for one in ids) or attempt == _PENDING_TRIES - 1:
                break
            time.sleep(_PENDING_WAIT_S)
        return False

    def _body(self, group: Group, episode: Episode, id: str) -> dict[str, Any]:
        now_us = self._clock()
        verdict = self._completeness.judge(self._rule, episode.first_us, episode.received_us, of=episode.emitters)
        return {
            **opened(id, created_us=now_us),
            "history": [line(now_us, by=self._by, change="backfilled")],
            **self._writer.found(group, episode, {}, self._kind, {}),
            **self._said(now_us, verdict),
        }

    def _said(self, now_us: int, verdict: dict[str, Any]) -> dict[str, Any]:
        """What alerts have that follows from no episode. An alerter, of whatever generation, may go on with them."""
        return {
            "completeness": verdict,
            "generation": 0,
            "upto": {"topic_id": "", "offsets": {}},
            "backfilled": {"time": iso_seconds(now_us), "by": self._by, "is_told": self._is_told},
            "updated": iso_seconds(now_us),
        }

    def _fold(self, number: int, count: int, folded: list[GroupValues]) -> None:
        """Have one alert say how many episodes began within the hour. Raises LogweirError(STORE_DOWN)."""
        rule = self._rule
        id = f"{digest_of(rule, ('storm', rule.revision))}-b{number}"
        of_hour = of_storm(
            *(rule, number), groups=count, apart=self._alerts_max, named=folded[:GROUPS_NAMED_MAX], time="timestamp"
        )
        only_here = count - self._alerts_max
        text = (
            f"{rule.name}: {counted(count, 'episode', separator=',')} within the hour, {only_here:,} of them only here"
        )
        for _ in range(_TRIES_MAX):
            stored = self._documents.get(ALERTS, [id]).get(id)
            if stored is not None and stored.body["count"] == count:
                return
            now_us = self._clock()
            verdict = self._completeness.judge(rule, number * HOUR_US, (number + 1) * HOUR_US, of=())
            added = line(now_us, by=self._by, change="backfilled")
            before = stored.body if stored is not None else {**opened(id, created_us=now_us), "history": []}
            kind = before.get("kind", self._kind)
            body = with_line({**before, **of_hour, "kind": kind, "summary": text, "is_quiet": True}, added)
            body |= self._said(now_us, verdict)
            try:
                self._documents.put(ALERTS, id, body, version=stored.version if stored is not None else None)
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
                continue
            return
        raise LogweirError(DOCUMENT_CHANGED, id=id)

    def _failed(self, rule: Rule, error: BaseException) -> None:  # noqa: ARG002
        """The rule's function fails: its alerts have plain words."""
        self._done.looked.errors += 1
