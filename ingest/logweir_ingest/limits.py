"""What one request may cost: its limits in one place, and decompression that stops at them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from logweir.config import MEBIBYTE, Settings
from logweir.errors import (
    BODY_TOO_LARGE,
    CONTENT_ENCODING_UNKNOWN,
    DECOMPRESSED_TOO_LARGE,
    ENCODING_BAD,
    SETTING_BAD,
    LogweirError,
)

RATIO_FROM_BYTES = MEBIBYTE
"""The ratio counts above this size only: a small batch of equal events compresses a thousandfold, and costs nothing."""

RECORD_OVERHEAD_BYTES = 8 * 1024
"""What a record may need beside its largest event: names, the Log-* headers, the record's own header."""

_GZIP = 16 + zlib.MAX_WBITS
_CHUNK_SIZE_BYTES = MEBIBYTE


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request, from the settings of the same names."""

    body_size_bytes_max: int
    decompressed_size_bytes_max: int
    decompression_ratio_max: int
    event_size_bytes_max: int
    events_per_request_max: int
    depth_max: int
    refused_size_bytes_max: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Raises LogweirError(SETTING_BAD) when an allowed event would not fit into a record."""
        ingest, record_size_bytes_max = settings.ingest, settings.queue.record_size_bytes_max
        if ingest.event_size_bytes_max + RECORD_OVERHEAD_BYTES > record_size_bytes_max:
            raise LogweirError(
                SETTING_BAD, where="The configuration", name="ingest.event_size_bytes_max",
                value=ingest.event_size_bytes_max,
                reason=f"an event and {RECORD_OVERHEAD_BYTES} bytes must fit into queue.record_size_bytes_max"
                f" ({record_size_bytes_max})",
            )  # fmt: skip
        return cls(**{name: getattr(ingest, name) for name in cls.__slots__})

    def check_announced(self, content_length: int) -> None:
        """Refuse a body by its Content-Length, before any of it is read. Raises LogweirError(BODY_TOO_LARGE)."""
        if content_length > self.body_size_bytes_max:
            raise LogweirError(BODY_TOO_LARGE, size_bytes_max=self.body_size_bytes_max)


ENCODINGS = ("gzip", "x-gzip")


def check_encoding(encoding: str) -> None:
    """Raises LogweirError(CONTENT_ENCODING_UNKNOWN) for an encoding (in lower case) that ``plain`` cannot undo."""
    if encoding and encoding != "identity" and encoding not in ENCODINGS:
        raise LogweirError(CONTENT_ENCODING_UNKNOWN, encoding=encoding[:100])


def plain(body: bytes, encoding: str, limits: Limits) -> bytes:
    """The body without its Content-Encoding.

    Raises LogweirError: ENCODING_BAD, or DECOMPRESSED_TOO_LARGE as soon as one byte too many has come out.
    """
    if encoding not in ENCODINGS:
        return body
    by_ratio = max(RATIO_FROM_BYTES, len(body) * limits.decompression_ratio_max)
    size_bytes_max = min(limits.decompressed_size_bytes_max, by_ratio)
    pieces: list[bytes] = []
    left = size_bytes_max
    rest = body
    while True:
        decompressor = zlib.decompressobj(_GZIP)
        while not decompressor.eof:
            piece = _next_piece(decompressor, rest, min(left + 1, _CHUNK_SIZE_BYTES), encoding)
            rest = decompressor.unconsumed_tail
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise LogweirError(DECOMPRESSED_TOO_LARGE, size_bytes_max=size_bytes_max)
            if not piece and not rest and not decompressor.eof:
                raise LogweirError(ENCODING_BAD, encoding=encoding, reason="it ends too early")
        # RFC 1952 section 2.2: a gzip file is a series of members. Some writers pad the last one with zeros.
        rest = decompressor.unused_data.lstrip(b"\0")
        if not rest:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _next_piece(decompressor: zlib._Decompress, rest: bytes, size_bytes_max: int, encoding: str) -> bytes:
    try:
        return decompressor.decompress(rest, size_bytes_max)
    except zlib.error as error:
        reason = str(error).rpartition(": ")[2]
        raise LogweirError(ENCODING_BAD, encoding=encoding, reason=reason) from error
