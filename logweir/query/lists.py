"""Lists: named sets of values that queries and rules ask for, as ``details.sourceipaddress:@tor_exits``.

A list is a file in ``alerts.lists_dir``. NAME.txt has a value a line, ``#`` begins a remark; NAME.csv has a header with
a column ``value``, and may have ``expires`` (ISO 8601) and others. A value may be a network (10.0.0.0/8). A change
counts within two seconds; a file that cannot be read leaves its list as it was read last.
"""

from __future__ import annotations

import csv
import ipaddress
import logging
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from logweir.clock import now_us
from logweir.errors import LIST_BAD, LIST_UNFIT, LIST_UNKNOWN, LogweirError
from logweir.event import Kind
from logweir.query import known
from logweir.query.tree import All, And, InList, Node, Not, Or, Range, Term, lower

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
ENTRIES_MAX = 1_000_000
SIZE_BYTES_MAX = 64 * 1024 * 1024
SEARCHED_MAX = 500
"""Most values of a list that a search asks for; rules ask for any number."""
_LOOK_EVERY_S = 2.0
_ADDRESS_LENGTH_MAX = 45


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of a list."""

    value: str
    expires_us: int | None = None
    """Not in the list from then on."""
    line: int = 0


@dataclass(slots=True)
class ValueList:
    """One list. What has ended is not in it, without anybody's doing."""

    name: str
    _ends: dict[str, int] = field(default_factory=dict)
    """When each value ends."""
    _lowered: dict[str, int] = field(default_factory=dict)
    """The same of values in lower case, where that is another text."""
    _networks: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    """By version and bits of the host, the same of networks and addresses."""
    _networks_end_us: int = 0
    """When the last network ends that is more than an address."""

    @classmethod
    def of(cls, name: str, entries: Iterable[Entry]) -> ValueList:
        """Raises LogweirError as ``entries`` does."""
        made = cls(name)
        for one in entries:
            made._add(one.value, _NEVER if one.expires_us is None else one.expires_us)
        return made

    def _add(self, value: str, end_us: int) -> None:
        _extend(self._ends, value, end_us)
        if (lowered := lower(value)) != value:
            _extend(self._lowered, lowered, end_us)
        network = _network(value)
        if network is not None:
            version, shift, number = network
            _extend(self._networks.setdefault((version, shift), {}), number, end_us)
            if "/" in value:
                self._networks_end_us = max(self._networks_end_us, end_us)

    def __contains__(self, text: object) -> bool:
        """Whether a value is in it: as it is written, or an address in one of its networks."""
        return isinstance(text, str) and (_lasts(self._ends.get(text)) or self._has_address(text))

    def has_lowered(self, text: str) -> bool:
        """The same for a text in lower case, in whatever case the list has it."""
        return _lasts(self._ends.get(text)) or _lasts(self._lowered.get(text)) or self._has_address(text)

    def lowered(self) -> Iterator[str]:
        """Its values in lower case, and those that have another."""
        now = now_us()
        return (text for known in (self._ends, self._lowered) for text, end_us in known.items() if end_us > now)

    def __len__(self) -> int:
        now = now_us()
        return sum(end_us > now for end_us in self._ends.values())

    def _has_address(self, text: str) -> bool:
        if not self._networks or len(text) > _ADDRESS_LENGTH_MAX:
            return False
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        number = int(address)
        return any(
            _lasts(ends.get(number >> shift))
            for (version, shift), ends in self._networks.items()
            if version == address.version
        )

    @property
    def has_networks(self) -> bool:
        return self._networks_end_us > now_us()

    def items(self) -> list[tuple[str, int | None]]:
        """The values that are in it now, as they were written down, with when each ends; None: never."""
        now = now_us()
        return [(value, None if end == _NEVER else end) for value, end in self._ends.items() if end > now]

    def values(self) -> list[str]:
        """Those that are in it now, in order."""
        return sorted(value for value, _ in self.items())


_NEVER = 2**63 - 1
_K = TypeVar("_K", str, int)


def _extend(ends: dict[_K, int], value: _K, end_us: int) -> None:
    """Of what a list has twice, the later end counts."""
    if end_us > ends.get(value, 0):
        ends[value] = end_us


