"""Dead letters: what could not be indexed, with everything needed to see why and to try again."""

from __future__ import annotations

from logweir.errors import LogweirError
from logweir.event import letter_id, stream_of
from logweir.outcomes import DeadLetterReason, Stage
from logweir.queue import Delivery
from logweir.record import Batch, Record, Refused
from logweir.store import DeadLetter


def of_event(
    *, topic_id: str, delivery: Delivery, record: Record, batch: Batch, index: int, number: int,
    reason: DeadLetterReason, stage: Stage, error: str, id: str,
) -> DeadLetter:  # fmt: skip
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


def _place(topic_id: str, delivery: Delivery) -> dict[str, object]:
    return {"topic_id": topic_id, "partition": delivery.partition, "offset": delivery.offset}
