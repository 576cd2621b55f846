"""Dead letters: what could not be indexed, with everything needed to see why and to try again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from logweir import receipt
from logweir.errors import LogweirError
from logweir.event import letter_id, stream_of
from logweir.outcomes import DeadLetterReason, Stage
from logweir.queue.port import Delivery
from logweir.record import Batch, Record, Refused
from logweir.store.port import DeadLetter

log = logging.getLogger(__name__)

_SAY_AGAIN_S = 60.0
_LOGGED = ("reason", "stage", "key", "emitter", "event_id", "partition", "offset", "window")


def of_event(
    *,
    topic_id: str,
    delivery: Delivery,
    record: Record,
    batch: Batch,
    index: int,
    number: int,
    reason: DeadLetterReason,
    stage: Stage,
    error: str,
    id: str,
) -> DeadLetter:
    """The dead letter of one event; ``id`` is the event's, ``index`` its place in ``batch.events``.

    The letter's own id is the event's provenance: two events that claim one identity are two letters.
    """
    stream = stream_of(record.ingest_epoch, delivery.partition)
    body = {
        **_place(topic_id, delivery),
        "reason": reason.value,
        "stage": stage.value,
        "error": error,
        "event_id": id,
        "ingest_stream": stream,
        "ingest_number": number,
        "window": record.window,
        "batch": batch.id.hex(),
        "index": batch.index_first + index,
        "received_us": batch.received_us,
        "key": batch.key,
        "emitter": batch.emitter,
        "epoch": batch.epoch,
        "sequence": None if batch.sequence_first is None else batch.sequence_first + index,
        "source_address": batch.source_address,
        "format": batch.format,
        "stamp": batch.stamp,
    }
    return DeadLetter(letter_id(stream, number), batch.received_us, reason.value, body, batch.events[index])


def of_record(*, topic_id: str, delivery: Delivery, error: LogweirError) -> DeadLetter:
    """The dead letter of a queue record that cannot be read; how many events it held is unknown."""
    reason = DeadLetterReason.RECORD_CORRUPT
    body = {
        **_place(topic_id, delivery),
        "reason": reason.value,
        "stage": Stage.DECODE.value,
        "error": error.detail,
    }
    id = f"{topic_id}.{delivery.partition}.{delivery.offset}"
    return DeadLetter(id, delivery.timestamp_ms * 1000, reason.value, body, delivery.payload)


def of_refused(*, topic_id: str, delivery: Delivery, refused: Refused) -> DeadLetter:
    """An authenticated body that the door could not read: kept for the operator, never accepted, without outcome."""
    reason = DeadLetterReason.BODY_REFUSED
    body = {
        **_place(topic_id, delivery),
        "reason": reason.value,
        "stage": Stage.INGEST.value,
        "error": refused.detail,
        "code": refused.code,
        "received_us": refused.received_us,
        "key": refused.key,
        "emitter": refused.emitter,
        "source_address": refused.source_address,
        "format": refused.format,
        "size_bytes": refused.size_bytes,
    }
    return DeadLetter(refused.id.hex(), refused.received_us, reason.value, body, refused.body)


def batch_at(batches: Iterable[Batch], place: int) -> tuple[Batch, int]:
    """The batch of a record's event, and the event's place in it, by its place in the record."""
    for batch in batches:
        if place < len(batch.events):
            return batch, place
        place -= len(batch.events)
    raise IndexError(place)


class LetterLog:
    """Says in the log that there are dead letters: one of each reason a minute; how many there are, the metrics say.

    ``folder`` is where doors keep the secret of their receipts. Where it can be read, a line has the receipt of the
    event's batch, as its sender got it; of a batch that needed several records, one of its events in this record.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._said_s: dict[str, float] = {}

    def kept(self, letter: DeadLetter, delivery: Delivery, record: Record | None) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s.get(letter.reason, -_SAY_AGAIN_S) < _SAY_AGAIN_S:
            return
        self._said_s[letter.reason] = now_s
        fields = {name: letter.body[name] for name in _LOGGED if letter.body.get(name) is not None}
        token = self._receipt(letter, delivery, record)
        if token is not None:
            fields["receipt"] = token
        log.warning(
            "A dead letter, %s at %s%s: logweir deadletters show %s (Said once a minute by reason; all are counted.)",
            letter.reason,
            letter.body["stage"],
            f", of the batch with receipt {token}" if token else "",
            letter.id,
            extra={"dead_letter": letter.id, **fields},
        )

    def _receipt(self, letter: DeadLetter, delivery: Delivery, record: Record | None) -> str | None:
        secret = receipt.secret_if_any(self._folder) if self._folder else None
        number = letter.body.get("ingest_number")
        if secret is None or record is None or number is None:
            return None
        batch, index = batch_at(record.batches, number - record.first)
        return receipt.encode(
            secret,
            ingest_epoch=record.ingest_epoch,
            partition=delivery.partition,
            first=number - index,
            count=len(batch.events),
            window=record.window,
        ).decode()


def _place(topic_id: str, delivery: Delivery) -> dict[str, object]:
    return {"topic_id": topic_id, "partition": delivery.partition, "offset": delivery.offset}
