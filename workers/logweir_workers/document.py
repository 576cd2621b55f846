"""The bytes of one accepted event -> its document: decode, normalise, enrich, filter. All ways to the store share this.

To enrich is to run what ``enrich.load`` gives: the parsers first, then the enrichments, the operator's own last.
The same bytes, with the same rules, always give the same result: whether they come from the queue, from a replay or
from a dead letter that is tried again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from logweir.event import Document, Provenance, identity_prefix_bare, identity_prefix_numbered
from logweir.outcomes import DeadLetterReason, Stage
from logweir.record import Batch
from logweir_workers.decode import EventUnreadable, event_or_mended, free_name
from logweir_workers.enrich import Enricher
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import ORIGINAL, PARTLY_SEARCHABLE, WORDS_MAX, Context, normalise, words_for

log = logging.getLogger(__name__)

MENDED = "mended"
"""The tag of an event that was no JSON, and was mended (``logweir/mend.py``); as it was sent it is under details."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """The event is not to be stored: the filter ``rule`` says so."""

    rule: str


class EventUnfit(Exception):
    """The event cannot become a document; it is to be a dead letter."""

    def __init__(self, reason: DeadLetterReason, stage: Stage, error: str) -> None:
        super().__init__(error)
        self.reason = reason
        self.stage = stage
        self.error = error


class Documents:
    """Makes documents of events. For one thread, which may also change the filters."""

    def __init__(self, enrich: Enricher, filters: Filters) -> None:
        self._enrich = enrich
        self._filters = filters

    def make(self, raw: bytes, context: Context, *, id: str, day: str, provenance: Provenance) -> Document | Filtered:
        """The document of an event, or why it is left out on purpose. Raises EventUnfit."""
        stage = Stage.DECODE
        try:
            sent, is_mended = event_or_mended(raw)
            stage = Stage.NORMALISE
            source = _normalised(sent, context, raw if is_mended else None)
            stage = Stage.ENRICH
            self._enrich(source, context)
            words = words_for(source)
            if _may_be_cut(words[1]):
                source["tags"] = [*source.get("tags", ()), PARTLY_SEARCHABLE]
            source["ingest_stream"] = provenance.stream
            source["ingest_number"] = provenance.number
            source["content_hash"] = provenance.content_hash
            document = Document(id, day, source, provenance, *words)
            stage = Stage.FILTER
            rule = self._filters.rule_for(document)
        except EventUnreadable as error:
            raise EventUnfit(DeadLetterReason.EVENT_UNREADABLE, stage, str(error)) from error
        except Exception as error:
            # A fault of ours must not hold the partition up: the event is kept, the trace is in the log.
            about = {"event_id": id, "ingest_stream": provenance.stream, "ingest_number": provenance.number}
            log.exception("Event %s, number %d of %s", id, provenance.number, provenance.stream, extra=about)
            raise EventUnfit(DeadLetterReason.EVENT_UNFIT, stage, repr(error)) from error
        return document if rule is None else Filtered(rule)

    def category(self, raw: bytes, context: Context) -> str | None:
        """The category that the event's document would have, in lower case; None when it has none, or is unfit."""
        try:
            sent, is_mended = event_or_mended(raw)
            source = _normalised(sent, context, raw if is_mended else None)
            self._enrich(source, context)
        except Exception:  # noqa: BLE001 - why it is unfit, ``make`` says
            return None
        category = source.get("category")
        return category.lower() if isinstance(category, str) else None


def _normalised(sent: dict[str, Any], context: Context, mended: bytes | None) -> dict[str, Any]:
    """The event as it is stored. ``mended``: the bytes that it was sent as, when they had to be mended to be read."""
    if mended is None:
        return normalise(sent, context)
    sent[free_name(ORIGINAL, sent, sent=ORIGINAL)] = mended.decode()
    source = normalise(sent, context)
    source["tags"] = [*source.get("tags", ()), MENDED]
    return source


def _may_be_cut(words: str) -> bool:
    # The length first: a word takes a character and a space at least.
    return len(words) >= 2 * WORDS_MAX - 1 and words.count(" ") >= WORDS_MAX - 1


def context_of(batch: Batch) -> Context:
    """What a batch says of each of its events."""
    return Context(
        received_us=batch.received_us,
        key=batch.key,
        emitter=batch.emitter,
        source_address=batch.source_address,
        format=batch.format,
        stamp=batch.stamp,
    )


def ids_of(batch: Batch) -> tuple[str, int]:
    """What the ids of the batch's events begin with, and the number that the first one's ends with."""
    if batch.epoch is not None and batch.sequence_first is not None:
        return identity_prefix_numbered(batch.key, batch.emitter, batch.epoch), batch.sequence_first
    return identity_prefix_bare(batch.id), batch.index_first