def _lasts(end_us: int | None) -> bool:
    return end_us is not None and (end_us == _NEVER or end_us > now_us())


class Lists:
    """The lists of a folder, as its files are now. Safe to use from several threads."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.problems: list[str] = []
        """What is wrong with files, as they are now."""
        self._lock = threading.Lock()
        self._known: dict[str, tuple[object, ValueList]] = {}
        self._looked_s = -_LOOK_EVERY_S
        self._was_read = False

    def get(self, name: str) -> ValueList | None:
        """The list of that name; None where there is none."""
        self._look()
        found = self._known.get(name)
        return None if found is None else found[1]

    def named(self, name: str) -> ValueList:
        """As ``get``. Raises LogweirError(LIST_UNKNOWN)."""
        found = self.get(name)
        if found is None:
            raise LogweirError(LIST_UNKNOWN, name=name, folder=self.folder or "no folder")
        return found

    def __iter__(self) -> Iterator[ValueList]:
        self._look()
        return iter([one for _, (_, one) in sorted(self._known.items())])

    def _look(self) -> None:
        """See what has changed, now and then."""
        if self.folder is None or time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        # Before the first look is over, nobody knows of any list: who asks waits for it, and never after that.
        if self._lock.acquire(blocking=not self._was_read):
            try:
                if time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
                    self._read()
                    self._looked_s = time.monotonic()
            finally:
                self._lock.release()

    def reload(self) -> None:
        """See at once what has changed."""
        if self.folder is not None:
            with self._lock:
                self._read()
                self._looked_s = time.monotonic()

    def _read(self) -> None:
        assert self.folder is not None, "it was asked before"
        known: dict[str, tuple[object, ValueList]] = {}
        problems: list[str] = []
        for path in sorted((*self.folder.glob("*.csv"), *self.folder.glob("*.txt"))):
            before = self._known.get(path.stem)
            try:
                version = _version(path)
                if path.stem in known:
                    raise _bad(path, 0, f"there is another file of the list {path.stem}")
                if before is not None and before[0] == (path, version):
                    made = before[1]
                else:
                    made = ValueList.of(path.stem, read_entries(path))
                known[path.stem] = (path, version), made
            except LogweirError as error:
                problems.append(str(error))
                if before is not None and path.stem not in known:
                    known[path.stem] = before
        if problems != self.problems:
            for problem in problems:
                log.error("%s", problem)
        self._known, self.problems, self._was_read = known, problems, True


def read_entries(path: Path) -> Iterator[Entry]:
    """What a file says, one after another. Raises LogweirError(LIST_BAD) with the line, in between, too."""
    if not NAME.fullmatch(path.stem):
        raise _bad(path, 0, "a list's name is of a to z, digits and _, beginning with a letter, 64 at most")
    is_csv = path.suffix == ".csv"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise _bad(path, 0, "it is no file")
        if found.st_size > SIZE_BYTES_MAX:
            raise _bad(path, 0, f"it has more than {SIZE_BYTES_MAX} bytes")
        with path.open(encoding="utf-8-sig", newline="" if is_csv else None) as lines:
            for number, entry in enumerate(_of_csv(path, lines) if is_csv else _of_text(lines)):
                if number == ENTRIES_MAX:
                    raise _bad(path, entry.line, f"there are more than {ENTRIES_MAX:,} entries")
                yield entry
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path, 0, str(error)) from error


def _version(path: Path) -> tuple[int, int, int]:
    """Another one when the file was written again. Raises LogweirError(LIST_BAD) where it is gone."""
    try:
        found = path.stat()
    except OSError as error:
        raise _bad(path, 0, str(error)) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _of_text(lines: Iterable[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, start=1):
        value = (_REMARK.split(line, maxsplit=1)[0] if "#" in line else line).strip()
        if value:
            yield Entry(value, None, number)


_REMARK = re.compile(r"(?:^|\s)#")


def _of_csv(path: Path, lines: Iterable[str]) -> Iterator[Entry]:
    rows = csv.reader(lines, strict=True)
    try:
        columns = {name: at for at, name in enumerate(next(rows, []))}
        if "value" not in columns:
            raise _bad(path, 1, "its header has no column value")
        value_at, expires_at = columns["value"], columns.get("expires", sys.maxsize)
        for row in rows:
            value = row[value_at].strip() if value_at < len(row) else ""
            if value:
                expires = row[expires_at].strip() if expires_at < len(row) else ""
                yield Entry(value, _end_of(path, rows.line_num, expires), rows.line_num)
    except csv.Error as error:
        raise _bad(path, rows.line_num, str(error)) from error


def _end_of(path: Path, line: int, text: str) -> int | None:
    if not text:
        return None
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise _bad(path, line, f"expires is {text[:40]!r}, which is no time as ISO 8601 has them") from error
    return int((end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def _network(text: str) -> tuple[int, int, int] | None:
    """The network, or the one address, that a value is: version, bits of the host, the bits before these.

    None for any other value.
    """
    if len(text) > _ADDRESS_LENGTH_MAX + 4 or not _ADDRESS.fullmatch(text):
        return None
    try:
        if "/" not in text:
            # A tenth of the time that ipaddress takes.
            is_4 = ":" not in text
            number = int.from_bytes(socket.inet_pton(socket.AF_INET if is_4 else socket.AF_INET6, text), "big")
            return (4 if is_4 else 6), 0, number
        network = ipaddress.ip_network(text, strict=False)
    except (ValueError, OSError):
        return None
    shift = network.max_prefixlen - network.prefixlen
    return network.version, shift, int(network.network_address) >> shift


_ADDRESS = re.compile(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?")


def _bad(path: Path, line: int, reason: str) -> LogweirError:
    return LogweirError(LIST_BAD, path=path, line=f", line {line}" if line else "", reason=reason.rstrip("."))


# --- those of this process ------------------------------------------------------------------------------------------
_in_use = Lists()


def use(folder: Path) -> None:
    """Have queries and rules of this process ask the lists of that folder."""
    global _in_use
    _in_use = Lists(folder)


def in_use() -> Lists:
    """Those that queries and rules of this process ask."""
    return _in_use


def names_in(node: Node) -> set[str]:
    """The lists that a query asks for."""
    if isinstance(node, InList):
        return {node.name}
    if isinstance(node, And | Or):
        return {name for one in node.nodes for name in names_in(one)}
    return names_in(node.node) if isinstance(node, Not) else set()


def expanded(node: Node) -> Node:
    """The query with each list's values in its place, as stores take it.

    Raises LogweirError: LIST_UNKNOWN, LIST_UNFIT where there are too many values, or networks among them and the field
    is no address.
    """
    if isinstance(node, And | Or):
        return type(node)(tuple(expanded(one) for one in node.nodes))
    if isinstance(node, Not):
        return Not(expanded(node.node))
    if not isinstance(node, InList):
        return node
    found = in_use().named(node.name)
    is_of_addresses = known.ORDERED.get(node.field) is Kind.IP
    if (found.has_networks and not is_of_addresses) or len(found) > SEARCHED_MAX:
        is_long = len(found) > SEARCHED_MAX
        reason = f"has {len(found):,} values, more than {SEARCHED_MAX}" if is_long else "has networks"
        raise LogweirError(LIST_UNFIT, name=node.name, reason=reason)
    is_detail = node.field.startswith("details")
    terms: list[Node] = [Term(node.field, value if is_detail else lower(value)) for value in found.values()]
    if is_of_addresses:
        terms += [Range(node.field, *network) for value in found.values() if (network := known.network_range(value))]
    return Or(tuple(terms)) if terms else Not(All())


def at_least(node: Node) -> Node:
    """A query without lists, for stores, that finds all that the query does, and perhaps more."""
    return _wide(node, is_negated=False)


def _wide(node: Node, *, is_negated: bool) -> Node:
    if isinstance(node, And | Or):
        return type(node)(tuple(_wide(one, is_negated=is_negated) for one in node.nodes))
    if isinstance(node, Not):
        return Not(_wide(node.node, is_negated=not is_negated))
    if not isinstance(node, InList):
        return node
    # What a list has may hold, or may not: whichever leaves nothing out.
    return Not(All()) if is_negated else All()
