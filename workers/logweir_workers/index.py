"""Documents to the store, until each has an answer; and what that answer means for the event."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from logweir.event import Document
from logweir.metrics import registry
from logweir.outcomes import DeadLetterReason, Outcome
from logweir.store.port import Item, Store, Written
from logweir_workers.backoff import pause, until_it_answers

log = logging.getLogger(__name__)


def index(
    store: Store, documents: Sequence[Document], *, events_max: int, stopping: threading.Event, over_own: bool = False
) -> list[Item]:
    """Create the documents, at most ``events_max`` in one bulk; an item each, none of them AGAIN. Raises Stopped.

    ``over_own``: over what an earlier try of the same event has left, too.
    """
    write = store.replace if over_own else store.index
    items: list[Item] = []
    for at in range(0, len(documents), events_max):
        items += _until_taken(write, documents[at : at + events_max], stopping)
    return items


def outcome_of(document: Document, item: Item) -> tuple[Outcome, DeadLetterReason | None]:
    """What became of an event, by the store's answer for its document.

    A document under its id with its own provenance is this event's own earlier try: a worker died before it could
    write that down. With another provenance and the same content the sender sent it again.
    """
    if item.written is Written.CREATED or item.stored == document.provenance:
        return Outcome.INDEXED, None
    if item.written is Written.REFUSED:
        return Outcome.DEAD_LETTERED, DeadLetterReason.STORE_REFUSED
    if item.stored is not None and item.stored.content_hash != document.provenance.content_hash:
        return Outcome.DEAD_LETTERED, DeadLetterReason.IDENTITY_CONFLICT
    return Outcome.DUPLICATE, None


def _until_taken(
    write: Callable[[Sequence[Document]], list[Item]], documents: Sequence[Document], stopping: threading.Event
) -> list[Item]:
    items: dict[int, Item] = {}
    waiting = list(range(len(documents)))
    wait_s = 0.0
    while True:
        batch = [documents[at] for at in waiting]
        with registry.get("logweir_store_bulk_duration_seconds").time():
            answers = until_it_answers(lambda: write(batch), stopping)  # noqa: B023
        items.update(zip(waiting, answers, strict=True))
        waiting = [at for at in waiting if items[at].written is Written.AGAIN]
        if not waiting:
            return [items[at] for at in range(len(documents))]
        if not wait_s:
            error = items[waiting[0]].error
            log.warning("The store cannot take %d events now (%s). Trying again.", len(waiting), error)
        registry.get("logweir_store_bulk_retries_total").inc()
        wait_s = pause(wait_s, stopping)
