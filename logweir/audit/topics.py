"""What may have been in topics that others have taken the place of, behind what was read of them."""

from __future__ import annotations

from collections.abc import Mapping

from logweir.clock import WINDOW_US
from logweir.ledger.closings import Closing
from logweir.ledger.documents import PartitionId, StreamId
from logweir.ledger.position import LEFT_BEHIND, Position, how_far, still_sending


def left_behind(
    positions: Mapping[PartitionId, Position],
    caught_up: Mapping[PartitionId, int],
    closings: Mapping[StreamId, Closing],
    *,
    topic_id: str,
    before: int,
) -> set[StreamId]:
    """Ingest processes of which nobody knows what they sent last to a partition of a topic that is gone.

    Not those that went on in the topic that is read now, ``topic_id``: their next numbers say what is missing. Nor
    those that a person has closed since, or whose windows, before the minute ``before``, are carried forward.
    """
    newest: dict[int, PartitionId] = {}
    for place, position in positions.items():
        known = newest.get(place.partition)
        if known is None or how_far(position) > how_far(positions[known]):
            newest[place.partition] = place
    read_now = {place.partition for place in positions if place.topic_id == topic_id}
    alive = {
        epoch
        for place in newest.values()
        for epoch, stream in positions[place].streams.items()
        if place.topic_id == topic_id and stream.offset != LEFT_BEHIND
    }
    found = set()
    for partition, place in newest.items():
        streams = positions[place].streams
        # Of fewer partitions than before, nobody has claimed the last ones.
        epochs = {epoch for epoch, stream in streams.items() if stream.offset == LEFT_BEHIND}
        if partition not in read_now:
            epochs |= still_sending(positions, place, caught_up).keys()
        for epoch in epochs:
            stream, closing = streams.get(epoch), closings.get(StreamId(epoch, partition))
            window = stream.window if stream else caught_up.get(place, 0)
            is_closed = closing is not None and closing.at_us >= window * WINDOW_US
            # On a partition that it had sent no events to, one that lives sends none again, as far as that is known.
            goes_on = epoch in alive and not (stream and stream.last)
            if window >= before and not is_closed and not goes_on:
                found.add(StreamId(epoch, partition))
    return found
