"""The library's connections, as all of the adapter uses them: they say why they failed, and are quiet otherwise."""

from __future__ import annotations

import contextlib
import logging
import selectors
import ssl
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import kafka
import kafka.admin
import kafka.errors
from kafka.future import Future as KafkaFuture
from kafka.net.compat import KafkaNetClient

from logweir.config import QueueSettings, shown_url
from logweir.errors import QUEUE_DOWN, SETTING_BAD, LogweirError

log = logging.getLogger(__name__)

# At INFO the library tells every connection and every rebalance; while a broker is away, ten errors a second.
logging.getLogger("kafka").setLevel(logging.WARNING)
for _name in ("kafka.net", "kafka.cluster", "kafka.coordinator"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
ENVELOPE_BYTES = 1024
"""More than Kafka puts around one record: 61 bytes a batch and some 20 a record."""
_PORT_DEFAULT = 9092

T = TypeVar("T")


class Connection:
    """How the topic that ``settings.url`` (``kafka://host:port[,host:port]/topic``) names is connected to."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._servers, self.topic = _parsed(settings.url)

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return f"kafka://{','.join(self._servers)}/{self.topic}"

    def down(self, reason: object) -> LogweirError:
        return LogweirError(QUEUE_DOWN, url=self.url, reason=reason)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Kafka's errors become LogweirError(QUEUE_DOWN)."""
        try:
            yield
        except (kafka.errors.KafkaError, OSError) as error:
            raise self.down(self._reason(error)) from error

    def opened(self, make: Callable[..., T], **options: Any) -> tuple[T, Client]:
        """A part of the library, connected, and its connections.

        Raises LogweirError(QUEUE_DOWN) after CONNECT_TIMEOUT_S at most.
        """
        clients: list[Client] = []

        def client(**configs: Any) -> Client:
            clients.append(Client(**configs))
            return clients[-1]

        made = False
        try:
            library = make(**self._options(), **options, kafka_client=client)
            made = True
            return library, clients[0]
        except (kafka.errors.KafkaError, OSError) as error:
            reasons = clients[0].failures if clients else {}
            raise self.down(self._reason(error, reasons)) from error
        finally:
            # A constructor that fails leaves its thread and sockets behind.
            for left in () if made else clients:
                left.close()

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "bootstrap_servers": self._servers,
            "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
            "reconnect_backoff_max_ms": 2000,
            "security_protocol": ("SASL_" if settings.sasl_mechanism else "")
            + ("SSL" if settings.tls else "PLAINTEXT"),
        }
        if settings.tls:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.certificate_file:
                context.load_cert_chain(settings.certificate_file, settings.certificate_key_file)
            options["ssl_context"] = context
        if settings.sasl_mechanism:
            if settings.sasl_mechanism == "PLAIN" and not settings.tls:
                log.warning("%s: the password goes over the network in the clear; set queue.tls", self.url)
            options["sasl_mechanism"] = settings.sasl_mechanism
            options["sasl_plain_username"] = settings.username
            options["sasl_plain_password"] = settings.password.get_secret_value()
        return options

    def _reason(self, error: BaseException, failures: Mapping[str, BaseException] = MappingProxyType({})) -> str:
        for cause in (error, *failures.values()):
            if isinstance(cause, kafka.errors.SaslAuthenticationFailedError):
                return f"it refuses user {self._settings.username!r} or the password"
        if failures:
            return "; ".join(f"{server}: {failure}" for server, failure in failures.items())
        return f"{type(error).__name__}: {error}" if isinstance(error, kafka.errors.KafkaError) else str(error)


def _parsed(url: str) -> tuple[list[str], str]:
    """Addresses as host:port, and the topic."""
    servers, _, topic = url.removeprefix("kafka://").partition("/")
    reason = ""
    if "@" in url:
        reason = "user and password go into queue.username and queue.password"
    elif not servers or not topic or "/" in topic:
        reason = "it is not kafka://host:port[,host:port]/topic"
    if reason:
        raise LogweirError(
            SETTING_BAD, where="The configuration", name="queue.url", value=shown_url(url), reason=reason
        )
    # A colon that is not inside [an IPv6 address].
    with_port = [s if ":" in s.rpartition("]")[2] else f"{s}:{_PORT_DEFAULT}" for s in servers.split(",")]
    return with_port, topic


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
