"""The queue: ``open_queue`` chooses the adapter; what may be asked of it says ``port.py``."""

from __future__ import annotations

from logweir.config import QueueSettings, shown_url
from logweir.errors import SETTING_BAD, LogweirError
from logweir.queue.port import Queue


def open_queue(settings: QueueSettings, *, group: str | None = None) -> Queue:
    """The queue that ``settings.url`` names: ``kafka://host:port[,host:port…]/topic`` or ``sqlite:///path``.

    ``group``: the consumer group whose unread records the embedded queue's retention never removes: it takes no more
    instead. (Kafka's retention is the broker's own, whatever anybody has read.)
    Connects lazily: an absent server is an error of the first use.
    """
    scheme = settings.url.partition(":")[0]
    if scheme == "kafka":
        from logweir.queue.kafka.topic import KafkaQueue

        return KafkaQueue(settings)
    if scheme == "sqlite":
        from logweir.queue.sqlite.topic import SqliteQueue

        return SqliteQueue(settings, group)
    raise LogweirError(
        SETTING_BAD,
        where="The configuration",
        name="queue.url",
        value=shown_url(settings.url),
        reason="it begins neither with kafka:// nor with sqlite:///",
    )
