"""READ FIRST: records from the queue, rules asked of their events, alerts and checkpoint to the store.

    documents -> match -> groups -> alerts -> checkpoint -> the queue's offsets

A crash between any two steps repeats work: what is read again finds the episode's alert, which says how far it counts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from logweir import event as identity
from logweir.alerts import exceptions
from logweir.alerts.alert import ALERTS, Status, end_snoozes
from logweir.alerts.beginnings import Beginning, Begun
from logweir.alerts.rules import Rule, WindowKind
from logweir.clock import DAY_US, Clock, iso_seconds
from logweir.config import Settings
from logweir.errors import (
    OFFSETS_EXPIRED,
    QUEUE_DOWN,
    QUEUE_REBALANCING,
    RECORD_CORRUPT,
    SEARCH_TOO_SLOW,
    STORE_DOWN,
    STORE_REFUSES,
    LogweirError,
)
from logweir.event import Document, Provenance
from logweir.ledger.emitter import Emitter, name_of
from logweir.metrics import registry
from logweir.query.match import time_us_of
from logweir.query.tree import And, Not, Term
from logweir.queue.port import Consumer, Delivery, Queue
from logweir.record import Batch, Record, decode
from logweir.store.port import Store
from logweir_workers import enrich
from logweir_workers.alerts.absence import absent, read_activity
from logweir_workers.alerts.checkpoint import Checkpoint, Progress
from logweir_workers.alerts.completeness import Completeness
from logweir_workers.alerts.evaluator import Evaluator, Late
from logweir_workers.alerts.evidence import Evidence
from logweir_workers.alerts.examples import refusal_of
from logweir_workers.alerts.groups import Episode, Group, Groups, Left
from logweir_workers.alerts.guard import STUCK_S_MAX, Guard
from logweir_workers.alerts.in_force import RulesInForce
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.recall import TooMany, recalled
from logweir_workers.alerts.retention import delete_old
from logweir_workers.alerts.storms import HOUR_US, Storms
from logweir_workers.alerts.windows import needed
from logweir_workers.alerts.writer import ALERT, NEAR_MISS, SHADOW, AlertWriter
from logweir_workers.backoff import tolerate, until_it_answers
from logweir_workers.chores import PeriodicTask
from logweir_workers.document import Documents, EventUnfit, Filtered, context_of, ids_of
from logweir_workers.filters import Filters

log = logging.getLogger(__name__)

LATE_MAX = 10_000
"""Late matches that wait to be counted by asking the store; more are counted as unevaluated."""
_RECORDS_PER_POLL = 64
_IDLE_WAIT_S = 0.2
_FLUSH_INTERVAL_S = 0.3
_FLUSH_S_MAX = 2.0
_LEDGER_INTERVAL_S = 1.0
_MISSING_INTERVAL_S = 2.0
_MISSING_SHARE_MAX = 0.1
_RELOAD_INTERVAL_S = 2.0
_EXAMPLES_INTERVAL_S = 0.5
_CATALOGUE_INTERVAL_S = 1.0
_RECALL_INTERVAL_S = 1.0
_ABSENT_INTERVAL_S = 5.0
_SWEEP_INTERVAL_S = 0.5
_SWEEP_GROUPS = 5_000
_RETENTION_INTERVAL_S = 60.0
_SNOOZE_INTERVAL_S = 5.0
_MATCHES_PER_CHECKPOINT = 10_000
# Large checkpoints take long to write: they get at most this share of the time.
_CHECKPOINT_SHARE_MAX = 0.2
_MISSING_SHARE_MAX = 0.05
_ALL_CAME = "All numbers came; the rule did not fire."
_NEAR_MISSES_MAX = 1_000


class Engine:
    """Evaluates the rules of one claimed shard until told to stop. For one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        queue: Queue,
        store: Store,
        files: RuleFiles,
        checkpoint: Checkpoint,
        stopping: threading.Event,
        clock: Clock,
        guard: Guard | None = None,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._store = store
        self.in_force = RulesInForce(settings, store, files, clock=clock)
        self._checkpoint = checkpoint
        self._stopping = stopping
        self._clock = clock
        self._filters = Filters.of_file(settings.worker.filters_file)
        self._enrich = enrich.load(settings.worker)
        self._documents = Documents(self._enrich, self._filters)
        groups = Groups(groups_max=settings.alerts.groups_max)
        rules = self.in_force.rules
        self.progress = checkpoint.load(rules, groups)
        self._begun_before = self.progress.beginnings.rules
        """The rules as they were asked before this start."""
        self.storms = Storms(alerts_max=settings.alerts.storm_alerts_max)
        self.storms.load(self.progress.storms)
        self._guard = guard or Guard()
        late_after_us = settings.accounting.late_us
        self.evaluator = Evaluator(rules, groups, late_after_us=late_after_us, guard=self._guard)
        self.evaluator.shadowed = self.in_force.shadowed
        self.evaluator.sight.load(self.progress.sight)
        self.evaluator.sight.watch(rules.values())
        if self._guard.found in rules:
            self.evaluator.park(self._guard.found, f"its own code did not come back for {STUCK_S_MAX:.0f} s")
        self.evaluator.counts = {
            name: dict(counted["counts"]) for name, counted in self.progress.rules.items() if name in rules
        }
        self.evaluator.excepted = dict(self.progress.exceptions)
        self._lateness_us = int(settings.alerts.lateness_s * 1e6)
        self._is_take_over_due = False
        """Other rules are wanted, and what those in force have found is not all written."""
        self._hand_over(rules)
        self.read_exceptions()
        self._evidence = Evidence(store)
        self._writer = AlertWriter(
            store,
            self._evidence,
            generation=checkpoint.generation,
            clock=clock,
            failed=self.evaluator.failed,
            guard=self._guard,
            begun=self._begun_of,
        )
        self.completeness = Completeness(store, group=settings.worker.group, late_us=settings.accounting.late_us)
        self._open: dict[int, tuple[Group, Episode]] = {
            id(episode): (group, episode)
            for group in groups
            for episode in group.episodes
            if (episode.alert or episode.fired) and not episode.is_folded
        }
        # Those that were not written before the checkpoint, and those that were: what is the same is not written again.
        self._dirty: dict[int, tuple[Group, Episode]] = dict(self._open)
        self._states: dict[int, str] = {}
        ends = {partition: queue.offsets(partition)[1] for partition in range(queue.partition_count())}
        self._begun: dict[str, Any] | None = Progress(queue.topic_id(), ends).mark()
        """Where the queue ended when this began, until all that is evaluated: alerts of it may have been written."""
        self._missing_due_s = 0.0
        self._is_missing_known = False
        self._came_us: int | None = None
        """When other numbers were found missing than before, until near misses were looked at."""
        self._matches = 0
        self.turned_s = time.monotonic()
        self._tasks = (
            PeriodicTask(_FLUSH_INTERVAL_S, self._flush, (STORE_DOWN, STORE_REFUSES)),
            PeriodicTask(_LEDGER_INTERVAL_S, self._look_at_ledger, (STORE_DOWN, QUEUE_DOWN)),
            PeriodicTask(
                _MISSING_INTERVAL_S, self._read_missing, (STORE_DOWN, SEARCH_TOO_SLOW), share_max=_MISSING_SHARE_MAX
            ),
            PeriodicTask(_RECALL_INTERVAL_S, self._count_late, (STORE_DOWN, SEARCH_TOO_SLOW)),
            PeriodicTask(_RELOAD_INTERVAL_S, self.reload),
            PeriodicTask(_EXAMPLES_INTERVAL_S, self.in_force.examples.turn),
            PeriodicTask(_CATALOGUE_INTERVAL_S, self.read_states, (STORE_DOWN, STORE_REFUSES, SEARCH_TOO_SLOW)),
            PeriodicTask(_CATALOGUE_INTERVAL_S, self.read_exceptions, (STORE_DOWN, STORE_REFUSES, SEARCH_TOO_SLOW)),
            PeriodicTask(_ABSENT_INTERVAL_S, self._judge_absent, (STORE_DOWN,)),
            PeriodicTask(_SWEEP_INTERVAL_S, self._sweep),
            PeriodicTask(_RETENTION_INTERVAL_S, self._delete_old, (STORE_DOWN, SEARCH_TOO_SLOW)),
            PeriodicTask(
                _SNOOZE_INTERVAL_S, lambda: end_snoozes(store.documents, clock()), (STORE_DOWN, SEARCH_TOO_SLOW)
            ),
        )
        # At once: until then, others see the claim of whoever had the shard before.
        self._checkpoint_due_s = time.monotonic()
        self.in_force.note_files()
        self.progress.files_bad = self.in_force.files_bad
        self._note_rules()

    # --- reading --------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Read until told to stop; then write down how far that was. Raises LogweirError(CLAIM_LOST), Stopped."""
        until_it_answers(self.begin, self._stopping)
        topic_id = until_it_answers(self._queue.topic_id, self._stopping)
        if topic_id != self.progress.topic_id:
            self.progress.topic_id, self.progress.offsets, self.progress.times = topic_id, {}, {}
        shard = self._settings.alerts.shard.replace("/", "of")
        group = f"{self._settings.worker.group}-alerts-{shard}"
        join = partial(self._queue.consumer, group=group, assigned=self._assigned, revoked=lambda *_: None)
        self._consumer: Consumer = until_it_answers(join, self._stopping)
        try:
            while not self._stopping.is_set():
                self.turn()
            self._write_checkpoint(is_released=True)
        finally:
            self._consumer.close()

    def _assigned(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        for partition in partitions:
            if partition not in self.progress.offsets:
                offset = until_it_answers(partial(self._start_of, partition), self._stopping)
                self.progress.offsets[partition] = offset
                self.progress.beginnings.note_partition(
                    self.progress.topic_id, partition, offset, since_us=self._clock() - self._lateness_us
                )
        return {partition: self.progress.offsets[partition] for partition in partitions}

    def _start_of(self, partition: int) -> int:
        """Where a partition is begun that was never evaluated: with what came within the lateness."""
        return self._queue.offset_at(partition, (self._clock() - self._lateness_us) // 1000)

    def turn(self) -> None:
        """Poll, evaluate, and whatever is due beside that."""
        self.turned_s = time.monotonic()
        try:
            deliveries = self._consumer.poll(wait_s=0.0 if self._dirty else _IDLE_WAIT_S, records_max=_RECORDS_PER_POLL)
        except LogweirError as error:
            deliveries = []
            if error.problem is OFFSETS_EXPIRED:
                self._pass_over(error)
            else:
                tolerate(error, QUEUE_DOWN)
                self._stopping.wait(1.0)
        for delivery in deliveries:
            self.turned_s = time.monotonic()
            self._guard.watch()
            self.take(delivery)
            self._guard.rest()
            # A record may have ten thousand events: alerts of those before it must not wait.
            self._do_what_is_due()
        if not deliveries:
            if self._dirty:
                self._stopping.wait(_IDLE_WAIT_S / 4)
            self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        for task in self._tasks:
            task.run_when_due()
        if self._matches >= _MATCHES_PER_CHECKPOINT or time.monotonic() >= self._checkpoint_due_s:
            self._write_checkpoint()

    def take(self, delivery: Delivery) -> None:
        """Evaluate a record; then it is behind us."""
        partition = delivery.partition
        if delivery.offset < self.progress.offsets.get(partition, 0):
            return  # Handed out twice, around a change of the group.
        try:
            record = decode(delivery.payload)
        except LogweirError as error:
            if error.problem is not RECORD_CORRUPT:
                raise
        else:
            place = 0
            for batch in record.batches:
                self._evaluate_batch(partition, record, batch, place)
                place += len(batch.events)
        times = self.progress.times
        self.progress.offsets[partition] = delivery.offset + 1
        times[partition] = max(times.get(partition, 0), delivery.timestamp_ms * 1000)

    def _evaluate_batch(self, partition: int, record: Record, batch: Batch, place: int) -> None:
        context = context_of(batch)
        prefix, number_first = ids_of(batch)
        stream, day = identity.stream_of(record.ingest_epoch, partition), identity.day_of(batch.received_us)
        horizon_us = self.horizon_us
        for at, raw in enumerate(batch.events):
            provenance = Provenance(stream, record.first + place + at, identity.content_hash_of(raw))
            try:
                made = self._documents.make(
                    raw, context, id=prefix + str(number_first + at), day=day, provenance=provenance
                )
            except EventUnfit:
                continue  # A dead letter: the worker keeps it, and says why.
            if not isinstance(made, Filtered):
                self._evaluate(made, batch.received_us, (batch.key, batch.emitter), horizon_us)
        registry.get("logweir_alerter_events_total").inc(len(batch.events))

    def _evaluate(self, document: Document, received_us: int, emitter: Emitter, horizon_us: int) -> None:
        changes, late = self.evaluator.evaluate(
            document, received_us=received_us, emitter=emitter, horizon_us=horizon_us
        )
        if changes:
            self._evidence.note(document)
        for change in changes:
            self._matches += 1
            if change.hours_before != change.hours_after:
                self.storms.count(change.group.rule.name, change.hours_before, change.hours_after)
            if (change.episode.fired or change.episode.alert) and not change.episode.is_folded:
                self._open[id(change.episode)] = self._dirty[id(change.episode)] = change.group, change.episode
        for one in late:
            self._note_late(one)

    def _note_late(self, one: Late) -> None:
        if len(self.progress.late) < LATE_MAX:
            self.progress.late.append([one.rule.name, list(one.group), one.time_us, self._clock()])
        else:
            self.evaluator.count(one.rule.name, "unevaluated")

    @property
    def horizon_us(self) -> int:
        """What happened before then is too late to be counted from memory."""
        return self.progress.watermark_us - self._lateness_us

    def _pass_over(self, error: LogweirError) -> None:
        """The next offset is not in the queue: read on from the nearest that is, and say what was missed."""
        numbers = error.numbers
        partition, wanted, earliest = numbers["partition"], numbers["offset"], numbers["offset_earliest"]
        if until_it_answers(self._queue.topic_id, self._stopping) != self.progress.topic_id:
            raise error
        if wanted < earliest:
            log.error("%s Rules were not asked of %d records.", error, earliest - wanted)
            registry.get("logweir_alerter_records_missed_total").inc(earliest - wanted)
            self.progress.offsets[partition] = earliest
        else:
            # The queue was set back. What is read again is known by its ids.
            log.error("%s", error)
            self.progress.offsets[partition] = until_it_answers(partial(self._start_of, partition), self._stopping)
        self._consumer.seek(partition, self.progress.offsets[partition])

    # --- writing --------------------------------------------------------------------------------------------------
    def _flush(self) -> None:
        """Write the alerts of episodes that have changed, as many as there is time for; the others the next time.

        Raises LogweirError: STORE_DOWN, CLAIM_LOST.
        """
        self.begin()
        end_s = time.monotonic() + _FLUSH_S_MAX
        for key, (group, episode) in list(self._dirty.items()):
            if time.monotonic() > end_s:
                break
            if episode not in group.episodes:
                del self._dirty[key]  # It is a part of another one since.
                self._open.pop(key, None)
                continue
            self.evaluator.groups.touch(group)
            if self._folds(group, episode):
                del self._dirty[key]
                self._open.pop(key, None)
                continue
            verdict = self.completeness.judge(group.rule, episode.first_us, episode.received_us, of=episode.emitters)
            before = list(group.episodes)
            kind = self._kind_of(group.rule) if episode.fired else NEAR_MISS
            is_new = episode.alert is None and episode.fired_hour is not None
            missing = (
                self.completeness.counts_within(group.rule, episode.first_us, episode.received_us, of=episode.emitters)
                if kind == NEAR_MISS
                else {}
            )
            is_written = self._writer.write(group, episode, self.progress, verdict, kind=kind, missing=missing)
            if is_new and episode.alert is not None and kind != NEAR_MISS:
                self.storms.hour(group.rule.name, episode.fired_hour or 0).apart += 1
            if is_written:
                del self._dirty[key]
                self._states[key] = verdict["state"]
            for made in group.episodes:
                if made not in before and made.fired:
                    self._open[id(made)] = self._dirty[id(made)] = group, made
        self._write_storms()
        if self._begun is not None and not self._dirty and self.progress.is_past(self._begun):
            self._begun = None
        registry.get("logweir_alerter_pending_alerts").set(len(self._dirty))

    def begin(self) -> None:
        """Write down since which number rules are asked: before any of their alerts.

        And before that, what other rules had found before a restart. Raises LogweirError: STORE_DOWN, CLAIM_LOST.
        """
        if self.progress.beginnings.is_changed:
            left = self.evaluator.groups.left
            while left:
                self._write_left(left[-1])
                left.pop()
            self._note_progress()
            self._checkpoint.write(self.progress, self.evaluator.groups, clock=self._clock)

    def _write_left(self, one: Left) -> None:
        """Write the alert of a rule that is no more. It goes on no more, either."""
        before = self._begun_before.get(one.rule)
        rule = self.in_force.as_it_was(one.rule, before.revision if before is not None else "", one.group)
        group = Group(rule, one.group)
        group.episodes, one.episode.is_quiet = [one.episode], True
        if one.rule not in self.evaluator.rules or not self._folds(group, one.episode):
            verdict = self.completeness.judge(group.rule, one.episode.first_us, one.episode.received_us, of=())
            self._writer.write(group, one.episode, self.progress, verdict, kind=self._kind_of(group.rule))

    def _begun_of(self, rule: Rule) -> Begun | None:
        """Since when the rule is asked, or was until this start."""
        now, before = self.progress.beginnings.rules.get(rule.name), self._begun_before.get(rule.name)
        return next((one for one in (now, before) if one is not None and one.revision == rule.revision), None)

    def _folds(self, group: Group, episode: Episode) -> bool:
        """Whether the episode has no alert of its own: its rule has too many. Raises LogweirError(STORE_DOWN)."""
        if episode.is_folded:
            return True
        if not episode.fired or episode.alert is not None or episode.fired_hour is None:
            return False
        if not self.storms.is_storm(group.rule.name, episode.fired_hour):
            return False
        if self._begun is not None and self._writer.has_own(group, episode):
            self.storms.hour(group.rule.name, episode.fired_hour).apart += 1
            return False
        self.storms.fold(group, episode)
        return True

    def _kind_of(self, rule: Rule) -> str:
        return SHADOW if rule.name in self.evaluator.shadowed else ALERT

    def _write_storms(self) -> None:
        """Have the alerts of hours with too many say how many. Raises LogweirError: STORE_DOWN, CLAIM_LOST."""
        watermark_us = self.progress.watermark_us
        for name, number in sorted(self.storms.changed):
            rule, hour = self.evaluator.rules.get(name), self.storms.hour(name, number)
            if rule is None:
                self.storms.changed.discard((name, number))
                continue
            end_us = (number + 1) * HOUR_US
            verdict = self.completeness.judge(rule, number * HOUR_US, end_us, of=())
            is_over = end_us <= watermark_us
            kind = self._kind_of(rule)
            if self._writer.write_storm(rule, number, hour, self.progress, verdict, kind=kind, is_over=is_over):
                hour.folded.clear()
                # Until its hour is over and judged: then only another count changes it.
                if is_over and self.completeness.up_to_us >= end_us:
                    self.storms.changed.discard((name, number))

    def _write_checkpoint(self, *, is_released: bool = False) -> None:
        """Write down how far all is evaluated; what alerts have still to be written stands in it, too.

        Raises LogweirError(CLAIM_LOST).
        """
        began_s = time.monotonic()
        try:
            self._flush()
            self._note_progress()
            self._checkpoint.write(self.progress, self.evaluator.groups, clock=self._clock, is_released=is_released)
        except LogweirError as error:
            tolerate(error, STORE_DOWN, STORE_REFUSES)
            self._checkpoint_due_s = time.monotonic() + 1.0
            return
        self._matches = 0
        took_s = time.monotonic() - began_s
        self._checkpoint_due_s = time.monotonic() + max(
            self._settings.alerts.checkpoint_interval_s, took_s / _CHECKPOINT_SHARE_MAX - took_s
        )
        registry.get("logweir_alerter_checkpoint_seconds").observe(took_s)
        try:
            self._consumer.commit(self.progress.offsets)
        except LogweirError as error:
            if error.problem not in (QUEUE_DOWN, QUEUE_REBALANCING):
                raise

    def _note_progress(self) -> None:
        """What the checkpoint says beside the groups."""
        self._note_rules()
        self.progress.exceptions = dict(self.evaluator.excepted)
        self.progress.storms = self.storms.as_body()
        self.progress.sight = self.evaluator.sight.as_body()

    def _note_rules(self) -> None:
        """What the checkpoint says of each rule."""
        known, begun = self.progress.rules, self.progress.beginnings.rules
        self.progress.rules = {
            name: {
                "revision": rule.revision,
                "since": iso_seconds(begun[name].at.since_us),
                "counts": self.evaluator.counts.get(name, {}),
                "parked": self.evaluator.parked.get(name),
                "example_failed": self.in_force.examples.failed.get(name),
                **self._blindness(name, known.get(name, {})),
            }
            for name, rule in self.evaluator.rules.items()
            # Of imported rules there are thousands, and most have never found anything.
            if not rule.is_imported or name in self.evaluator.counts or name in self.evaluator.parked
        }

    def _blindness(self, name: str, before: Mapping[str, Any]) -> dict[str, Any]:
        """What a rule needs and does not get, and since when that has been so for a week."""
        missing = self.evaluator.sight.missing(name)
        since_us = before.get("blind_since_us") or self.progress.watermark_us or self._clock()
        return {"blind": missing, "blind_since_us": since_us if missing else None}

    # --- beside ---------------------------------------------------------------------------------------------------
    def reload(self) -> None:
        """Read rules, filters and tables again that have changed."""
        self._filters.reload()
        self._enrich.reload()
        if self.in_force.reload() or self._is_take_over_due:
            self._take_over()
        self.progress.files_bad = self.in_force.files_bad

    def read_states(self) -> None:
        """Read which rules are shadowed or disabled; write down what rules there are, where that is not known.

        Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
        """
        if self.in_force.read_states():
            self._take_over()
        self.in_force.describe()

    def read_exceptions(self) -> None:
        """Read what does not count, and try what is wanted. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
        found = exceptions.active(self._store.documents, self._clock())
        for at, one in enumerate(found):
            rule = self.evaluator.rules.get(one.rule)
            if one.state == exceptions.ExceptionState.WANTED and rule is not None:
                refusal = refusal_of(rule, one, self._settings)
                found[at] = exceptions.decide(self._store.documents, one.id, refusal=refusal, now_us=self._clock())
                log.info("The exception %s from %s: %s", one.id, one.rule, refusal or "it is in force.")
        excepting = exceptions.Excepting(found)
        if excepting.exceptions != self.evaluator.excepting.exceptions:
            self.evaluator.excepting = excepting

    def _take_over(self) -> None:
        """Have those rules in force that are now, as soon as what those before have found is written."""
        rules, before = self.in_force.rules, self.evaluator.rules
        self._is_take_over_due = True
        try:
            self._flush()
        except LogweirError as error:
            tolerate(error, STORE_DOWN, STORE_REFUSES)
        if any(
            episode.fired and episode.alert is None and not episode.is_folded
            for group, episode in self._dirty.values()
            if group.rule.name not in rules or rules[group.rule.name].revision != group.rule.revision
        ):
            return
        self._is_take_over_due = False
        self.evaluator.shadowed = self.in_force.shadowed
        self.evaluator.replace_rules(rules)
        groups = self.evaluator.groups
        self._open = {
            key: (group, episode)
            for key, (group, episode) in self._open.items()
            if groups.get(group.rule, group.values) is group
        }
        # An alert that goes on takes over what else its rule says now, such as the severity.
        self._dirty = {
            key: (group, episode)
            for key, (group, episode) in self._open.items()
            if key in self._dirty or before.get(group.rule.name) is not group.rule
        }
        self.storms.keep_only(rules)
        self._hand_over(rules)
        self._note_rules()
        log.info("Rules have changed: %d are evaluated here.", len(rules))
        try:
            self.begin()
        except LogweirError as error:
            tolerate(error, STORE_DOWN, STORE_REFUSES)  # The next flush does it, before any alert.

    def _hand_over(self, rules: Mapping[str, Rule]) -> None:
        """Have those rules begin here that are new or count something else than before."""
        progress = self.progress
        since_us = max(progress.times.values()) + 1000 if progress.times else self._clock() - self._lateness_us
        anew = progress.beginnings.hand_over(rules, Beginning(since_us, progress.topic_id, dict(progress.offsets)))
        for name in sorted(anew):
            log.warning("The rule %s counts something else than before: it begins anew.", name)
        # Late matches of what it was before are none of what it is now.
        for name, *_ in [row for row in progress.late if row[0] in anew]:
            self.evaluator.count(name, "unevaluated")
        progress.late = [row for row in progress.late if row[0] not in anew]

    def _look_at_ledger(self) -> None:
        """See where the queue ends, and how far the workers are. Raises LogweirError: QUEUE_DOWN, STORE_DOWN."""
        at_us = self._clock()
        ends = {partition: self._queue.offsets(partition)[1] for partition in self.progress.offsets}
        for partition, end in ends.items():
            if self.progress.offsets[partition] >= end:
                self.progress.times[partition] = max(self.progress.times.get(partition, 0), at_us)
        self._observe(at_us)
        if self.completeness.look(self.progress.topic_id, ends, at_us):
            self._judge_open()

    def _judge_open(self) -> None:
        """Episodes whose end or completeness may have become known."""
        for key, (group, episode) in list(self._open.items()):
            if episode not in group.episodes:
                self._open.pop(key)
                self._states.pop(key, None)
                continue
            is_by_time = group.rule.window.kind is not WindowKind.ABSENT
            if (
                is_by_time
                and not episode.is_quiet
                and self.completeness.up_to_us > max(episode.last_us + group.rule.quiet_us, episode.received_us)
            ):
                episode.is_quiet = True
                self._dirty[key] = group, episode
            verdict = self.completeness.judge(group.rule, episode.first_us, episode.received_us, of=episode.emitters)
            if self._states.get(key) != verdict["state"]:
                self._dirty[key] = group, episode

    def _judge_absent(self) -> None:
        """Find the groups that had matches and have none any more. Raises LogweirError(STORE_DOWN)."""
        if not any(rule.window.kind is WindowKind.ABSENT for rule in self.evaluator.rules.values()):
            return
        judged_us = min(self.progress.watermark_us, self.completeness.up_to_us)
        activity = read_activity(self._store, self._settings.worker.group)
        for group, episode in absent(self.evaluator.groups, judged_us, activity):
            before = group.fired_hours
            if episode.fired_hour is None:
                episode.fired_hour = episode.last_us // HOUR_US
            self.storms.count(group.rule.name, before, group.fired_hours)
            self.evaluator.groups.touch(group)
            self._open[id(episode)] = self._dirty[id(episode)] = group, episode

    def _read_missing(self) -> None:
        """Read what is missing of emitters, and which groups could have fired with it.

        Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
        """
        if time.monotonic() < self._missing_due_s:
            return
        began_s = time.monotonic()
        self._withdraw_near_misses()
        before, read_us = self.completeness.missing, self._clock()
        self.completeness.read_missing()
        if before != self.completeness.missing or not self._is_missing_known:
            self._came_us, self._is_missing_known = read_us, True
        # Of many emitters it takes long: then it is done less often.
        self._missing_due_s = time.monotonic() + (time.monotonic() - began_s) / _MISSING_SHARE_MAX
        if self.completeness.missing or before:
            for key, (group, episode) in self._open.items():
                if episode in group.episodes:
                    self._dirty[key] = group, episode
            self._find_near_misses()

    def _find_near_misses(self) -> None:
        for group in self.evaluator.groups:
            need = needed(group.rule.window)
            is_asked = need > 1 and group.rule.name not in self.evaluator.shadowed
            for episode in group.episodes if is_asked else ():
                if episode.fired or episode.alert is not None:
                    continue
                lost = self.completeness.lost_within(
                    group.rule, episode.first_us, episode.received_us, of=episode.emitters
                )
                if lost and group.best_of(episode) * 2 >= need and group.best_of(episode) + lost >= need:
                    self._open[id(episode)] = self._dirty[id(episode)] = group, episode

    def _withdraw_near_misses(self) -> None:
        """Close near misses for which too little was missing any more, once all that had come by then is evaluated.

        Those in the store: what they are of may be forgotten here. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
        """
        if self._came_us is None or self.progress.watermark_us < self._came_us or self.progress.late:
            return
        self._came_us = None
        query = And((Term("kind", NEAR_MISS), Not(Term("status", Status.CLOSED.value))))
        for one in self._store.documents.search(ALERTS, query, size=_NEAR_MISSES_MAX).documents:
            rule, body = self.evaluator.rules.get(one.body["rule"]), one.body
            if rule is None or "received" not in body:
                continue
            first_us, received_us = time_us_of(body["first"]), time_us_of(body["received"])
            missing = self.completeness.counts_within(rule, first_us, received_us)
            left = sum(count for emitter, count in missing.items() if name_of(emitter) in body["emitters"])
            if left < max(1, body.get("lacks", 0)):
                comment = "Too few numbers are missing still for the rule to fire." if left else _ALL_CAME
                judged = self.completeness.judge(rule, first_us, received_us, of=())
                self._writer.withdraw(one.id, judged, comment=comment)

    def _count_late(self) -> None:
        """Count matches that came too late for what is remembered, one group at a time.

        Once the workers have accounted for all that had come then: the store has them all. Raises LogweirError:
        STORE_DOWN, SEARCH_TOO_SLOW (they stay, for the next time).
        """
        ripe = [row for row in self.progress.late if row[3] < self.completeness.up_to_us]
        if not ripe:
            return
        name, values = ripe[0][0], tuple(ripe[0][1])
        times = [row[2] for row in ripe if row[0] == name and tuple(row[1]) == values]
        rule = self.evaluator.rules.get(name)
        group = None if rule is None else self.evaluator.groups.make(rule, values)
        if rule is None or group is None:
            self.evaluator.count(name, "unevaluated", len(times))
        else:
            self._recall(group, min(times), max(times))
        self.progress.late = [
            row for row in self.progress.late if row not in ripe or row[0] != name or tuple(row[1]) != values
        ]

    def _recall(self, group: Group, first_us: int, last_us: int) -> None:
        """Give a group back what it knew around these times, with the late matches in it."""
        if not len(group) and not group.episodes:
            group.known_from_us = max(group.known_from_us, self.horizon_us)
        self._store.refresh()
        matcher = self.evaluator.matcher([group.rule])
        try:
            found = recalled(self._store, group, matcher, first_us=first_us, last_us=last_us)
        except TooMany:
            log.warning("The rule %s has more late matches of one group than can be counted.", group.rule.name)
            self.evaluator.count(group.rule.name, "unevaluated")
            return
        excepting, name = self.evaluator.excepting, group.rule.name
        stored = [one for one in found if excepting.by(name, one.document) is None]
        group.recall([one.match for one in stored])
        group.others = None  # Of what was backfilled, some may be a part of an episode that has grown.
        for episode in group.episodes:
            for one in stored:
                if episode.first_us <= one.time_us <= episode.last_us:
                    self.evaluator.note_event(group.rule, episode, one.document, one.received_us)
                    episode.late_us = max(episode.late_us, one.received_us - one.time_us)
            if episode.fired or episode.alert:
                self._open[id(episode)] = self._dirty[id(episode)] = group, episode

    def _sweep(self) -> None:
        """Forget what is too old to matter."""
        if self.progress.watermark_us:
            self.evaluator.groups.forget_before(self.horizon_us, groups_max=_SWEEP_GROUPS)

    def _delete_old(self) -> None:
        """Delete closed alerts that are old. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
        deleted = delete_old(self._store.documents, self._clock() - self._settings.alerts.retention_days * DAY_US)
        if deleted:
            log.info("Deleted %d documents of alerts that were closed long ago.", deleted)

    def _observe(self, now_us: int) -> None:
        if self.progress.watermark_us:
            age_s = max(0.0, (now_us - self.progress.watermark_us) / 1e6)
            registry.get("logweir_alerter_watermark_age_seconds").set(age_s)
        registry.get("logweir_alerter_groups").set(len(self.evaluator.groups))
        registry.get("logweir_alerter_rules").set(len(self.evaluator.rules))
        registry.get("logweir_alerter_rules_parked").set(len(self.evaluator.parked))
        registry.get("logweir_alerter_open_episodes").set(len(self._open))
