"""Numbers that events bring along themselves: a source's own, such as syslog-ng's $SEQNUM or RFC 5424's sequenceId.

Which fields hold them is said per key (``accounting.event_fields``). They tell what never came, in the range that they
cover; they make no identity: an event without Log-* headers is known by its request and its place in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from logweir.config import EventFields
from logweir.record import NUMBER_MAX, Batch
from logweir_workers.decode import EventUnreadable, event_or_mended

_NAME_LENGTH_MAX = 256


def natural_runs(batch: Batch, fields: EventFields) -> Iterator[Batch]:
    """The batch's events as the emitters, runs and numbers that they name, cut into runs of numbers that follow.

    Events that cannot be read, or have no whole number from 1 to NUMBER_MAX in the field, are left out: they are not
    numbered.
    """
    run: list[bytes] = []
    begun: tuple[str | None, str | None, int] | None = None
    for raw in batch.events:
        found = _named(raw, batch, fields)
        if begun is not None and found != (begun[0], begun[1], begun[2] + len(run)):
            yield _as_batch(batch, begun, run)
            begun, run = None, []
        if found is not None:
            begun = begun or found
            run.append(raw)
    if begun is not None:
        yield _as_batch(batch, begun, run)


def _as_batch(batch: Batch, begun: tuple[str | None, str | None, int], events: list[bytes]) -> Batch:
    emitter, epoch, first = begun
    return msgspec.structs.replace(batch, emitter=emitter, epoch=epoch, sequence_first=first, events=events)


def _named(raw: bytes, batch: Batch, fields: EventFields) -> tuple[str | None, str | None, int] | None:
    """Emitter, run and number of an event; None when it is not numbered."""
    try:
        event, _ = event_or_mended(raw)
    except EventUnreadable:
        return None
    number = _number(_at(event, fields.sequence))
    if number is None:
        return None
    emitter = batch.emitter if fields.emitter is None else _name(_at(event, fields.emitter))
    epoch = None if fields.epoch is None else _name(_at(event, fields.epoch))
    if fields.epoch is not None and epoch is None:
        return None
    return emitter, epoch, number


def _at(event: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = event
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if type(value) is int and 1 <= value <= NUMBER_MAX else None


def _name(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:_NAME_LENGTH_MAX] or None
