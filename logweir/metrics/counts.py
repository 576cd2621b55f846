"""What one process has counted, in a file that the other processes of its port read: prometheus-client's format.

The library maps such a file into memory. A page of it that finds no room on a full disk kills the process that touches
it (SIGBUS), and each one that is started in its place. Here the file is written, and a write can fail.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

_USED = struct.Struct("i4x")
_SIZE = struct.Struct("i")
_VALUE = struct.Struct("dd")


class CountsFile:
    """In the place of the library's ``MmapedDict``: a value and a time for each key. Not for several threads.

    What finds no room on the disk is in memory, and in the file as soon as there is room when something is counted:
    ``is_behind`` until then. What the file holds is always whole.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).exists():
            _create(Path(path))
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        (used,) = _USED.unpack(os.pread(self._descriptor, _USED.size, 0))
        self._data = bytearray(os.pread(self._descriptor, used, 0)) if used else bytearray(_USED.size)
        found = MmapedDict.read_all_values_from_file(path) if used else ()  # type: ignore[no-untyped-call]
        self._positions: dict[str, int] = {key: position for key, _, _, position in found}
        self.is_behind = False

    def read_value(self, key: str) -> tuple[float, float]:
        """Zeros for a key that is new; it is there from then on."""
        value, timestamp = _VALUE.unpack_from(self._data, self._position(key))
        return value, timestamp

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        position = self._position(key)
        _VALUE.pack_into(self._data, position, value, timestamp)
        self._write(position, position + _VALUE.size)

    def _position(self, key: str) -> int:
        if key not in self._positions:
            begin = len(self._data)
            encoded = key.encode()
            # Eight bytes are the unit of everything in the file.
            padding = b" " * (8 - (_SIZE.size + len(encoded)) % 8)
            self._data += _SIZE.pack(len(encoded)) + encoded + padding + bytes(_VALUE.size)
            self._positions[key] = len(self._data) - _VALUE.size
            self._write(begin, len(self._data))
        return self._positions[key]

    def _write(self, begin: int, end: int) -> None:
        """To the file, with whatever did not get there before; last, how much of the file is used."""
        if self.is_behind:
            begin, end = _USED.size, len(self._data)
        try:
            self._put(begin, end)
            if end == len(self._data):
                _USED.pack_into(self._data, 0, end)
                self._put(0, _USED.size)
            self.is_behind = False
        except OSError:
            self.is_behind = True

    def _put(self, begin: int, end: int) -> None:
        while begin < end:
            begin += os.pwrite(self._descriptor, self._data[begin:end], begin)

    def close(self) -> None:
        os.close(self._descriptor)


def _create(path: Path) -> None:
    """A file in which nothing is used. Readers take whatever ends with .db, and fail at one without its head."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # A hole needs no room on the disk, and reads as zeros.
        os.ftruncate(descriptor, _USED.size)
    finally:
        os.close(descriptor)
    new.replace(path)
