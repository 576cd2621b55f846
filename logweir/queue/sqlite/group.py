"""Consumer groups of the embedded queue: members share the partitions and agree through write transactions alone.

Three tables hold a group: its members with a heartbeat each, who owns which partition, the committed offsets.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from logweir.clock import now_us
from logweir.config import QueueSettings
from logweir.errors import LogweirError
from logweir.process import lifetime as process
from logweir.queue.port import Assigned, Delivery, Revoked
from logweir.queue.sqlite.database import POLL_SIZE_BYTES_MAX, Database, bounds, records_from

log = logging.getLogger(__name__)

_SLEEP_S_MIN = 0.002
_SLEEP_S_MAX = 0.05


class SqliteConsumer:
    """A member of a group; joins at the first ``poll``."""

    def __init__(
        self, settings: QueueSettings, path: Path, *, topic: str, group: str, assigned: Assigned, revoked: Revoked
    ) -> None:
        self._url = settings.url
        self._topic = topic
        self._session_timeout_s = settings.session_timeout_s
        self._database = Database(settings.url, path)
        self._membership = Membership(group, session_timeout_ms=int(settings.session_timeout_s * 1000))
        self._group = group
        self._assigned = assigned
        self._revoked = revoked
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()
        self._heartbeat_s = float("-inf")
        self._data_version = -1
        self._turn = 0

    def poll(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        until_s = time.monotonic() + wait_s
        sleep_s = _SLEEP_S_MIN
        look = True
        while True:
            changed = self._changed()
            if self._heartbeat_due() or (changed and self._group_changed()):
                self._settle_membership()
                look = True
            deliveries = self._read(records_max) if look or changed else []
            # Stopped and continued in between: see first whether the partitions are still ours.
            if self._session_over():
                continue
            left_s = until_s - time.monotonic()
            if deliveries or left_s <= 0:
                self._positions.update({delivery.partition: delivery.offset + 1 for delivery in deliveries})
                return deliveries
            time.sleep(min(sleep_s, left_s))
            sleep_s = min(sleep_s * 1.5, _SLEEP_S_MAX)
            look = False

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    def pause(self, partitions: Collection[int]) -> None:
        self._paused.update(partition for partition in partitions if partition in self._positions)

    def resume(self, partitions: Collection[int]) -> None:
        self._paused.difference_update(partitions)

    def commit(self, offsets: Mapping[int, int]) -> None:
        if not offsets:
            return
        with self._database.writing() as connection:
            owned = self._membership.owned(connection)
            connection.executemany(
                "INSERT INTO committed VALUES (?, ?, ?)"
                " ON CONFLICT (group_name, partition) DO UPDATE SET next_offset = excluded.next_offset",
                [(self._group, partition, offset) for partition, offset in offsets.items() if partition in owned],
            )

    def unread(self) -> dict[int, int]:
        with self._database.reading() as connection:
            return {partition: self._unread_of(connection, partition) for partition in sorted(self._positions)}

    def close(self) -> None:
        held = sorted(self._positions)
        try:
            with self._database.writing() as connection:
                owned = self._membership.owned(connection)
            self._give_up([partition for partition in held if partition not in owned], lost=True)
            self._give_up(sorted(self._positions), lost=False)
            with self._database.writing() as connection:
                self._membership.leave(connection)
        except LogweirError as error:
            # Others take over when the session ends by itself.
            log.warning("The consumer could not leave its group: %s", error)
            self._give_up(sorted(self._positions), lost=True)
        finally:
            self._database.close()

    def _changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        with self._database.reading() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        if self._database.reopened:
            self._database.reopened = False
            self._data_version = -1
        changed: bool = version != self._data_version
        self._data_version = version
        return changed

    def _group_changed(self) -> bool:
        with self._database.reading() as connection:
            return self._membership.changed(connection)

    def _heartbeat_due(self) -> bool:
        return time.monotonic() - self._heartbeat_s > self._session_timeout_s / 4

    def _session_over(self) -> bool:
        return time.monotonic() - self._heartbeat_s > self._session_timeout_s

    def _settle_membership(self) -> None:
        """Say that we live, give up what others are to have, take what is ours."""
        if not self._heartbeat():
            self._give_up(sorted(self._positions), lost=True)
            self._heartbeat()
        excess = self._membership.excess
        if excess:
            self._give_up([partition for partition in excess if partition in self._positions], lost=False)
            with self._database.writing() as connection:
                self._membership.release(connection, excess)
        # Those of an earlier time whose ``assigned`` failed are asked for again.
        new = [partition for partition in self._membership.kept if partition not in self._positions]
        if new:
            starts = self._assigned(new)
            with self._database.reading() as connection:
                found = {partition: self._start(connection, partition, starts.get(partition)) for partition in new}
            self._positions.update(found)

    def _heartbeat(self) -> bool:
        """False when we had lost our membership; the next call joins anew."""
        began_s = time.monotonic()
        with self._database.writing() as connection:
            alive = self._membership.heartbeat(connection)
        self._heartbeat_s = began_s
        return alive

    def _give_up(self, partitions: Collection[int], *, lost: bool) -> None:
        if not partitions:
            return
        try:
            self._revoked(partitions, lost)
        finally:
            for partition in partitions:
                self._positions.pop(partition, None)
                self._paused.discard(partition)

    def _start(self, connection: sqlite3.Connection, partition: int, offset: int | None) -> int:
        if offset is None:
            offset = self._committed(connection, partition)
        return bounds(connection, partition)[0] if offset is None else offset

    def _committed(self, connection: sqlite3.Connection, partition: int) -> int | None:
        row = connection.execute(
            "SELECT next_offset FROM committed WHERE group_name = ? AND partition = ?", (self._group, partition)
        ).fetchone()
        return None if row is None else int(row[0])

    def _read(self, records_max: int) -> list[Delivery]:
        """What is next, beginning with another partition each time so that none starves."""
        wanted = sorted(self._positions.keys() - self._paused)
        if not wanted:
            return []
        self._turn += 1
        first = self._turn % len(wanted)
        deliveries: list[Delivery] = []
        with self._database.reading() as connection:
            following = dict(connection.execute("SELECT partition, next_offset FROM partition"))
            for partition in wanted[first:] + wanted[:first]:
                if self._positions[partition] == following[partition]:
                    continue
                deliveries += records_from(
                    connection,
                    topic=self._topic,
                    partition=partition,
                    offset=self._positions[partition],
                    records_max=records_max - len(deliveries),
                )
                if len(deliveries) >= records_max or sum(len(d.payload) for d in deliveries) >= POLL_SIZE_BYTES_MAX:
                    break
        return deliveries

    def _unread_of(self, connection: sqlite3.Connection, partition: int) -> int:
        earliest, following = bounds(connection, partition)
        return following - max(self._committed(connection, partition) or 0, earliest)


class Membership:
    """One member's side of the agreement on who owns which partition. Every method runs inside a transaction.

    Partitions stay where they are as far as an even share allows. ``kept`` are those of ours that are within our share,
    ``excess`` those beyond it: others wait until we release them.
    """

    def __init__(self, group: str, *, session_timeout_ms: int) -> None:
        self._group = group
        self._session_timeout_ms = session_timeout_ms
        self._member: int | None = None
        self._generation = -1
        self.kept: list[int] = []
        self.excess: list[int] = []

    def changed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT generation FROM consumer_group WHERE name = ?", (self._group,)).fetchone()
        return row is None or int(row[0]) != self._generation

    def owned(self, connection: sqlite3.Connection) -> set[int]:
        query = "SELECT partition FROM owner WHERE group_name = ? AND member = ?"
        return {partition for (partition,) in connection.execute(query, (self._group, self._member))}

    def heartbeat(self, connection: sqlite3.Connection) -> bool:
        """Renew the membership or join, and take free partitions up to our share. False: it was lost meanwhile."""
        now_ms = now_us() // 1000
        self._expel_dead(connection, now_ms)
        if self._member is None:
            self._member = connection.execute(
                "INSERT INTO member (group_name, heartbeat_ms, session_timeout_ms, process) VALUES (?, ?, ?, ?)",
                (self._group, now_ms, self._session_timeout_ms, process.identity()),
            ).lastrowid
            self._new_generation(connection)
        else:
            beat = "UPDATE member SET heartbeat_ms = ? WHERE id = ?"
            if connection.execute(beat, (now_ms, self._member)).rowcount == 0:
                self._member, self.kept, self.excess = None, [], []
                return False
        self._take_share(connection)
        query = "SELECT generation FROM consumer_group WHERE name = ?"
        (self._generation,) = connection.execute(query, (self._group,)).fetchone()
        return True

    def release(self, connection: sqlite3.Connection, partitions: Collection[int]) -> None:
        connection.executemany(
            "DELETE FROM owner WHERE group_name = ? AND partition = ? AND member = ?",
            [(self._group, partition, self._member) for partition in partitions],
        )
        self._new_generation(connection)
        self.excess = []

    def leave(self, connection: sqlite3.Connection) -> None:
        if self._member is not None:
            self._remove(connection, self._member)
            self._member, self.kept, self.excess = None, [], []

    def _expel_dead(self, connection: sqlite3.Connection, now_ms: int) -> None:
        query = "SELECT id, heartbeat_ms, session_timeout_ms, process FROM member WHERE group_name = ?"
        for member, heartbeat_ms, session_timeout_ms, owner in connection.execute(query, (self._group,)).fetchall():
            # A heartbeat from the future is as old as one from the past: the machine's clock was set back.
            is_over = abs(now_ms - heartbeat_ms) > session_timeout_ms
            # Not ourselves, however late we are: what nobody has taken from us is still ours.
            if member != self._member and (is_over or process.is_gone(owner)):
                self._remove(connection, member)

    def _remove(self, connection: sqlite3.Connection, member: int) -> None:
        connection.execute("DELETE FROM owner WHERE group_name = ? AND member = ?", (self._group, member))
        connection.execute("DELETE FROM member WHERE id = ?", (member,))
        self._new_generation(connection)

    def _new_generation(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO consumer_group VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET generation = generation + 1",
            (self._group,),
        )

    def _take_share(self, connection: sqlite3.Connection) -> None:
        members = [
            member
            for (member,) in connection.execute(
                "SELECT id FROM member WHERE group_name = ? ORDER BY id", (self._group,)
            )
        ]
        query = "SELECT partition, member FROM owner WHERE group_name = ? ORDER BY partition"
        owners = dict(connection.execute(query, (self._group,)).fetchall())
        partitions = [partition for (partition,) in connection.execute("SELECT partition FROM partition")]
        owned = [partition for partition, member in owners.items() if member == self._member]
        counts = dict.fromkeys(members, 0)
        for member in owners.values():
            counts[member] += 1
        assert self._member is not None
        share = share_of(self._member, counts, partitions=len(partitions))
        free = [partition for partition in partitions if partition not in owners]
        taken = free[: max(0, share - len(owned))]
        connection.executemany(
            "INSERT INTO owner VALUES (?, ?, ?)", [(self._group, partition, self._member) for partition in taken]
        )
        self.kept = sorted([*owned[:share], *taken])
        self.excess = owned[share:]


def share_of(member: int, counts: Mapping[int, int], *, partitions: int) -> int:
    """How many partitions ``member`` is to have; ``counts``: what each has now, in the order of joining.

    Shares differ by one at most, and who has more keeps the odd one, so that nothing moves without need.
    """
    each, odd = divmod(partitions, len(counts))
    ranked = sorted(counts, key=lambda other: -counts[other])
    return each + (1 if ranked.index(member) < odd else 0)
