"""Who holds connections: the oldest without a key makes room, those with one never do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from logweir.http.shares import Shares, network_of


@dataclass(eq=False)
class Connection:
    name: str
    holder: str | None = None
    key: str | None = None
    is_ended: bool = False

    def make_room(self) -> None:
        self.is_ended = True


class Server:
    def __init__(self, *, without_key_max: int = 8, per_address_max: int = 3, per_key_max: int = 2) -> None:
        self.counted: Counter[str] = Counter()
        self.shares = Shares(
            without_key_max=without_key_max,
            per_address_max=per_address_max,
            per_key_max=per_key_max,
            ended=lambda code: self.counted.update([code]),
        )
        self.all: list[Connection] = []

    def connect(self, address: str) -> Connection:
        self.all.append(Connection(f"{address} {len(self.all)}"))
        self.shares.add(self.all[-1], address)
        return self.all[-1]

    def ended(self) -> list[str]:
        return [connection.name for connection in self.all if connection.is_ended]


def test_an_address_beyond_its_share_loses_its_oldest_without_a_key() -> None:
    """Nobody else does, and none that has shown a key, however old."""
    server = Server()
    other = server.connect("10.0.0.2")
    first = server.connect("10.0.0.1")
    server.shares.show_key(first, "web")
    flood = [server.connect("10.0.0.1") for _ in range(5)]

    assert server.ended() == [flood[0].name, flood[1].name]
    assert server.counted == {"connections_without_key_too_many": 2}
    server.shares.discard(flood[2])
    server.connect("10.0.0.1")
    assert len(server.ended()) == 2 and not other.is_ended


def test_all_addresses_together_leave_room_for_who_has_a_key() -> None:
    """Of many addresses the oldest connection goes, whichever it is of."""
    server = Server(without_key_max=4)
    keyed = [server.connect("10.0.0.1") for _ in range(2)]
    for connection in keyed:
        server.shares.show_key(connection, "web")
    strangers = [server.connect(f"10.1.0.{at}") for at in range(6)]

    assert server.ended() == [strangers[0].name, strangers[1].name]


def test_a_key_has_a_share_too() -> None:
    """What is beyond it is said, and what has gone has left room; another key has its own."""
    server = Server()
    connections = [server.connect("10.0.0.1") for _ in range(3)]

    assert [server.shares.show_key(one, "web") for one in connections] == [True, True, False]
    assert server.shares.show_key(server.connect("10.0.0.1"), "mail")
    for one in connections[:2]:
        server.shares.discard(one)
    assert server.shares.show_key(server.connect("10.0.0.1"), "web")


def test_nothing_is_left_of_connections_that_are_gone() -> None:
    """In any order, and twice: what is ended for another is lost later."""
    server = Server(without_key_max=2)
    connections = [server.connect(f"10.0.0.{at % 3}") for at in range(9)]
    server.shares.show_key(connections[-1], "web")
    for one in (*connections, *connections):
        server.shares.discard(one)

    assert not (server.shares._without_key or server.shares._by_network or server.shares._keys)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:0:0:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a:b", ""),
    ],
)
def test_one_senders_addresses_are_one(address: str, network: str) -> None:
    """However an IPv4 address is written; of IPv6 all of a /64."""
    assert network_of(address) == network
