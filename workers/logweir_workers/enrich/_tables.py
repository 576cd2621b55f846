"""Tables from files of the operator's, read again when they change; a bad one leaves its last good content in force."""

from __future__ import annotations

import csv
import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from logweir.errors import SETTING_BAD, LogweirError
from logweir.process.files import fingerprint_of

log = logging.getLogger(__name__)

SIZE_BYTES_MAX = 64 * 1024 * 1024
"""Largest file of a table."""

ROWS_MAX = 200_000
"""Most rows of a table."""

CELL_LENGTH_MAX = 1000
"""Longest value in a table, in characters."""

_Content = TypeVar("_Content")


class Table(Generic[_Content]):
    """What ``read`` makes of a file, as it is now or as it was when it could last be read."""

    def __init__(self, setting: str, path: Path, read: Callable[[Path], _Content]) -> None:
        """Raises LogweirError(SETTING_BAD) when the file cannot be read or understood."""
        self._setting = setting
        self._path = path
        self._read = read
        # Looked at first: a change in between is read again, rather than missed.
        self._version = fingerprint_of(path)
        self.content = self._content()

    def reload(self) -> bool:
        """Read the file again if it has changed; gives whether there is another content now."""
        if (version := fingerprint_of(self._path)) == self._version:
            return False
        self._version = version
        try:
            self.content = self._content()
        except LogweirError as error:
            log.error("%s Until then, the table stays as it was.", error)
            return False
        log.info("%s is read again from %s.", self._setting, self._path)
        return True

    def _content(self) -> _Content:
        try:
            return self._read(self._path)
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError as error:
            reason = str(error)
        raise LogweirError(
            SETTING_BAD, where="The configuration", name=self._setting, value=str(self._path), reason=reason
        )


def rows_of(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file with their line numbers, without blank ones and comments. Raises ValueError, OSError."""
    if path.stat().st_size > SIZE_BYTES_MAX:
        raise ValueError(f"it is larger than {SIZE_BYTES_MAX} bytes")
    rows: list[tuple[int, list[str]]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells) and not cells[0].startswith("#"):
                    rows.append((reader.line_num, cells))
                if len(rows) > ROWS_MAX:
                    raise ValueError(f"it has more than {ROWS_MAX} rows")
                if any(len(cell) > CELL_LENGTH_MAX for cell in cells):
                    raise ValueError(f"line {reader.line_num} has a value of more than {CELL_LENGTH_MAX} characters")
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise ValueError("it is not UTF-8") from error
    return rows


class Networks:
    """Values by network; of several networks that hold an address, the smallest counts."""

    def __init__(self) -> None:
        self._by_length: dict[tuple[int, int], dict[int, str]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}

    def add(self, network: str, value: str) -> None:
        """Raises ValueError when ``network`` is none, such as ``10.1.0.0/16``, ``2001:db8::/32`` or one address."""
        parsed = ipaddress.ip_network(network)
        lengths = self._lengths[parsed.version]
        if parsed.prefixlen not in lengths:
            lengths.append(parsed.prefixlen)
            lengths.sort(reverse=True)
        place = self._by_length.setdefault((parsed.version, parsed.prefixlen), {})
        place[int(parsed.network_address)] = value

    def find(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
        """The value of the smallest network that holds ``address``."""
        number, bits = int(address), address.max_prefixlen
        for length in self._lengths[address.version]:
            network = number >> (bits - length) << (bits - length)
            if (value := self._by_length[address.version, length].get(network)) is not None:
                return value
        return None
