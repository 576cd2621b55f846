"""What became of a batch: the numbers of its receipt, held against the ledger and the store.

Whoever holds a receipt may ask: it cannot be guessed, and the answer has counts and reasons, nothing of an event. What
a question may cost is bounded: so many at once, of one network half as many, a quarter for those that have none yet;
each for so long, and never on a thread that takes events.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from logweir import receipt
from logweir.clock import DAY_US, WINDOW_US, iso_seconds
from logweir.config import Settings
from logweir.errors import RECEIPT_UNANSWERED, LogweirError
from logweir.event import letter_id, stream_of
from logweir.http.shares import network_of
from logweir.ledger.deviations import OutcomeReason
from logweir.ledger.documents import POSITION, PartitionId, WindowId
from logweir.ledger.hours import read_windows
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import STREAM_MINUTES_MAX, Position
from logweir.ledger.revisions import read_present
from logweir.ledger.window import Window
from logweir.metrics import registry
from logweir.outcomes import DeadLetterReason, Outcome
from logweir.query.tree import And, Range, Term
from logweir.receipt import Receipt
from logweir.store import open_store
from logweir.store.port import Store

log = logging.getLogger(__name__)

DEAD_LETTERS_MAX = 100
"""Dead letters named in an answer; all of them are counted."""
_TOPICS_KNOWN_S = 60.0
_TOPICS_AGAIN_S = 2.0


@dataclass(slots=True)
class Found:
    """What the ledger and the store know of one receipt's numbers."""

    settled: Intervals = field(default_factory=Intervals)
    deviations: dict[OutcomeReason, Intervals] = field(default_factory=dict)
    """Settled numbers that are not indexed."""
    unknown: Intervals = field(default_factory=Intervals)
    """Settled numbers whose outcome there was no room to keep."""
    revised: int = 0
    """How many of the settled had another outcome before: a retry or a replay has changed it."""
    lost: Intervals = field(default_factory=Intervals)
    """Numbers that the queue lost before a worker read them."""
    is_gone: bool = False
    """The ledger has dropped what became of the numbers."""
    until_us: int = 0
    """What the partition received before then is processed."""
    searchable: int = 0
    """How many of the events the store finds now."""
    received: str | None = None


