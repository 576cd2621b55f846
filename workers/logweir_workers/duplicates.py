"""Numbered events that came before, on another UTC day: sent again, they must not be indexed into a second day.

Within a day the store itself answers that an event's id is taken. Of other days the ledger knows which number came
first when (``FirstDays``), or that it may have: then the store is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from logweir.event import Provenance
from logweir.store.port import Store
from logweir_workers.backoff import until_it_answers
from logweir_workers.work import Retry, Work


def take_out_retries(store: Store, works: Sequence[Work], *, events_max: int, stopping: threading.Event) -> None:
    """Ask the store for events that may have come on an earlier day; those that did are not to be indexed.

    Raises Stopped.
    """
    asked = [(work, place, day) for work in works for place in work.documents for day in work.doubtful.get(place, ())]
    for at in range(0, len(asked), events_max):
        some = asked[at : at + events_max]
        places = [(day, work.documents[place].id) for work, place, day in some]
        found = until_it_answers(lambda: store.provenances(places), stopping)  # noqa: B023
        for (work, place, day), (_, id), stored in zip(some, places, found, strict=True):
            if stored is not None:
                work.retries[place] = Retry(id, day, work.documents[place].provenance.content_hash)
    for work in works if asked else ():
        for place in work.retries:
            work.documents.pop(place, None)


def conflicts(
    store: Store, works: Sequence[Work], stopping: threading.Event
) -> Iterator[tuple[Work, int, Retry, Provenance | None]]:
    """Each event that came on an earlier day, and what is stored there of another content; None: a duplicate.

    Raises Stopped.
    """
    retries = [(work, place, retry) for work in works for place, retry in work.retries.items()]
    places = [(retry.day, retry.id) for _, _, retry in retries if retry.day]
    if not retries:
        return
    found = dict(zip(places, until_it_answers(lambda: store.provenances(places), stopping), strict=True))
    for work, place, retry in retries:
        stored = found.get((retry.day, retry.id))
        is_same = stored is None or stored.content_hash == retry.content_hash
        yield work, place, retry, None if is_same else stored
