"""Who holds a server's connections: by address, until a connection shows a good key, and by key from then on.

Nobody may hold all of them. Beyond its share an address loses its oldest connection without a key, so a newer one,
which may show a key any moment, always finds room. A connection with a key is never ended for others; those of one key
beyond its share end with their next answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol

from logweir.errors import CONNECTIONS_WITHOUT_KEY_TOO_MANY

_IPV6_PREFIX = 64
"""A sender with IPv6 has all the addresses of such a network."""


def network_of(address: str) -> str:
    """What counts as one sender's: an IPv4 address, however it is written; of IPv6 a /64; empty for what is neither."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return ""
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _IPV6_PREFIX), strict=False))


def neighbourhood_of(network: str) -> str:
    """Of what ``network_of`` gives, what one owner commonly has: of IPv4 a /24, of IPv6 a /48."""
    if ":" in network:
        return ":".join([*network.partition("::")[0].split(":"), "0", "0"][:3])
    return network.rpartition(".")[0]


class Connection(Protocol):
    """``holder``: whose share it counts against, a network until a good key is shown, then None."""

    holder: str | None
    key: str | None

    def make_room(self) -> None: ...


class Shares:
    """Those of one process. For the loop's thread alone.

    ``ended`` gets the code of the problem for each connection that is ended for a newer one.
    """

    def __init__(
        self, *, without_key_max: int, per_address_max: int, per_key_max: int, ended: Callable[[str], object]
    ) -> None:
        self.without_key_max = without_key_max
        self._per_address_max = per_address_max
        self._per_key_max = per_key_max
        self._ended = ended
        # The oldest first.
        self._without_key: dict[Connection, None] = {}
        self._by_network: dict[str, dict[Connection, None]] = {}
        self._keys: dict[str, int] = {}

    def add(self, connection: Connection, address: str) -> None:
        """A new one, which has shown no key. Makes room for it where there is none."""
        network = network_of(address)
        neighbours = self._by_network.get(network, {})
        if len(neighbours) >= self._per_address_max:
            self._end_first(neighbours)
        elif len(self._without_key) >= self.without_key_max:
            self._end_first(self._without_key)
        connection.holder = network
        self._without_key[connection] = None
        self._by_network.setdefault(network, {})[connection] = None

    def show_key(self, connection: Connection, name: str) -> bool:
        """It has shown the good key of that name, for the first time; False when the key has more than its share."""
        self._forget_network(connection)
        connection.key = name
        count = self._keys[name] = self._keys.get(name, 0) + 1
        return count <= self._per_key_max

    def discard(self, connection: Connection) -> None:
        """It is lost."""
        self._forget_network(connection)
        name, connection.key = connection.key, None
        if name is not None:
            self._keys[name] -= 1
            if not self._keys[name]:
                del self._keys[name]

    def _forget_network(self, connection: Connection) -> None:
        network, connection.holder = connection.holder, None
        if network is None:
            return
        del self._without_key[connection]
        neighbours = self._by_network[network]
        del neighbours[connection]
        if not neighbours:
            del self._by_network[network]

    def _end_first(self, connections: dict[Connection, None]) -> None:
        oldest = next(iter(connections))
        self._forget_network(oldest)
        self._ended(CONNECTIONS_WITHOUT_KEY_TOO_MANY.code)
        oldest.make_room()
