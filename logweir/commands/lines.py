"""The lines of a file or a pipe, plain or gzip, as they come: who reads them can do something else in between."""

from __future__ import annotations

import os
import select
import stat
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from logweir.errors import FILE_CUT, FILE_DAMAGED, FILE_UNREADABLE, LogweirError

LINE_SIZE_BYTES_MAX = 16 * 1024 * 1024
"""Of a longer line, only its number is given: no door takes it, and it must fit into memory."""
_READ_SIZE_BYTES = 64 * 1024
_PIECE_SIZE_BYTES_MAX = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not empty."""

    number: int
    """From 1, empty lines counted."""
    text: bytes
    """Without its end; empty when it is too long."""
    size_bytes: int
    """How long it is."""


class Lines:
    """The input that ``name`` names, - for standard input. Raises LogweirError(FILE_UNREADABLE).

    ``is_file``: it can be read again from where somebody has stopped. ``size_bytes``: how large it is, None where that
    is unknown. ``read_bytes``: how much of it was read. ``number``: of the last line that was given or passed over.
    ``is_waiting``: the last ``read`` found nothing.
    """

    def __init__(self, name: str, *, from_line: int = 1) -> None:
        self.name = name
        self.read_bytes = 0
        self.number = 0
        self.is_waiting = False
        self._from_line = from_line
        try:
            self._descriptor = sys.stdin.fileno() if name == "-" else os.open(Path(name), os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise LogweirError(FILE_UNREADABLE, path=name, reason=error) from error
        self.is_file = stat.S_ISREG(status.st_mode)
        self.size_bytes = status.st_size if self.is_file else None
        self._wake = os.pipe()
        self._packed = b""
        self._gzip: zlib._Decompress | None = None
        self._is_begun = self._is_ended = False
        self._rest = bytearray()
        self._searched = self._left_out_bytes = 0

    def close(self) -> None:
        for descriptor in (*self._wake, *([] if self.name == "-" else [self._descriptor])):
            os.close(descriptor)

    @property
    def unfinished_bytes(self) -> int:
        """How much is there of a line whose end has not come yet."""
        return len(self._rest) + self._left_out_bytes

    def wake(self) -> None:
        """Have ``read`` return now. For signal handlers."""
        os.write(self._wake[1], b"x")

    def read(self, *, wait_s: float | None) -> list[Line] | None:
        """Lines as soon as some are there, an empty list after ``wait_s`` seconds (None: no limit), None at the end.

        Raises LogweirError: FILE_UNREADABLE; FILE_CUT and FILE_DAMAGED for gzip, behind all lines before the fault.
        """
        if self._is_ended:
            return None
        if not self._packed:
            ready = select.select([self._descriptor, self._wake[0]], [], [], wait_s)[0]
            self.is_waiting = self._descriptor not in ready
            if self.is_waiting:
                if ready:
                    os.read(self._wake[0], 1024)
                return []
        piece = self._piece()
        if piece is None:
            self._is_ended = True
            # The last line need not have an end.
            return self._split(b"\n") if self.unfinished_bytes else None
        return self._split(piece)

    def _piece(self) -> bytes | None:
        """What comes next, unpacked; None at the end."""
        if not self._packed:
            try:
                read = os.read(self._descriptor, _READ_SIZE_BYTES)
            except OSError as error:
                raise LogweirError(FILE_UNREADABLE, path=self.name, reason=error) from error
            self.read_bytes += len(read)
            if not self._is_begun:
                self._rest += read
                if read and len(self._rest) < len(_BYTE_ORDER_MARK):
                    return b""  # A pipe may bring the first byte alone.
                self._is_begun = True
                begins, self._rest = bytes(self._rest), bytearray()
                self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if begins.startswith(_GZIP_MAGIC) else None
                read = begins if self._gzip else begins.removeprefix(_BYTE_ORDER_MARK)
                if not read and begins:
                    return b""
            if self._gzip is None:
                return read or None
            if not read:
                if not self._gzip.eof:
                    raise LogweirError(FILE_CUT, path=self.name, line=self.number)
                return None
            self._packed = read
        return self._unpacked(self._gzip or zlib.decompressobj(16 + zlib.MAX_WBITS))

    def _unpacked(self, unpack: zlib._Decompress) -> bytes:
        if unpack.eof:
            # RFC 1952 section 2.2: a gzip file is a series of members; some writers pad the last one with zeros.
            self._packed = self._packed.lstrip(b"\0")
            if not self._packed:
                return b""
            self._gzip = unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            piece = unpack.decompress(self._packed, _PIECE_SIZE_BYTES_MAX)
        except zlib.error as error:
            raise LogweirError(FILE_DAMAGED, path=self.name, line=self.number) from error
        self._packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
        return piece

    def _split(self, piece: bytes) -> list[Line]:
        """The lines that end in the piece."""
        self._rest += piece
        lines: list[Line] = []
        begin = 0
        while (end := self._rest.find(b"\n", max(begin, self._searched))) >= 0:
            self.number += 1
            text = bytes(self._rest[begin:end]).rstrip(b"\r")
            size_bytes = len(text) + self._left_out_bytes
            begin, self._searched, self._left_out_bytes = end + 1, 0, 0
            if self.number >= self._from_line and (size_bytes > LINE_SIZE_BYTES_MAX or text.strip()):
                lines.append(Line(self.number, b"" if size_bytes > LINE_SIZE_BYTES_MAX else text, size_bytes))
        del self._rest[:begin]
        if len(self._rest) > LINE_SIZE_BYTES_MAX:
            self._left_out_bytes += len(self._rest)
            self._rest.clear()
        self._searched = len(self._rest)
        return lines
