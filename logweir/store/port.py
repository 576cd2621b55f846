"""The store's port: what workers and console may ask of Elasticsearch or of the embedded store, and nothing more.

Four kinds of things are kept: events (by the UTC day of their receipt), ledger documents, dead letters, and documents
of our own that people change (``documents.py``).
Adapters: ``elasticsearch/`` and ``sqlite/``. One contract suite, tests/contract/test_store.py, runs over both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from logweir.errors import PARAMETER_BAD, LogweirError
from logweir.event import FIELD_BY_NAME, Document, Kind, Provenance
from logweir.query import known
from logweir.query.tree import PAGE_SIZE_BYTES_MAX, Node
from logweir.store.documents import DocumentSet, OwnDocument, Page
from logweir.text import counted

COUNT_TIMEOUT_S = 2.0
"""How long people wait for a number beside rows that they see."""


class Written(Enum):
    """What became of one document of a bulk."""

    CREATED = "created"
    EXISTS = "exists"
    REFUSED = "refused"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class Item:
    """The result for one document. ``stored``: the provenance found under its id, when EXISTS.

    ``error``: the store's own words, when REFUSED (this document will never be taken) or AGAIN (try it later).
    """

    written: Written
    stored: Provenance | None = None
    error: str = ""

    @property
    def reason(self) -> str:
        """Why the document is not there as it was given."""
        return self.error or f"stored is {self.stored}"


@dataclass(frozen=True, slots=True)
class LedgerDocument:
    """One document of the ledger: absolute values, true for the position that its body names.

    Written only if no document of that id with a higher generation is there: the latest claim wins, always.
    """

    id: str
    generation: int
    body: dict[str, Any]


def part_ms(from_us: int, to_us: int, buckets: int) -> int:
    """How many milliseconds each part of a histogram has."""
    span_ms = -(-to_us // 1000) - from_us // 1000  # as searches compare times
    return max(1, -(-span_ms // buckets))


def require_keyword(field: str) -> None:
    """Raises LogweirError(PARAMETER_BAD) for a field whose values cannot be counted: for adapters."""
    if field not in known.KEYWORDS and (field not in FIELD_BY_NAME or FIELD_BY_NAME[field].kind is not Kind.KEYWORD):
        raise LogweirError(
            PARAMETER_BAD, name="field", value=field, expected="a keyword, such as hostname or details.username"
        )


def is_written(body: dict[str, Any]) -> bool:
    """False for the stored body of a ledger document that holds only a claim: for adapters."""
    return body.keys() != {"owner"}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event (or a record, or a refused body) that could not be indexed, kept with everything needed to try again.

    ``id`` is a pure function of what it holds, so that keeping it twice leaves one. ``body`` is JSON-able: reason,
    stage, error, topic, topic_id, partition, offset, batch, index, key, emitter, received, stream, number;
    ``raw`` the bytes as they were sent.
    """

    id: str
    received_us: int
    reason: str
    body: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are meant; whatever is left empty or None does not matter.

    ``from_us`` is included, ``to_us`` is not: microseconds of receipt. ``stage``, ``key`` and ``emitter`` are compared
    whole, with the letter's body.
    """

    ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    stage: str | None = None
    key: str | None = None
    emitter: str | None = None
    from_us: int | None = None
    to_us: int | None = None


EVERY_LETTER = LetterFilter()


class Held(NamedTuple):
    """How many dead letters are kept, and the bytes of what was sent in them."""

    letters: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Hits:
    """One page of a search. ``events`` are sources, each with ``_id`` and ``_index``, the name of its day's index.

    ``after`` continues behind the last event; None when there are no more. With it, a page that is shorter than was
    asked for was cut at its size in bytes.
    """

    events: list[dict[str, Any]]
    after: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many events a search finds."""

    number: int
    is_exact: bool = True
    """False where the time was over before all were counted: there are at least so many."""

    def said(self, *, seen: int, separator: str = "") -> str:
        """``1,234 events``, or ``at least 1,234 events``, of which so many were ``seen``."""
        number = counted(max(self.number, seen), "event", separator=separator)
        return number if self.is_exact else f"at least {number}"


