"""Who has fallen silent: of every emitter and every source (category and host name) its state, and findings.

A state is learned from the ledger alone. Silence is the time since something last came of a subject, counted in minutes
that could be observed: in which a record of any kind was received, and that the workers are past. So neither our own
downtime nor a worker that lags makes anybody silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.clock import DAY_US, WINDOW_US
from logweir.config import SilenceSettings
from logweir.ledger.activity import caught_up_minutes, of_latest_topic, overall, read_activities
from logweir.ledger.cadence import ACTIVITY_MINUTES, Cadence, united_bits, united_cadence
from logweir.ledger.documents import EMITTER as EMITTER_DOCUMENT
from logweir.ledger.documents import SOURCES, PartitionId
from logweir.ledger.emitter import EmitterActivity, name_of
from logweir.ledger.expectations import DEFAULT, EMITTER, SOURCE, Expectation, Subject, read_expectations
from logweir.ledger.loss import LossClass
from logweir.ledger.position import Position, read_positions
from logweir.ledger.source import LastBatch, Source, sources_from_body
from logweir.silence.activity import ActivityMinutes
from logweir.silence.findings import Finding, findings_of
from logweir.silence.watched import State, Watched
from logweir.store.port import Store

_GAPS_MIN = 3
_FORGIVEN_MAX = 2
_FORGIVEN_EVERY_US = 14 * DAY_US
_HOUR_US = 60 * WINDOW_US
_NEVER = LastBatch(0, "", "", "")


@dataclass(slots=True)
class Silence:
    """All of them, by name. ``judged_us``: up to when every partition is accounted for; 0: that is not known.

    ``emitters_untracked`` and ``sources_untracked``: how often something came of such that there was no room for.
    """

    emitters: list[Watched]
    sources: list[Watched]
    findings: list[Finding]
    judged_us: int = 0
    emitters_untracked: int = 0
    sources_untracked: int = 0

    def emitter_counts(self) -> dict[tuple[str, str], int]:
        """How many emitters there are of each state and class."""
        return Counter((one.state.value, str(one.loss_class)) for one in self.emitters)

    def source_counts(self) -> dict[str, int]:
        """How many sources are in each state."""
        return Counter(one.state.value for one in self.sources)

    def as_json(self) -> dict[str, Any]:
        return {
            "judged_us": self.judged_us,
            "findings": [one.as_json() for one in self.findings],
            "emitters": [one.as_json() for one in self.emitters],
            "sources": [one.as_json() for one in self.sources],
            "emitters_untracked": self.emitters_untracked,
            "sources_untracked": self.sources_untracked,
        }


# --- reading ------------------------------------------------------------------------------------------------------
def read_silence(store: Store, *, group: str, settings: SilenceSettings, now_us: int) -> Silence:
    """States and findings as the ledger has them now. Raises LogweirError(STORE_DOWN).

    ``now_us`` is only for mutings that end: everything else is judged by what the workers are past.
    """
    # Before the emitters and sources: nobody is called silent of whom something has come since.
    minutes, activity, positions = _observed(store, group)
    judge = _Judge(settings, activity, read_expectations(store, group), now_us)
    accounted = overall(minutes)
    emitters = [one.judged(judge, accounted) for one in _emitters(store, group, minutes)]
    sources = [one.judged(judge, accounted) for one in _sources(store, group)]
    for watched in (emitters, sources):
        watched.sort(key=lambda one: one.name)
    return Silence(
        emitters=emitters,
        sources=sources,
        findings=[*findings_of(emitters, settings), *findings_of(sources, settings)],
        judged_us=accounted * WINDOW_US,
        emitters_untracked=sum(position.emitters_untracked for position in positions),
        sources_untracked=sum(position.sources_untracked for position in positions),
    )


def _observed(store: Store, group: str) -> tuple[dict[PartitionId, int], ActivityMinutes, list[Position]]:
    """The minute up to which each partition is accounted for, the minutes with any activity, and all positions."""
    activities, positions = read_activities(store, group), read_positions(store, group)
    active = united_bits(ACTIVITY_MINUTES, (activity.minutes for activity in activities.values()))
    return of_latest_topic(caught_up_minutes(positions, activities)), ActivityMinutes(active), list(positions.values())


@dataclass(slots=True)
class _Seen:
    """One emitter or source, put together from all partitions that something of it came on."""

    subject: Subject
    name: str
    first_us: int = 0
    last: LastBatch = _NEVER
    cadences: list[Cadence] = field(default_factory=list)
    caught_up: int | None = None
    """The minute up to which the partitions are accounted for that its numbered events go to."""
    is_anywhere: bool = True
    """Its events may come on any partition."""
    loss_class: LossClass | None = None
    bye_us: int = 0
    run_us: int = 0

    def add(self, first_us: int, last: LastBatch, cadence: Cadence) -> None:
        self.first_us = min(self.first_us or first_us, first_us)
        self.last = max(self.last, last)
        self.cadences.append(cadence)

    def judged(self, judge: _Judge, accounted: int) -> Watched:
        said_goodbye = self.bye_us > 0 and self.bye_us >= self.last.received_us
        caught_up = accounted if self.is_anywhere or self.caught_up is None else self.caught_up
        return judge.judged(self, caught_up, said_goodbye=said_goodbye)


def _emitters(store: Store, group: str, minutes: Mapping[PartitionId, int]) -> Iterable[_Seen]:
    found: dict[Subject, _Seen] = {}
    for place, document in EMITTER_DOCUMENT.scan(store.ledger, group):
        activity = EmitterActivity.from_body(document.body)
        subject = EMITTER, *activity.emitter
        one = found.get(subject)
        if one is None:
            one = found[subject] = _Seen(
                subject, name_of(activity.emitter), is_anywhere=False, loss_class=LossClass.UNKNOWN
            )
        one.add(activity.first_us, activity.last, activity.cadence)
        if activity.is_numbered:
            _add_runs(one, activity, minutes.get(place.partition_id))
        else:
            one.is_anywhere = True
    return found.values()


def _add_runs(one: _Seen, activity: EmitterActivity, caught_up: int | None) -> None:
    """It numbers its events: then all of a run goes to one partition, and only that one has to be accounted for."""
    if caught_up is not None:
        one.caught_up = caught_up if one.caught_up is None else min(one.caught_up, caught_up)
    is_natural = activity.is_natural or one.loss_class is LossClass.FROM_FIELDS
    one.loss_class = LossClass.FROM_FIELDS if is_natural else LossClass.EXACT
    if activity.run_us >= one.run_us:
        one.run_us = activity.run_us
        one.bye_us = activity.run_us if activity.has_ended else 0


def _sources(store: Store, group: str) -> Iterable[_Seen]:
    found: dict[Source, _Seen] = {}
    for _, document in SOURCES.scan(store.ledger, group):
        for state in sources_from_body(document.body):
            one = found.get(state.source)
            if one is None:
                one = found[state.source] = _Seen((SOURCE, *state.source), source_name(state.source))
            one.add(state.first_us, state.last, state.cadence)
    return found.values()


def source_name(source: Source) -> str:
    """``category@hostname``, a dash for what the events have not; no two sources have the same name.

    So what would make one look like another is written as in a URL: ``%40`` for an @ in a category.
    """
    category, hostname = source
    before = "-" if category is None else _escaped(category).replace("@", "%40")
    return f"{before}@{'-' if hostname is None else _escaped(hostname)}"


def _escaped(name: str) -> str:
    return "%2D" if name == "-" else name.replace("%", "%25")


# --- judging ------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Judge:
    settings: SilenceSettings
    activity: ActivityMinutes
    expectations: Mapping[Subject, Expectation]
    now_us: int

    def judged(self, one: _Seen, caught_up: int, *, said_goodbye: bool) -> Watched:
        expectation = self.expectations.get(one.subject, DEFAULT)
        last_minute = one.last.received_us // WINDOW_US
        silent_s = 60 * self.activity.minutes_between(last_minute + 1, caught_up - 1)
        unobserved_s = max(0, 60 * (caught_up - last_minute - 1) - silent_s)
        expected_s = float(expectation.every_s) if expectation.every_s is not None else self._learned_s(one)
        late_after_s = (expected_s or 0.0) * self.settings.late_factor
        if expectation.is_muted(self.now_us):
            state = State.MUTED
        elif said_goodbye or (expectation.retired_us is not None and one.last.received_us <= expectation.retired_us):
            state = State.RETIRED
        elif expected_s is None:
            state = State.LEARNING
        elif silent_s <= late_after_s:
            state = State.OK
        else:
            state = State.LATE if silent_s <= expected_s * self.settings.silent_factor else State.SILENT
        return Watched(
            subject=one.subject,
            name=one.name,
            state=state,
            first_us=one.first_us,
            last=one.last,
            silent_s=silent_s,
            unobserved_s=unobserved_s,
            expected_s=expected_s,
            late_after_s=late_after_s,
            expectation=expectation,
            loss_class=one.loss_class,
        )

    def _learned_s(self, one: _Seen) -> float | None:
        """The longest gap that is usual. Of two weeks the longest of all; then one, later two longer ones are forgiven:
        an outage of theirs is not learned for good, and what is silent at weekends is known to be.
        """
        cadence = united_cadence(one.cadences)
        # Of what came before the memory begins nothing is known.
        age_us = one.last.received_us - max(one.first_us, cadence.hours.first * _HOUR_US)
        marks = max(cadence.minutes.bits.bit_count(), cadence.hours.bits.bit_count())
        if age_us < self.settings.learn_s * 1e6 or marks <= _GAPS_MIN:
            return None
        forgiven = min(_FORGIVEN_MAX, age_us // _FORGIVEN_EVERY_US)
        return max(self.settings.floor_s, self.activity.usual_gap_s(cadence, forgiven=forgiven))