class Receipts:
    """Answers for receipts of this installation. Safe to use from several threads."""

    def __init__(self, settings: Settings, *, secret: bytes) -> None:
        self._timeout_s = settings.ingest.receipts_timeout_s
        timeout_s = min(settings.store.timeout_s, self._timeout_s)
        self._store_settings = settings.store.model_copy(update={"timeout_s": timeout_s})
        self._secret = secret
        self._slots = _Slots(settings.ingest.receipts_at_once_max)
        self._ledger = _Ledger(settings.worker.group)
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._is_failing = False

    def of(self, token: str, *, address: str) -> dict[str, Any]:
        """What became of the batch, as the door answers it. ``address``: whose question it is.

        Raises LogweirError: RECEIPT_BAD, RECEIPT_UNANSWERED.
        """
        asked = receipt.decode(token, self._secret)
        network = network_of(address)
        if not self._slots.take(network):
            raise _unanswered(
                "busy", "this door answers as many questions as it may, or half as many from your network"
            )
        answer: Future[Found] = Future()
        # A thread of its own: when the store hangs, it is this one that waits, and keeps its slot until it is free.
        thread = threading.Thread(target=self._ask, args=(asked, answer, network), name="receipt", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._slots.give_back(network)
            raise
        try:
            found = answer.result(self._timeout_s)
        except TimeoutError as error:
            raise _unanswered("timeout", f"the store took longer than {self._timeout_s:g} seconds") from error
        except LogweirError as error:
            self._note_failure(error)
            # In our own words: the store's address and what it says are none of a sender's business.
            raise _unanswered("store", "the store does not answer") from error
        self._is_failing = False
        return as_json(asked, found)

    def _ask(self, asked: Receipt, answer: Future[Found], network: str) -> None:
        try:
            answer.set_result(self._ledger.find(self._opened(), asked))
        except BaseException as error:  # noqa: BLE001  Whoever waits for the answer raises it.
            answer.set_exception(error)
        finally:
            self._slots.give_back(network)

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = open_store(self._store_settings)
            return self._store

    def _note_failure(self, error: LogweirError) -> None:
        if not self._is_failing:
            log.warning("Receipts cannot be answered: %s", error)
        self._is_failing = True


class _Slots:
    """How many questions are being answered: in all at most ``at_once_max``, half as many of one network.

    The last quarter is for networks that have none yet: else two of them could take all.
    """

    def __init__(self, at_once_max: int) -> None:
        self._at_once_max = at_once_max
        self._lock = threading.Lock()
        self._by_network: Counter[str] = Counter()

    def take(self, network: str) -> bool:
        """Whether there is one for it; then it is to be given back."""
        with self._lock:
            own = self._by_network.get(network, 0)
            room = self._at_once_max * 3 // 4 if own else self._at_once_max
            if self._by_network.total() >= room or own >= max(1, self._at_once_max // 2):
                return False
            self._by_network[network] += 1
            return True

    def give_back(self, network: str) -> None:
        with self._lock:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]


def _unanswered(cause: str, reason: str) -> LogweirError:
    registry.get("logweir_ingest_receipts_unanswered_total").labels(cause).inc()
    return LogweirError(RECEIPT_UNANSWERED, cause=cause, reason=reason)


class _Ledger:
    """Finds receipts in a group's ledger. A receipt does not say in which topic its numbers are: all are looked at."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._lock = threading.Lock()
        self._topics: dict[int, list[str]] = {}
        self._topics_at_s = -_TOPICS_KNOWN_S

    def find(self, store: Store, asked: Receipt) -> Found:
        """Raises LogweirError(STORE_DOWN), (STORE_REFUSES)."""
        found = Found()
        if not asked.count:
            return found
        windows, positions = self._documents(store, asked)
        for window in windows:
            present = read_present(store, self._group, window, asked.first, asked.last)
            _add_window(found, window, present.revised(asked.first, asked.last), asked)
        for position in positions:
            _add_position(found, position, asked, is_known=bool(windows))
        if found.settled:
            _ask_events(store, found, asked)
        return found

    def _documents(self, store: Store, asked: Receipt) -> tuple[list[Window], list[Position]]:
        """The receipt's window and the partition's position, in each topic that has them."""
        topics = self._topics_of(store, asked.partition, known_s=_TOPICS_KNOWN_S)
        windows, positions = self._read(store, asked, topics)
        if not windows:
            # A worker may have come to the partition, or to a topic made anew, since we looked.
            fresh = self._topics_of(store, asked.partition, known_s=_TOPICS_AGAIN_S if topics else 0.0)
            if fresh != topics:
                return self._read(store, asked, fresh)
        return windows, positions

    def _read(self, store: Store, asked: Receipt, topics: Collection[str]) -> tuple[list[Window], list[Position]]:
        # Positions first: they are written last, so what they have seen is in the windows that are read after them.
        partitions = [PartitionId(topic, asked.partition) for topic in topics]
        positions = POSITION.read(store.ledger, self._group, partitions)
        places = [WindowId(*partition, asked.ingest_epoch.hex(), asked.window) for partition in partitions]
        windows = read_windows(store, self._group, places)
        return list(windows.values()), [Position.from_body(document.body) for document in positions.values()]

    def _topics_of(self, store: Store, partition: int, *, known_s: float) -> list[str]:
        """The ids of the topics of which workers have claimed the partition, as they were ``known_s`` ago or later."""
        with self._lock:
            if time.monotonic() - self._topics_at_s >= known_s:
                topics: dict[int, list[str]] = {}
                for place, _ in POSITION.scan(store.ledger, self._group):
                    topics.setdefault(place.partition, []).append(place.topic_id)
                self._topics, self._topics_at_s = topics, time.monotonic()
            return self._topics.get(partition, [])


def _add_window(found: Found, window: Window, revised: Mapping[int, OutcomeReason], asked: Receipt) -> None:
    settled = Intervals(window.numbers.within(asked.first, asked.last))
    for start, end in settled:
        found.settled.add(start, end)
    for beyond in window.deviations.beyond.within(asked.first, asked.last):
        for start, end in settled.within(*beyond):
            found.unknown.add(start, end)
    for deviation, ranges in window.deviations.within(asked.first, asked.last):
        for start, end in ranges:
            found.deviations.setdefault(deviation, Intervals()).add(start, end)
            found.unknown.remove(start, end)
    for number, outcome in revised.items():
        for numbers in (found.unknown, *found.deviations.values()):
            numbers.remove(number, number)
        if outcome.outcome is not Outcome.INDEXED:
            found.deviations.setdefault(outcome, Intervals()).add(number, number)
    found.revised += len(revised)


def _add_position(found: Found, position: Position, asked: Receipt, *, is_known: bool) -> None:
    epoch = asked.ingest_epoch.hex()
    found.lost.add_all(position.lost.get(epoch, Intervals()).within(asked.first, asked.last))
    found.lost.remove_all(found.settled)
    found.until_us = max(found.until_us, position.watermark_us)
    # The numbers have come by, or did so long ago that their process is forgotten: somebody has pruned the ledger.
    stream = position.streams.get(epoch)
    is_long_ago = position.latest_window - asked.window > STREAM_MINUTES_MAX
    came_by = is_long_ago if stream is None else stream.last >= asked.last
    found.is_gone |= came_by and not is_known and not found.lost


def _ask_events(store: Store, found: Found, asked: Receipt) -> None:
    """What the store itself says, whatever the ledger does: how many are there, and when they were received."""
    stream = Term("ingest_stream", stream_of(asked.ingest_epoch, asked.partition))
    # A receipt's window is the minute of its record: the events in it were received before, by at most a little.
    from_us, to_us = asked.window * WINDOW_US - DAY_US, asked.window * WINDOW_US + DAY_US
    query = And((stream, Range("ingest_number", asked.first, asked.last + 1)))
    found.searchable = store.count(query, from_us=from_us, to_us=to_us).number
    hits = store.search(query, size=1, from_us=from_us, to_us=to_us)
    # Whoever has no room for outcomes leaves numbers of others around them unknown: where the store has all that are
    # not known to be something else, these were indexed.
    if found.searchable == found.settled.count - sum(numbers.count for numbers in found.deviations.values()):
        found.unknown = Intervals()
    found.received = hits.events[0]["receivedtimestamp"].replace("+00:00", "Z") if hits.events else None


# --- the answer ---------------------------------------------------------------------------------------------------
def as_json(asked: Receipt, found: Found) -> dict[str, Any]:
    """The answer: ``accepted`` is the sum of the seven counts behind it; what is null is not known."""
    counts = _counts(asked, found)
    state = _state(asked, found, counts)
    return {
        "state": state,
        "detail": f"{_equation(asked, counts)}: {_DETAILS[state]}",
        "accepted": asked.count,
        **counts,
        "searchable": None if found.is_gone else found.searchable,
        "revised": None if found.is_gone else found.revised,
        "exceptions": [_exception(deviation, numbers) for deviation, numbers in found.deviations.items() if numbers],
        "dead_letters": _dead_letters(asked, found),
        "received": found.received,
        "window": iso_seconds(asked.window * WINDOW_US),
        "processed_until": iso_seconds(found.until_us) if found.until_us else None,
        "partition": asked.partition,
        "ingest_epoch": asked.ingest_epoch.hex(),
        "first": asked.first,
        "last": asked.last,
    }


_COUNTS = (*(outcome.value for outcome in Outcome), "lost", "unknown", "in_flight")
_DETAILS = {
    "queued": "all of it waits in the queue, or in a spool on its way there.",
    "processing": "what is in flight waits in the queue, or in a spool on its way there.",
    "settled": "nothing of it is under way any more.",
    "expired": "the ledger does not say any more what became of it.",
}


def _counts(asked: Receipt, found: Found) -> dict[str, int | None]:
    if found.is_gone:
        return {**dict.fromkeys(_COUNTS), "unknown": asked.count}
    counts: dict[str, int | None] = dict.fromkeys(_COUNTS, 0)
    for outcome in Outcome:
        counts[outcome.value] = sum(
            numbers.count for deviation, numbers in found.deviations.items() if deviation.outcome is outcome
        )
    # Nothing here is cut off at zero: whatever does not add up has to be seen.
    deviating = sum(numbers.count for numbers in found.deviations.values())
    counts[Outcome.INDEXED.value] = found.settled.count - deviating - found.unknown.count
    counts["lost"] = found.lost.count
    counts["unknown"] = found.unknown.count
    counts["in_flight"] = asked.count - found.settled.count - found.lost.count
    return counts


def _state(asked: Receipt, found: Found, counts: dict[str, int | None]) -> str:
    if found.is_gone:
        return "expired"
    if counts["in_flight"] == 0:
        return "settled"
    return "queued" if counts["in_flight"] == asked.count else "processing"


def _equation(asked: Receipt, counts: dict[str, int | None]) -> str:
    words = {"in_flight": "in flight", "dead_lettered": "dead-lettered"}
    parts = [f"{count} {words.get(name, name)}" for name, count in counts.items() if count]
    return f"{asked.count} accepted = {' + '.join(parts) or '0'}"


def _exception(deviation: OutcomeReason, numbers: Intervals) -> dict[str, Any]:
    outcome, reason = deviation
    return {
        "outcome": outcome.value,
        "reason": reason,
        "meaning": DeadLetterReason(reason).help if outcome is Outcome.DEAD_LETTERED and reason else outcome.help,
        "count": numbers.count,
    }


def _dead_letters(asked: Receipt, found: Found) -> list[str]:
    """The ids of the first DEAD_LETTERS_MAX dead letters: an event's letter has the name of the event's provenance."""
    stream = stream_of(asked.ingest_epoch, asked.partition)
    letters = [numbers for (outcome, _), numbers in found.deviations.items() if outcome is Outcome.DEAD_LETTERED]
    numbers = sorted(number for ranges in letters for start, end in ranges for number in range(start, end + 1))
    return [letter_id(stream, number) for number in numbers[:DEAD_LETTERS_MAX]]