class Cancellation:
    """Says to a search that nobody waits for it any more. Safe to use from several threads, and in a signal handler."""

    def __init__(self) -> None:
        self.is_cancelled = False
        # A signal handler may cancel in the middle of ``stopping`` of its own thread.
        self._lock = threading.RLock()
        self._stop: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Stop the search that runs, and those that would follow."""
        with self._lock:
            self.is_cancelled = True
            if self._stop is not None:
                self._stop()

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Have ``cancel`` call ``stop``, from any thread, while the block runs; never afterwards."""
        with self._lock:
            self._stop = stop
        try:
            yield
        finally:
            with self._lock:
                self._stop = None


class Ledger(Protocol):
    """Ledger documents. Safe to use from several threads; raises STORE_DOWN as the store."""

    def claim(self, id: str, owner: str) -> LedgerDocument:
        """Take over a ledger document: its body as it was, under a generation higher than any before.

        The stored document gets ``owner`` in its body. After this, every write under an older generation fails. The
        body of a document that was never written is empty; for ``read`` and ``scan`` it does not exist until it is.
        """

    def read(self, ids: Collection[str]) -> dict[str, LedgerDocument]:
        """Those of the documents that were written, as last written (never stale)."""

    def scan(self, prefix: str) -> Iterator[LedgerDocument]:
        """All that were written whose ids begin with ``prefix``, in the order of their ids.

        Each as it was last written before the scan, or later.
        """

    def write(self, documents: Sequence[LedgerDocument]) -> None:
        """Write durably, the last one only when all before it are written.

        Raises LogweirError(CLAIM_LOST) when one of them has a higher generation already. Of those before the last,
        any may be written then: each is right for the position in its body.
        """

    def delete(self, documents: Sequence[LedgerDocument]) -> None:
        """Delete those by id whose stored generation is not higher than theirs; harmless when they are not there."""


