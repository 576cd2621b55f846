"""What the accounting has found, as rules about it are asked: read through the functions of audit and silence.

Everything is judged up to where the workers have accounted for all (the ledger's watermark): neither our own downtime
nor a worker that lags finds anything. Findings are read whole every time; what is new of them, the rules' alerts say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from logweir.alerts.alert import ALERTS
from logweir.alerts.findings import NUMBERS_MAX, Finding, FindingKind
from logweir.audit.books import Books, read_books
from logweir.audit.emitters import Run
from logweir.audit.volumes import Volumes, read_volumes
from logweir.clock import WINDOW_US, Clock
from logweir.config import Settings
from logweir.ledger.activity import read_activities
from logweir.ledger.cadence import ACTIVITY_MINUTES, united_bits
from logweir.ledger.documents import ALERTER, HOUR_WINDOWS
from logweir.ledger.emitter import Emitter, name_of
from logweir.ledger.intervals import pairs
from logweir.ledger.source import Source
from logweir.ledger.window import Window
from logweir.query.match import time_us_of
from logweir.query.tree import And, Range, Term
from logweir.silence.activity import ActivityMinutes
from logweir.silence.findings import Finding as Silent
from logweir.silence.states import Silence, read_silence
from logweir.silence.watched import State, Watched
from logweir.store.port import Store

LOOK_BACK_US = 86_400_000_000
"""So far behind what was judged before, findings are told anew: what became known late is among them."""
AFTER_MATCH_US = 600_000_000
"""A loss or a silence that begins so soon after an alert about the same emitter may be somebody's doing."""
SLOT_WINDOWS = 10
"""Dead letters are counted by so many minutes."""
_SLOTS_BEFORE = 6
_DAY_HOURS = 24
_WEEK_HOURS = 7 * _DAY_HOURS
_OBSERVED_MINUTES_MIN = 58
"""An hour of which fewer were observed says nothing of volumes: that was our own downtime."""
_ALERTS_MAX = 1_000
_GROWTHS_MAX = 1_000
_ROWS_MAX = 100
_NEEDS_NAMED_MAX = 5
_HOUR_US = HOUR_WINDOWS * WINDOW_US


@dataclass(slots=True)
class BooksState:
    """What has to be remembered between two looks, and over restarts."""

    judged_us: int = 0
    """Up to when findings were judged; 0 before the first time."""
    growths: dict[str, list[list[int]]] = field(default_factory=dict)
    """Of counts in the ledger that have no times: when each grew, and by how much."""

    def as_body(self) -> dict[str, Any]:
        return {"judged_us": self.judged_us, "growths": self.growths}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> BooksState:
        growths = {name: [list(row) for row in rows] for name, rows in body.get("growths", {}).items()}
        return cls(body.get("judged_us", 0), growths)


@dataclass(slots=True)
class Findings:
    """All that was found, judged up to ``judged_us``."""

    judged_us: int
    findings: list[Finding]
    runs: frozenset[tuple[str, str]]
    """The runs of emitters of which every lost number is among the findings: emitter and run, by name."""
    state: BooksState

    @property
    def since_us(self) -> int:
        """What happened before then is told no more."""
        return (self.state.judged_us or self.judged_us) - LOOK_BACK_US


