"""The library's connections, as all of the adapter uses them: they say why they failed, and are quiet otherwise."""

from __future__ import annotations

import logging
import selectors
from typing import Any

import kafka
import kafka.admin
import kafka.errors
from kafka.future import Future as KafkaFuture
from kafka.net.compat import KafkaNetClient

# At INFO the library tells every connection and every rebalance; while a broker is away, ten errors a second.
logging.getLogger("kafka").setLevel(logging.WARNING)
for _name in ("kafka.net", "kafka.cluster", "kafka.coordinator"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
ENVELOPE_BYTES = 1024
"""More than Kafka puts around one record: 61 bytes a batch and some 20 a record."""


class _Selector(selectors.DefaultSelector):
    """Says that a socket is not registered without looking up its addresses.

    The library asks so before it waits for a socket, and takes a KeyError for a no; the standard library's has the
    socket in words, which takes four system calls and was a quarter of the sending thread's work.
    """

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._fd_to_key[fileobj.fileno()]  # type: ignore[attr-defined,no-any-return]


class Client(KafkaNetClient):  # type: ignore[misc]
    """The library's connections, so that they can be watched, woken, and closed when a constructor fails.

    ``failures``: per server the last reason why there was no connection.
    """

    def __init__(self, **configs: Any) -> None:
        # The library warns of steps above 0.1 s, which a busy machine has every minute.
        super().__init__(**{**configs, "selector": _Selector, "slow_task_threshold_secs": 1.0})
        # Otherwise asking for an absent topic makes it, with the broker's number of partitions instead of ours.
        self.cluster.config["allow_auto_create_topics"] = False
        self.failures: dict[str, BaseException] = {}
        self._connect = self._manager.get_connection
        self._manager.get_connection = self._watched_connection

    def answer(self, future: KafkaFuture) -> None:
        """Settle a future on the library's own thread: from another one, who awaits it may never be woken."""
        self._net.call_soon_threadsafe(lambda: future.success(None))

    def reachable(self) -> bool:
        """Whether a connection to any broker stands."""
        return any(connection.connected for connection in list(self._manager._conns.values()))

    def _watched_connection(self, node: object, *arguments: Any, **options: Any) -> Any:
        """The library says only that its time is out; why is known to each connection alone."""
        known = node in self._manager._conns
        connection = self._connect(node, *arguments, **options)
        if not known:
            broker = self.cluster.broker_metadata(node)
            connection.init_future.add_errback(self._failed, f"{broker.host}:{broker.port}")
        return connection

    def _failed(self, server: str, error: BaseException) -> None:
        # After a refused password the broker also hangs up on the next ones: the first reason says more.
        if not isinstance(self.failures.get(server), kafka.errors.SaslAuthenticationFailedError):
            self.failures[server] = error
