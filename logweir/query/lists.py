"""Lists: named sets of values that queries and rules ask for, as ``details.sourceipaddress:@tor_exits``.

A list is a file in ``alerts.lists_dir``. NAME.txt has a value a line, ``#`` begins a remark; NAME.csv has a header with
a column ``value``, and may have ``expires`` (ISO 8601) and others. A value may be a network (10.0.0.0/8). A change
counts within two seconds; a file that cannot be read leaves its list as it was read last.
"""

from __future__ import annotations

import csv
import io
import ipaddress
import logging
import re
import threading
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from logweir.clock import now_us
from logweir.errors import LIST_BAD, LIST_UNFIT, LIST_UNKNOWN, LogweirError
from logweir.query.tree import All, And, InList, Node, Not, Or, Term, lower

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

    def is_over(self, time_us: int) -> bool:
        return self.expires_us is not None and self.expires_us <= time_us


@dataclass(slots=True)
class ValueList:
    """One list, as it was at ``made_us``."""

    name: str
    entries: list[Entry]
    made_us: int
    next_end_us: int | None = None
    """When the next of its entries ends."""
    _texts: set[str] = field(default_factory=set)
    _lowered: set[str] = field(default_factory=set)
    _networks: dict[tuple[int, int], set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, entries: list[Entry], made_us: int) -> ValueList:
        made = cls(name, entries, made_us)
        ends = [one.expires_us for one in entries if one.expires_us is not None and one.expires_us > made_us]
        made.next_end_us = min(ends, default=None)
        for one in entries:
            if one.is_over(made_us):
                continue
            made._texts.add(one.value)
            made._lowered.add(lower(one.value))
            network = _network(one.value)
            if network is not None:
                shift = network.max_prefixlen - network.prefixlen
                numbers = made._networks.setdefault((network.version, shift), set())
                numbers.add(int(network.network_address) >> shift)
        return made

    def __contains__(self, text: object) -> bool:
        """Whether a value is in it: as it is written, or an address in one of its networks."""
        return isinstance(text, str) and (text in self._texts or self._has_address(text))

    def has_lowered(self, text: str) -> bool:
        """The same for a text in lower case, in whatever case the list has it."""
        return text in self._lowered or self._has_address(text)

    @property
    def lowered(self) -> Set[str]:
        """Its values in lower case."""
        return self._lowered

    def __len__(self) -> int:
        return len(self._texts)

    def _has_address(self, text: str) -> bool:
        if not self._networks or len(text) > _ADDRESS_LENGTH_MAX:
            return False
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        number = int(address)
        return any(
            number >> shift in numbers
            for (version, shift), numbers in self._networks.items()
            if version == address.version
        )

    @property
    def has_networks(self) -> bool:
        return any("/" in text for text in self._texts if _network(text) is not None)

    def values(self) -> list[str]:
        """Those that are in it now, in order."""
        return sorted(self._texts)


class Lists:
    """The lists of a folder, as its files are now. Safe to use from several threads."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.problems: list[str] = []
        """What is wrong with files, as they are now."""
        self._lock = threading.Lock()
        self._known: dict[str, tuple[object, ValueList]] = {}
        self._looked_s = -_LOOK_EVERY_S

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
        with self._lock:
            self._looked_s = time.monotonic()
            self._read()

    def reload(self) -> None:
        """See at once what has changed."""
        if self.folder is not None:
            with self._lock:
                self._looked_s = time.monotonic()
                self._read()

    def _read(self) -> None:
        assert self.folder is not None, "it was asked before"
        known: dict[str, tuple[object, ValueList]] = {}
        problems: list[str] = []
        time_us = now_us()
        for path in sorted((*self.folder.glob("*.csv"), *self.folder.glob("*.txt"))):
            before = self._known.get(path.stem)
            try:
                version = _version(path)
                if path.stem in known:
                    raise _bad(path, 0, f"there is another file of the list {path.stem}")
                if before is not None and before[0] == (path, version):
                    made = before[1]
                    if made.next_end_us is not None and made.next_end_us <= time_us:
                        made = ValueList.of(made.name, made.entries, time_us)
                else:
                    made = ValueList.of(path.stem, read_entries(path), time_us)
                known[path.stem] = (path, version), made
            except LogweirError as error:
                problems.append(str(error))
                if before is not None and path.stem not in known:
                    known[path.stem] = before
        if problems != self.problems:
            for problem in problems:
                log.error("%s", problem)
        self._known, self.problems = known, problems


def read_entries(path: Path) -> list[Entry]:
    """What a file says. Raises LogweirError(LIST_BAD) with the line."""
    if not NAME.fullmatch(path.stem):
        raise _bad(path, 0, "a list's name is of a to z, digits and _, beginning with a letter, 64 at most")
    try:
        if path.stat().st_size > SIZE_BYTES_MAX:
            raise _bad(path, 0, f"it has more than {SIZE_BYTES_MAX} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path, 0, str(error)) from error
    entries = list(_of_csv(path, text) if path.suffix == ".csv" else _of_text(text))
    if len(entries) > ENTRIES_MAX:
        raise _bad(path, ENTRIES_MAX, f"there are more than {ENTRIES_MAX:,} entries")
    return entries


def _version(path: Path) -> tuple[int, int, int]:
    """Another one when the file was written again. Raises LogweirError(LIST_BAD) where it is gone."""
    try:
        found = path.stat()
    except OSError as error:
        raise _bad(path, 0, str(error)) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _of_text(text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), start=1):
        value = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if value:
            yield Entry(value, None, number)


def _of_csv(path: Path, text: str) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(text), strict=True)
    try:
        if "value" not in (rows.fieldnames or ()):
            raise _bad(path, 1, "its header has no column value")
        for row in rows:
            value = (row["value"] or "").strip()
            if value:
                yield Entry(value, _end_of(path, rows.line_num, (row.get("expires") or "").strip()), rows.line_num)
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


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network, or the one address, that a value is; None for any other."""
    if len(text) > _ADDRESS_LENGTH_MAX + 4 or not re.fullmatch(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?", text):
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


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

    Raises LogweirError: LIST_UNKNOWN, LIST_UNFIT where there are too many values, or networks among them.
    """
    if isinstance(node, And | Or):
        return type(node)(tuple(expanded(one) for one in node.nodes))
    if isinstance(node, Not):
        return Not(expanded(node.node))
    if not isinstance(node, InList):
        return node
    found = in_use().named(node.name)
    values = found.values()
    if len(values) > SEARCHED_MAX or found.has_networks:
        reason = "has networks" if found.has_networks else f"has {len(values):,} values, more than {SEARCHED_MAX}"
        raise LogweirError(LIST_UNFIT, name=node.name, reason=reason)
    is_detail = node.field.startswith("details")
    terms = tuple(Term(node.field, value if is_detail else lower(value)) for value in values)
    return Or(terms) if terms else Not(All())


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