class FindingReader:
    """Reads findings. For one thread. ``volumes`` are read again only when another hour is over."""

    def __init__(self, store: Store, settings: Settings, *, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._group = settings.worker.group
        self._clock = clock
        self._volumes: Volumes = {}
        self._volumes_hour = 0

    def read(self, state: BooksState) -> Findings | None:
        """All findings as they are now; None while nothing is accounted for.

        ``state`` is that of the look before; the findings have the new one. Raises LogweirError: STORE_DOWN,
        SEARCH_TOO_SLOW.
        """
        settings, now_us = self._settings, self._clock()
        silence = read_silence(self._store, group=self._group, settings=settings.silence, now_us=now_us)
        if not silence.judged_us:
            return None
        since_us = (state.judged_us or silence.judged_us) - LOOK_BACK_US
        books = read_books(
            self._store,
            group=self._group,
            late_us=settings.accounting.late_us,
            now_us=now_us,
            keeps=lambda window: window.window * WINDOW_US >= since_us and _is_remarkable(window),
        )
        now = BooksState(state.judged_us, dict(state.growths))
        places = _Places.of(books, silence)
        found = [
            *_lost(books, places, now, silence.judged_us),
            *_jumped(books, places),
            *_silent(silence, places),
            *_of_windows(books, places, silence.judged_us, since_us),
            *_queue_loss(books, places, now, silence.judged_us),
            *self._volume(places, silence, silence.judged_us),
            *_blind(self._store, self._group, silence.judged_us),
        ]
        found += self._after_match(found, since_us)
        runs = frozenset(
            (name_of(emitter), run.tracker.epoch)
            for emitter, known in books.emitters.items()
            for run in known.runs
            if not _unranged(run)
        )
        return Findings(silence.judged_us, found, runs, now)

    def _volume(self, places: _Places, silence: Silence, judged_us: int) -> Iterator[Finding]:
        """Of each whole hour of the last day, what each emitter sent, and what it sent in hours like it."""
        last = judged_us // _HOUR_US - 1
        if last != self._volumes_hour:
            self._volumes = read_volumes(self._store, self._group, from_hour=last - _WEEK_HOURS - _DAY_HOURS)
            self._volumes_hour = last
        minutes = (one.minutes for one in read_activities(self._store, self._group).values())
        activity = ActivityMinutes(united_bits(ACTIVITY_MINUTES, minutes))
        observed = [
            hour
            for hour in range(last - _DAY_HOURS + 1, last + 1)
            if activity.minutes_between(hour * HOUR_WINDOWS, (hour + 1) * HOUR_WINDOWS - 1) >= _OBSERVED_MINUTES_MIN
        ]
        silent = {one.name for one in silence.emitters if one.state is State.SILENT}
        for emitter, by_hour in self._volumes.items():
            began_hour = min(by_hour)
            for hour in observed:
                like = [one for one in (hour - 1, hour - _DAY_HOURS, hour - _WEEK_HOURS) if one > began_hour]
                # Without the same hour of the day before, nothing is known of what is usual.
                if hour - _DAY_HOURS in like and by_hour[hour] and name_of(emitter) not in silent:
                    yield places.finding(
                        FindingKind.VOLUME,
                        emitter,
                        count=by_hour[hour],
                        usual=float(min(by_hour[one] for one in like)),
                        first_us=hour * _HOUR_US,
                        last_us=(hour + 1) * _HOUR_US,
                    )

    def _after_match(self, found: Iterable[Finding], since_us: int) -> list[Finding]:
        """Losses and silences that began soon after an alert about events of the same emitter or host."""
        suspects = [one for one in found if one.of in (FindingKind.LOST, FindingKind.SILENT)]
        suspects = [one for one in suspects if one.first_us >= since_us]
        if not suspects:
            return []
        low_ms = (min(one.first_us for one in suspects) - AFTER_MATCH_US) // 1000
        query = And((Term("kind", "alert"), Range("last", low_ms, None)))
        alerts = [one.body for one in self._store.documents.search(ALERTS, query, size=_ALERTS_MAX).documents]
        made = []
        for one in suspects:
            before = [
                body
                for body in alerts
                if _concerns(body, one)
                and _is_just_before(
                    body, one.first_us, AFTER_MATCH_US, slack_us=WINDOW_US if one.of is FindingKind.SILENT else 0
                )
            ]
            if before:
                said = "fell silent" if one.of is FindingKind.SILENT else "lost numbers"
                made.append(
                    Finding(
                        of=FindingKind.AFTER_MATCH,
                        # Of lost numbers with the run: by it, it is known whether they came after all.
                        values={
                            "emitter": one.emitters[0] if one.emitters else one.group,
                            "after": said,
                            **({"run": one.values["run"]} if one.of is FindingKind.LOST else {}),
                        },
                        count=one.count,
                        first_us=one.first_us,
                        last_us=one.first_us,
                        emitters=one.emitters,
                        hosts=one.hosts,
                        categories=one.categories,
                        numbers=one.numbers,
                        alerts=tuple(body["id"] for body in before[:10]),
                        text=f"{said} soon after: {before[0]['summary']}",
                    )
                )
        return made


def _concerns(body: Mapping[str, Any], one: Finding) -> bool:
    """Whether an alert is about events of the finding's emitters or hosts."""
    if "finding" in body:
        return False
    hosts = {event["event"].get("hostname") for event in (*body["evidence"], *body["evidence_last"])}
    return bool(set(body.get("emitters", ())) & set(one.emitters) or hosts & set(one.hosts))


def _is_just_before(body: Mapping[str, Any], time_us: int, within_us: int, *, slack_us: int) -> bool:
    # Of what fell silent, the match may be the last that came: its own time and that of its receipt differ a little.
    first_us, last_us = time_us_of(body["first"]), time_us_of(body["last"])
    return first_us - slack_us < time_us <= last_us + within_us


# --- whose they are -----------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Places:
    """By key and address, the sources of which events came last from there, and the emitters that send from there.

    The ledger does not know which emitter's events a source's are: where only one sends from there, they are its own.
    """

    addresses: dict[Emitter, str]
    sources: dict[tuple[str, str], list[Source]]
    emitters: Counter[tuple[str, str]]

    @classmethod
    def of(cls, books: Books, silence: Silence) -> _Places:
        sources: dict[tuple[str, str], list[Source]] = defaultdict(list)
        for one in silence.sources:
            sources[one.last.key, one.last.source_address].append((one.subject[1], one.subject[2]))
        addresses = {emitter: known.source_address for emitter, known in books.emitters.items()}
        emitters = Counter((emitter[0], address) for emitter, address in addresses.items())
        return cls(addresses, dict(sources), emitters)

    def sources_of(self, emitter: Emitter) -> list[Source]:
        """Its sources, and those of other emitters that send from where it does."""
        return self.sources.get((emitter[0], self.addresses.get(emitter, "")), [])

    def hosts_of(self, emitters: Iterable[Emitter]) -> tuple[str, ...]:
        """The hosts of the emitters' own events: the address where these have none; nothing where it is not known."""
        hosts: set[str] = set()
        for emitter in emitters:
            address = self.addresses.get(emitter, "")
            if self.emitters[emitter[0], address] == 1:
                hosts.update(_hosts(self.sources_of(emitter), address))
        return tuple(sorted(hosts))

    def finding(
        self, of: FindingKind, emitter: Emitter, *, values: Mapping[str, str] | None = None, **fields: Any
    ) -> Finding:
        """A finding about one emitter."""
        sources = self.sources_of(emitter)
        return Finding(
            of=of,
            values={"emitter": name_of(emitter), **(values or {})},
            emitters=(name_of(emitter),),
            hosts=self.hosts_of([emitter]),
            categories=tuple(sources),
            **fields,
        )


def _hosts(sources: Iterable[Source], address: str) -> tuple[str, ...]:
    named = tuple(sorted({hostname for _, hostname in sources if hostname}))
    return named or ((address,) if address else ())


# --- each kind ----------------------------------------------------------------------------------------------------
def _lost(books: Books, places: _Places, state: BooksState, judged_us: int) -> Iterator[Finding]:
    for emitter, known in books.emitters.items():
        for run in known.runs:
            values = {"run": run.tracker.epoch}
            lost = {tuple(pair) for pair in run.lost_ranges}
            gaps = sorted(
                (gap for gap in run.tracker.gaps if (gap.first, gap.last) in lost), key=lambda gap: gap.since_us
            )
            # What an emitter says to have dropped itself is not lost; it explains the oldest of its gaps.
            explained = max(0, sum(gap.count for gap in gaps) + max(0, _unranged(run)) - run.losses.net)
            # Those of one minute are one finding: an emitter that loses every tenth event has very many gaps.
            for _, together in groupby(gaps, key=lambda gap: gap.since_us // WINDOW_US):
                of_minute = list(together)
                whole = sum(gap.count for gap in of_minute)
                count = whole - min(explained, whole)
                explained -= whole - count
                if count:
                    yield places.finding(
                        FindingKind.LOST,
                        emitter,
                        values=values,
                        count=count,
                        first_us=min(gap.since_us for gap in of_minute),
                        last_us=max(gap.since_us for gap in of_minute),
                        numbers=tuple((gap.first, gap.last) for gap in of_minute[:NUMBERS_MAX]),
                    )
            name = f"lost:{name_of(emitter)}:{run.tracker.epoch}"
            for at_us, count in _growth(state, name, max(0, _unranged(run) - explained), judged_us):
                yield places.finding(
                    FindingKind.LOST,
                    emitter,
                    values={**values, "numbers": "not kept"},
                    count=count,
                    first_us=at_us,
                    last_us=at_us,
                )


def _jumped(books: Books, places: _Places) -> Iterator[Finding]:
    for emitter, known in books.emitters.items():
        for run in known.runs:
            jumps = sorted((gap for gap in run.tracker.gaps if gap.is_jump), key=lambda gap: gap.since_us)
            for since_us, together in groupby(jumps, key=lambda gap: gap.since_us):
                of_jump = list(together)
                yield places.finding(
                    FindingKind.JUMP,
                    emitter,
                    values={"run": run.tracker.epoch},
                    count=sum(gap.count for gap in of_jump),
                    first_us=since_us,
                    last_us=since_us,
                    numbers=tuple((gap.first, gap.last) for gap in of_jump[:NUMBERS_MAX]),
                )


def _unranged(run: Run) -> int:
    """How many of its lost numbers are only counted."""
    return run.tracker.lost_below - run.tracker.recovered_below


def _growth(state: BooksState, name: str, total: int, judged_us: int) -> list[tuple[int, int]]:
    """When a count of the ledger grew, and by how much: what it falls by is taken off the latest."""
    rows = [list(row) for row in state.growths.get(name, ())]
    known = sum(count for _, count in rows)
    if total > known:
        rows.append([judged_us, total - known])
    while known > total and rows:
        taken = min(known - total, rows[-1][1])
        rows[-1][1] -= taken
        known -= taken
        if not rows[-1][1]:
            rows.pop()
    if len(rows) > _ROWS_MAX:
        rows[:2] = [[rows[0][0], rows[0][1] + rows[1][1]]]
    if rows:
        state.growths[name] = rows
    else:
        state.growths.pop(name, None)
    while len(state.growths) > _GROWTHS_MAX:
        del state.growths[next(iter(state.growths))]
    return [(at_us, count) for at_us, count in rows]


def _silent(silence: Silence, places: _Places) -> Iterator[Finding]:
    """Silent emitters; and silent sources, but for those that an emitter's silence explains."""
    explained = {
        (member.last.key, member.last.source_address)
        for one in silence.findings
        if one.of == "emitter"
        for member in one.members
    }
    for one in silence.findings:
        if one.of == "emitter" or any(_whence(member) not in explained for member in one.members):
            yield _silence_finding(one, places, silence.judged_us)


def _whence(one: Watched) -> tuple[str, str]:
    return one.last.key, one.last.source_address


def _silence_finding(one: Silent, places: _Places, judged_us: int) -> Finding:
    if one.of == "emitter":
        emitters = [(member.subject[1] or "", member.subject[2]) for member in one.members]
        sources = [source for emitter in emitters for source in places.sources_of(emitter)]
        named = tuple(name_of(emitter) for emitter in emitters)
        hosts = places.hosts_of(emitters)
    else:
        sources = [(member.subject[1], member.subject[2]) for member in one.members]
        named = ()
        hosts = _hosts(sources, one.members[0].last.source_address)
    expected_s = max((member.expected_s or 0.0 for member in one.members), default=0.0)
    return Finding(
        of=FindingKind.SILENT,
        values={"of": one.of, one.kind if one.kind != one.of else "name": one.name},
        count=len(one.members),
        first_us=one.since_us,
        last_us=judged_us,
        lasts=True,
        emitters=named,
        hosts=hosts,
        categories=tuple(sources),
        text=f"usual is something every {expected_s:.0f} s",
    )


def _is_remarkable(window: Window) -> bool:
    return any(one.dead_lettered or one.identity_conflicts for one in window.outcomes.values())


def _of_windows(books: Books, places: _Places, judged_us: int, since_us: int) -> Iterator[Finding]:
    """Identity conflicts by minute, and dead letters by ten minutes, as they were settled first."""
    slots: dict[Emitter, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for one in books.windows:
        minute = one.window.window
        if minute * WINDOW_US < since_us:
            continue
        for emitter, counts in one.window.outcomes.items():
            if counts.identity_conflicts:
                yield places.finding(
                    FindingKind.CONFLICT,
                    emitter,
                    count=counts.identity_conflicts,
                    first_us=minute * WINDOW_US,
                    last_us=(minute + 1) * WINDOW_US,
                )
            if counts.dead_lettered:
                slots[emitter][minute // SLOT_WINDOWS] += counts.dead_lettered
    slot_us = SLOT_WINDOWS * WINDOW_US
    for emitter, by_slot in slots.items():
        for slot, count in by_slot.items():
            before = [by_slot.get(slot - number, 0) for number in range(1, _SLOTS_BEFORE + 1)]
            # What is before the first look back is not known: a slot there would look as if it rose.
            if (slot - _SLOTS_BEFORE) * slot_us >= since_us and (slot + 1) * slot_us <= judged_us:
                yield places.finding(
                    FindingKind.DEAD_LETTERS,
                    emitter,
                    count=count,
                    usual=sum(before) / _SLOTS_BEFORE,
                    first_us=slot * slot_us,
                    last_us=(slot + 1) * slot_us,
                )


def _blind(store: Store, group: str, judged_us: int) -> Iterator[Finding]:
    """Rules that are blind, as the alerters' checkpoints have them."""
    for _, document in ALERTER.scan(store.ledger, group):
        for name, row in document.body["rules"].items():
            if row.get("blind"):
                yield Finding(
                    of=FindingKind.BLIND,
                    values={"rule": name},
                    count=1,
                    first_us=row["blind_since_us"],
                    last_us=judged_us,
                    lasts=True,
                    text=", ".join(row["blind"][:_NEEDS_NAMED_MAX]),
                )


def _queue_loss(books: Books, places: _Places, state: BooksState, judged_us: int) -> Iterator[Finding]:
    emitters = [emitter for emitter, known in books.emitters.items() if known.row.lost_in_queue]
    sources = [source for emitter in emitters for source in places.sources_of(emitter)]
    common: dict[str, Any] = {
        "of": FindingKind.QUEUE_LOSS,
        "emitters": tuple(name_of(emitter) for emitter in emitters),
        "hosts": places.hosts_of(emitters),
        "categories": tuple(sources),
    }
    for (epoch, partition), ranges in books.lost_in_queue_ranges().items():
        numbers = tuple((first, last) for first, last in pairs(ranges)[:NUMBERS_MAX])
        for at_us, count in _growth(state, f"queue:{partition}:{epoch}", ranges.count, judged_us):
            values = {"partition": str(partition), "ingest_process": epoch}
            yield Finding(
                **common, values=values, count=count, first_us=at_us, last_us=at_us, numbers=numbers, text="events"
            )
    # What begins with the first record was in the queue before there were any books.
    unknown = [one for one in books.expired if not one.exact and one.first > 0]
    for one in unknown:
        name = f"expired:{one.partition}:{one.topic_id}:{one.first}"
        for at_us, count in _growth(state, name, one.last - one.first + 1, judged_us):
            values = {"partition": str(one.partition), "ingest_process": "unknown"}
            text = "records, of which nobody knows how many events were in them,"
            yield Finding(**common, values=values, count=count, first_us=at_us, last_us=at_us, text=text)
