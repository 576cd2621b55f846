"""What can become of an event, as tables: the four outcomes, and the closed lists of reasons beside them."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """Exactly one of these becomes of every accepted event; ``help`` says it in words."""

    INDEXED = "indexed"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    DEAD_LETTERED = "dead_lettered"

    @property
    def help(self) -> str:
        return _OUTCOME_HELP[self]


_OUTCOME_HELP = {
    Outcome.INDEXED: "It is in the store, once.",
    Outcome.DUPLICATE: "An event with the same identity was in the store before it; this one is not kept.",
    Outcome.FILTERED: "A filter left it out on purpose.",
    Outcome.DEAD_LETTERED: "It could not be indexed; it is kept whole among the dead letters, with the reason.",
}


class DeadLetterReason(StrEnum):
    """Why an event is a dead letter; ``help_of`` says it in words."""

    RECORD_CORRUPT = "record_corrupt"
    EVENT_UNREADABLE = "event_unreadable"
    EVENT_UNFIT = "event_unfit"
    STORE_REFUSED = "store_refused"
    IDENTITY_CONFLICT = "identity_conflict"
    BODY_REFUSED = "body_refused"

    @property
    def help(self) -> str:
        return _DEAD_LETTER_HELP[self]


_DEAD_LETTER_HELP = {
    DeadLetterReason.RECORD_CORRUPT: "The queue record is not one of ours, or is damaged; how many events it held is unknown.",
    DeadLetterReason.EVENT_UNREADABLE: "The event's bytes are not a JSON object that the worker can read.",
    DeadLetterReason.EVENT_UNFIT: "Normalising, enriching or filtering failed on the event: a fault of ours, kept until it is mended.",
    DeadLetterReason.STORE_REFUSED: "The store refused the document; the dead letter has the store's own words.",
    DeadLetterReason.IDENTITY_CONFLICT: "Another event with the same emitter, epoch and number, or the same Idempotency-Key and place in the request, but other content came first.",
    DeadLetterReason.BODY_REFUSED: "An authenticated body that the door could not read; it was never accepted.",
}


class Stage(StrEnum):
    """Where in the pipeline an event was when it became a dead letter."""

    INGEST = "ingest"
    DECODE = "decode"
    NORMALISE = "normalise"
    ENRICH = "enrich"
    FILTER = "filter"
    INDEX = "index"
