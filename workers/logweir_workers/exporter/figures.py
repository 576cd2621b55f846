"""Every figure that comes from the ledger, as metrics: from the books to the rows of logweir/metrics/table.py.

To publish another one: a row in logweir/metrics/table.py, and a line in the function here that has its subject.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from logweir.audit.books import Books, read_books
from logweir.audit.lag import Lag, lags
from logweir.audit.windows import CLOSED_AFTERWARDS, PROCESS_GONE
from logweir.clock import WINDOW_US
from logweir.config import Settings
from logweir.ledger.emitter import Emitter, name_of
from logweir.ledger.equation import OUTCOMES
from logweir.ledger.expectations import EMITTER, SOURCE
from logweir.ledger.loss import NUMBERED, UNATTRIBUTED, LossClass
from logweir.ledger.position import Position, read_positions
from logweir.metrics import registry
from logweir.outcomes import DeadLetterReason
from logweir.queue.port import Queue
from logweir.silence.states import Silence, read_silence
from logweir.silence.watched import State
from logweir.store.port import Held, Store

OTHERS = "(others)"
Samples = Mapping[Any, float]
"""By label values, a tuple of them."""
_STATES = ("open", "balanced", "unbalanced", PROCESS_GONE, CLOSED_AFTERWARDS)


def published(settings: Settings, *, store: Store, queue: Queue, now_us: int) -> Iterator[Metric]:
    """All of it, read now. Raises LogweirError: STORE_DOWN, STORE_REFUSES, QUEUE_DOWN."""
    group = settings.worker.group
    topic_id, ever = queue.topic_id(), read_positions(store, group)
    positions = {partition: position for (topic, partition), position in ever.items() if topic == topic_id}
    offsets = {partition: position.next_offset or 0 for partition, position in positions.items()}
    behind = lags(queue, offsets, now_us=now_us)
    books = read_books(store, group=group, late_us=settings.accounting.late_us, now_us=now_us)
    yield from _events(books)
    yield from _numbered(books)
    yield _places(books)
    silence = read_silence(store, group=group, settings=settings.silence, now_us=now_us)
    yield from _silence(silence)
    yield from _worst(books, silence, settings.exporter.emitters_max)
    settled_us = min(_settled_us(lag, positions.get(at), now_us) for at, lag in behind.items())
    yield from _windows(books, settled_us, now_us)
    yield from _canaries(positions.values())
    expired = sum(position.expired.count + position.expired_before for position in ever.values())
    yield _family("logweir_queue_expired_offsets_total", {(): expired})
    labels = {partition: (queue.topic, str(partition), group) for partition in behind}
    yield _family("logweir_queue_lag_records", {labels[at]: lag.records for at, lag in behind.items()})
    ages = {labels[at]: lag.seconds for at, lag in behind.items() if lag.seconds is not None}
    yield _family("logweir_queue_head_age_seconds", ages)
    used = {labels[at]: lag.retention_used for at, lag in behind.items() if lag.retention_used is not None}
    yield _family("logweir_queue_retention_used_ratio", used)
    yield from _dead_letters(store)
    yield _family("logweir_ledger_read_timestamp_seconds", {(): now_us / 1e6})


def _family(name: str, samples: Samples) -> Metric:
    family = registry.family(name)
    for labels, value in samples.items():
        family.add_metric([str(label) for label in labels], value)
    return family


def _events(books: Books) -> Iterator[Metric]:
    """The first equation. What a replay or a retry has changed is counted apart, so that nothing ever falls."""
    corrected = {(one, other): 0 for one in OUTCOMES for other in OUTCOMES if one != other} | books.corrected
    first = dict(books.row.outcomes)
    for (from_outcome, to_outcome), count in corrected.items():
        first[from_outcome] += count
        first[to_outcome] -= count
    # The doors' word alone: a process that seems gone may be one whose worker is behind, and speak again.
    # Of what is carried, what was in windows: numbers outside of them are of no closed one.
    carried = books.carried.row
    accepted = carried.accepted - books.carried.outside_windows
    unconfirmed = carried.unconfirmed - carried.undecided - carried.void
    yield _family("logweir_events_accepted_total", {(): accepted + books.closed.accepted})
    yield _family("logweir_events_unconfirmed_total", {(): unconfirmed + books.closed.unconfirmed})
    yield _family("logweir_events_total", {(outcome,): count for outcome, count in first.items()})
    yield _family("logweir_events_corrected_total", corrected)
    yield _family("logweir_identity_conflicts_total", {(): books.row.identity_conflicts})
    yield _family("logweir_events_in_flight", {(): books.row.in_flight})
    yield _family("logweir_events_undecided", {(): books.row.undecided})


def _numbered(books: Books) -> Iterator[Metric]:
    """The second equation, by class; and what the queue lost, also of what has come after all."""
    sums = {name: dict.fromkeys(NUMBERED, 0) for name in ("created", "lost", "recovered", "dropped", "missing")}
    for loss_class, counts in books.carried.numbered.items():
        for name, carried in counts.items():
            sums[name][LossClass(loss_class)] += carried
    for emitter in books.emitters.values():
        for name, by_class in sums.items():
            known = emitter.total(name)
            if known is not None:
                by_class[emitter.loss_class] += known
    missing, expected = sums.pop("missing"), sums.pop("created")
    # Not "created": the name would be that of the series that says when logweir_events_total began.
    yield _family("logweir_events_expected_total", {(one,): count for one, count in expected.items()})
    for name, by_class in sums.items():
        yield _family(f"logweir_events_{name}_total", {(one,): count for one, count in by_class.items()})
    yield _family("logweir_events_missing", {(one,): count for one, count in missing.items()})
    yield _family("logweir_events_lost_in_queue_total", {(): books.row.lost_in_queue + books.row.recovered_in_queue})
    yield _family("logweir_events_recovered_in_queue_total", {(): books.row.recovered_in_queue})


def _places(books: Books) -> Metric:
    """Where what was lost was lost, and of which class it was. A gauge: whose it was may be learned later."""
    before, in_queue = dict.fromkeys(NUMBERED, 0), dict.fromkeys(LossClass, 0)
    for loss_class in in_queue:
        in_queue[loss_class] += books.carried.lost_in_queue[loss_class]
    for loss_class in before:
        before[loss_class] += max(0, books.carried.lost_before(loss_class))
    own: Counter[tuple[LossClass, Any]] = Counter()
    for emitter, found in books.emitters.items():
        loss_class, of_queue = books.class_of(emitter), found.row.lost_in_queue + found.row.recovered_in_queue
        in_queue[loss_class] += of_queue
        # Where events bring their numbers along, these are of other emitters of the key than sent them.
        own[loss_class, books.numbered_by(emitter)] += (found.total("lost") or 0) - of_queue
    for emitter, of_queue in books.carried.of_queue.items():
        loss_class = books.class_of(emitter)
        in_queue[loss_class] += of_queue
        own[loss_class, books.numbered_by(emitter)] -= of_queue
    for (loss_class, _), count in own.items():
        if loss_class in before:
            before[loss_class] += max(0, count)
    unattributed = books.row.lost_in_queue + books.row.recovered_in_queue - sum(in_queue.values())
    in_store = sum(max(0, -one.difference) for one in books.store_differences)
    samples: dict[tuple[str, str], int] = {("before_ingest", one): count for one, count in before.items()}
    samples |= {("queue", one): count for one, count in in_queue.items()}
    samples |= {("queue", UNATTRIBUTED): unattributed, ("store", UNATTRIBUTED): in_store}
    return _family("logweir_lost_events", samples)


def _silence(silence: Silence) -> Iterator[Metric]:
    emitters = {(state.value, one): 0 for state in State for one in LossClass}
    yield _family("logweir_emitters", {**emitters, **silence.emitter_counts()})
    sources = {**{state.value: 0 for state in State}, **silence.source_counts()}
    yield _family("logweir_sources", {(state,): count for state, count in sources.items()})
    findings = Counter(finding.of for finding in silence.findings)
    yield _family("logweir_silence_findings", {(of,): findings[of] for of in (EMITTER, SOURCE)})


def _highest(figures: Mapping[Emitter, int], size: int) -> tuple[dict[str, int], list[int]]:
    """The highest figures by name, and all others. Of one key at most half, unless there are not so many of others."""
    ranked = sorted(figures.items(), key=lambda item: -item[1])
    of_key: Counter[str] = Counter()
    chosen: dict[Emitter, int] = {}
    for emitter, figure in ranked:
        of_key[emitter[0]] += 1
        if len(chosen) < size and of_key[emitter[0]] <= max(1, size // 2):
            chosen[emitter] = figure
    for emitter, figure in ranked:
        if len(chosen) < size:
            chosen.setdefault(emitter, figure)
    named = {name_of(emitter): figure for emitter, figure in chosen.items()}
    return named, [figure for emitter, figure in ranked if emitter not in chosen]


def _worst(books: Books, silence: Silence, emitters_max: int) -> Iterator[Metric]:
    """A series for each of the emitters that lost most, or are silent longest; one for all others, and how many."""
    lost = {
        emitter: (found.total("lost") or 0) - (found.total("recovered") or 0)
        for emitter, found in books.emitters.items()
    }
    figures: dict[str, dict[Emitter, int]] = {
        "logweir_emitter_lost_events": {emitter: count for emitter, count in lost.items() if count},
        "logweir_emitter_silence_seconds": {
            (one.subject[1] or "", one.subject[2]): one.silent_s
            for one in silence.emitters
            if one.state is State.SILENT
        },
    }
    capped = {}
    for metric, by_name in figures.items():
        named, others = _highest(by_name, emitters_max)
        rest = sum(others) if metric == "logweir_emitter_lost_events" else max(others, default=0)
        yield _family(metric, {**{(name,): figure for name, figure in named.items()}, (OTHERS,): rest})
        capped[(metric,)] = len(others)
    yield _family("logweir_series_capped", capped)


def _settled_us(lag: Lag, position: Position | None, now_us: int) -> int:
    """Up to when all that the queue took for a partition is settled, whether anybody has ever read it or not."""
    if lag.seconds is None:  # The queue did not give its first record in time: the last that was settled is known.
        return position.watermark_us if position else 0
    return now_us - int(lag.seconds * 1e6)


def _windows(books: Books, settled_us: int, now_us: int) -> Iterator[Metric]:
    states = {**dict.fromkeys(_STATES, 0), **books.states}
    labels = {state: (state.removeprefix("open: ").replace(" ", "_"),) for state in states}
    yield _family("logweir_ledger_windows", {labels[state]: count for state, count in states.items()})
    yield _family("logweir_ledger_imbalance_events", {(): books.imbalance})
    opened = [window.window.window * WINDOW_US for window in books.windows if window.state == "open"]
    yield _family("logweir_ledger_oldest_open_window_timestamp_seconds", {(): min(opened, default=now_us) / 1e6})
    samples = {("settled",): settled_us / 1e6, ("closed",): min(*opened, settled_us, now_us) / 1e6}
    yield _family("logweir_stage_watermark_timestamp_seconds", samples)


def _canaries(positions: Iterable[Position]) -> Iterator[Metric]:
    back: dict[str, int] = defaultdict(int)
    for position in positions:
        for epoch, canary in position.canaries.items():
            back[epoch] = max(back[epoch], canary.sent_us)
    samples = {(epoch[:12],): sent_us / 1e6 for epoch, sent_us in back.items()}
    yield _family("logweir_canary_last_success_timestamp_seconds", samples)


def _dead_letters(store: Store) -> Iterator[Metric]:
    held = {**{reason.value: Held(0, 0) for reason in DeadLetterReason}, **store.dead_letters.count()}
    yield _family("logweir_dead_letters_held", {(reason,): one.letters for reason, one in held.items()})
    yield _family("logweir_dead_letters_held_bytes", {(reason,): one.size_bytes for reason, one in held.items()})