class DeadLetters(Protocol):
    """Dead letters and refused bodies. Safe to use from several threads; raises STORE_DOWN as the store."""

    def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them durably."""

    def page(
        self, *, size: int, wanted: LetterFilter = EVERY_LETTER, behind: DeadLetter | None = None
    ) -> list[DeadLetter]:
        """Newest first, then by id; those that come ``behind`` the given one. Never stale. At most PAGE_MAX."""

    def count(self, wanted: LetterFilter = EVERY_LETTER) -> dict[str, Held]:
        """How many, and how large, by reason; reasons without any are absent. Never stale."""

    def delete(self, wanted: LetterFilter, *, letters_max: int | None = None) -> dict[str, int]:
        """Delete them durably, at most so many, the oldest first; how many were there, by reason."""

    def trim(self, reason: str, *, letters_max: int, size_bytes_max: int, key: str | None = None) -> int:
        """Delete the oldest of one reason, until what is left is within both limits; gives how many.

        With a ``key``, only those of events and bodies that came with it, which alone count then.
        """


class Documents(Protocol):
    """Documents of our own. Safe to use from several threads; raises STORE_DOWN as the store.

    None of these answers is ever stale. A set is made by its first document; before, it is empty.
    """

    def get(self, among: DocumentSet, ids: Collection[str]) -> dict[str, OwnDocument]:
        """Those that are there, by id."""

    def put(self, among: DocumentSet, id: str, body: dict[str, Any], *, version: str | None) -> str:
        """Write the body durably over the version that was read, None where there was none; returns the new version.

        Raises LogweirError: DOCUMENT_CHANGED when another version is there, or none; DOCUMENT_TOO_LARGE.
        """

    def search(
        self,
        among: DocumentSet,
        query: Node,
        *,
        size: int,
        from_us: int | None = None,
        to_us: int | None = None,
        after: tuple[Any, ...] | None = None,
    ) -> Page:
        """Newest first by the set's time, then by id, highest first; at most PAGE_MAX, ``size`` 0 only counts.

        ``query`` is parsed with the set's fields. ``from_us`` is included, ``to_us`` is not. Raises
        LogweirError(SEARCH_TOO_SLOW).
        """

    def delete(self, among: DocumentSet, id: str, *, version: str) -> None:
        """Delete the version that was read.

        Raises LogweirError(DOCUMENT_CHANGED) when another one is there, or none.
        """


class Store(Protocol):
    """Safe to use from several threads. Every method raises LogweirError(STORE_DOWN) when the store does not answer."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def dead_letters(self) -> DeadLetters: ...

    @property
    def documents(self) -> Documents: ...

    def prepare(self) -> None:
        """Make or bring up to date templates, indices and tables. Harmless when repeated or run by two at once."""

    def index(self, documents: Sequence[Document]) -> list[Item]:
        """Create each document under its id unless that id is there; one item each, in order.

        What is answered CREATED or EXISTS is durable.
        """

    def provenances(self, places: Sequence[tuple[str, str]]) -> list[Provenance | None]:
        """What is stored under each (day, id), never stale; None where there is nothing."""

    def sources(self, places: Sequence[tuple[str, str]]) -> list[dict[str, Any] | None]:
        """The events stored under each (day, id), with their provenance, never stale; None where there is nothing."""

    def replace(self, documents: Sequence[Document]) -> list[Item]:
        """As ``index``, but over what an earlier try of the same event left there; that is CREATED, too.

        EXISTS is only what another event has left. An event comes at most once.
        """

    def delete(self, documents: Sequence[tuple[str, str, Provenance]]) -> None:
        """Delete durably what is stored under each (day, id), if it is of that provenance."""

    def search(
        self,
        query: Node,
        *,
        size: int,
        from_us: int | None = None,
        to_us: int | None = None,
        time_field: str = "receivedtimestamp",
        after: tuple[Any, ...] | None = None,
        oldest_first: bool = False,
        size_bytes_max: int = PAGE_SIZE_BYTES_MAX,
        cancellation: Cancellation | None = None,
    ) -> Hits:
        """Newest first by ``time_field``, then by provenance; ``from_us`` is included, ``to_us`` is not (microseconds).

        ``oldest_first`` turns the order round. Events without the time are the oldest. At most ``size`` events and
        ``size_bytes_max`` bytes of them as JSON, but one at least. How many there are beyond the page, nobody counts.
        Raises LogweirError: PARAMETER_BAD; QUERY_TOO_WIDE; SEARCH_TOO_SLOW after store.search_timeout_s;
        SEARCH_ABANDONED once ``cancellation`` says so. These end the work in the store, too.
        """

    def count(
        self,
        query: Node,
        *,
        from_us: int | None = None,
        to_us: int | None = None,
        time_field: str = "receivedtimestamp",
        timeout_s: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Count:
        """How many events ``search`` would find in all.

        After ``timeout_s``, as many as were counted until then. Without it, as ``search`` raises.
        """

    def histogram(
        self,
        query: Node,
        *,
        from_us: int,
        to_us: int,
        buckets: int,
        time_field: str = "receivedtimestamp",
        cancellation: Cancellation | None = None,
    ) -> list[int]:
        """How many events ``search`` would find in each of so many parts of the time, the first one first.

        All parts are of one width in whole milliseconds (``part_ms``), so the last ones may lie behind ``to_us``.
        Raises as ``search`` does.
        """

    def top(
        self,
        query: Node,
        field: str,
        *,
        size: int,
        from_us: int | None = None,
        to_us: int | None = None,
        time_field: str = "receivedtimestamp",
        cancellation: Cancellation | None = None,
    ) -> list[tuple[str, int]]:
        """The values of a keyword field, a known detail among them, that most events of the search have, with how many.

        In lower case, as they are compared; the most frequent first, then by the text. Of a field with many thousands
        of values in several shards, numbers may be a little low. Raises LogweirError(PARAMETER_BAD) for another field,
        and as ``search`` does.
        """

    def count_numbers(self, stream: str, lowest: int, highest: int, *, days: tuple[str, str] | None = None) -> int:
        """How many events of the stream have numbers from ``lowest`` to ``highest``, as a search finds them.

        ``days``: only those of these days (YYYYMMDD) and between them. Raises LogweirError(SEARCH_TOO_SLOW).
        """

    def require_prepared(self) -> None:
        """Raises LogweirError(STORE_ABSENT) where nobody has ever called ``prepare``. Makes nothing."""

    def refresh(self) -> None:
        """Make what was written visible to searches now (they see it within a second anyway)."""

    def delete_expired(self, before_day: str) -> list[str]:
        """Remove the events of all days before ``before_day`` (YYYYMMDD); gives the days that there were."""

    def check(self) -> str:
        """One line about the store's state, for `logweir doctor`."""

    def close(self) -> None: ...
