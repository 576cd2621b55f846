"""The bytes of one accepted event -> its document: decode, normalise, enrich, filter. All ways to the store share this.

The same bytes, with the same rules, always give the same result: whether they come from the queue, from a replay or
from a dead letter that is tried again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from logweir.event import Provenance
from logweir.outcomes import DeadLetterReason, Stage
from logweir.store import Document
from logweir_workers.decode import EventUnreadable, event_of
from logweir_workers.enrich import Enricher
from logweir_workers.filters import Filters
from logweir_workers.normalise import Context, normalise, words_for

log = logging.getLogger(__name__)


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

    def make(self, raw: bytes, context: Context, *, id: str, index: str, provenance: Provenance) -> Document | Filtered:
        """The document of an event, or why it is left out on purpose. Raises EventUnfit."""
        stage = Stage.DECODE
        try:
            sent = event_of(raw)
            stage = Stage.NORMALISE
            source = normalise(sent, context)
            stage = Stage.ENRICH
            self._enrich(source, context)
            words = words_for(source)
            source["ingest_stream"] = provenance.stream
            source["ingest_number"] = provenance.number
            source["content_hash"] = provenance.content_hash
            document = Document(id, index, source, provenance, *words)
            stage = Stage.FILTER
            rule = self._filters.rule_for(document)
        except EventUnreadable as error:
            raise EventUnfit(DeadLetterReason.EVENT_UNREADABLE, stage, str(error)) from error
        except Exception as error:
            # A fault of ours must not hold the partition up: the event is kept, the trace is in the log.
            log.exception("Event %s, number %d of %s", id, provenance.number, provenance.stream)
            raise EventUnfit(DeadLetterReason.EVENT_UNFIT, stage, repr(error)) from error
        return document if rule is None else Filtered(rule)
