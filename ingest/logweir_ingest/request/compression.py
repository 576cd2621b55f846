"""Bodies without their Content-Encoding: decompression that stops at the limits, however little was sent."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from logweir.config import MEBIBYTE
from logweir.errors import CONTENT_ENCODING_UNKNOWN, DECOMPRESSED_TOO_LARGE, ENCODING_BAD, LogweirError
from logweir_ingest.request.limits import Limits

RATIO_FROM_BYTES = MEBIBYTE
"""The ratio counts above this size only: a small batch of equal events compresses a thousandfold, and costs nothing."""

ENCODINGS = ("gzip", "deflate", "zstd")
_ALIASES = {"x-gzip": "gzip"}
# RFC 9659 section 3: what a decoder of Content-Encoding: zstd must take, and an encoder may ask for.
_ZSTD_WINDOW_SIZE_BYTES_MAX = 8 * MEBIBYTE
# All that is fed to zstd comes out at once. RFC 8878 section 3.1.1.2: four bytes may stand for a block of 128 KiB, and
# none for more, so that this may become 4 MiB.
_ZSTD_INPUT_SIZE_BYTES = 128
_ZLIB_INPUT_SIZE_BYTES = 64 * 1024


def encoding_of(header: bytes) -> str:
    """What Content-Encoding says the body is compressed with: one of ENCODINGS, or nothing.

    Raises LogweirError(CONTENT_ENCODING_UNKNOWN), also for a body that was compressed several times.
    """
    names = [name.strip().lower() for name in header.decode("latin-1").split(",")]
    names = [_ALIASES.get(name, name) for name in names if name not in ("", "identity")]
    if not names:
        return ""
    if len(names) > 1 or names[0] not in ENCODINGS:
        encoding = header.decode("latin-1")[:100]
        raise LogweirError(CONTENT_ENCODING_UNKNOWN, encoding=encoding, understood=", ".join(ENCODINGS))
    return names[0]


def plain(body: bytes, encoding: str, limits: Limits) -> bytes:
    """The body without its Content-Encoding, which is what ``encoding_of`` gave.

    Raises LogweirError: ENCODING_BAD, or DECOMPRESSED_TOO_LARGE soon after one byte too many has come out.
    """
    if not encoding:
        return body
    by_ratio = max(RATIO_FROM_BYTES, len(body) * limits.decompression_ratio_max)
    size_bytes_max = left = min(limits.decompressed_size_bytes_max, by_ratio)
    # Its content is taken out again without a copy.
    plain_body = io.BytesIO()
    rest = memoryview(body)
    for _ in range(limits.events_per_request_max):
        part = _PARTS[encoding](rest)
        while not part.eof:
            was_all_read = not rest
            try:
                piece, rest = part.next(rest, left + 1)
            except (zlib.error, zstandard.ZstdError) as error:
                raise _bad(encoding, str(error).rpartition(": ")[2]) from error
            if not piece and was_all_read:
                raise _bad(encoding, "it ends too early")
            plain_body.write(piece)
            left -= len(piece)
            if left < 0:
                raise LogweirError(DECOMPRESSED_TOO_LARGE, size_bytes_max=size_bytes_max)
        if part.is_all(rest):
            return plain_body.getvalue()
    raise _bad(encoding, f"it has more than {limits.events_per_request_max} parts")


def _bad(encoding: str, reason: str) -> LogweirError:
    return LogweirError(ENCODING_BAD, encoding=encoding, reason=reason)


class _Part(Protocol):
    """One gzip member, zstd frame, or deflate stream. Little is fed to it at a time: it copies what it leaves."""

    @property
    def eof(self) -> bool: ...
    def next(self, rest: memoryview, size_bytes_max: int, /) -> tuple[bytes, memoryview]:
        """At most ``size_bytes_max`` bytes, or a few MiB, of what is in ``rest``; and what of that was not read."""

    def is_all(self, rest: memoryview) -> bool:
        """Whether no part follows; ``rest`` is what stands behind this one."""


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._zlib = zlib.decompressobj(window_bits)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    def next(self, rest: memoryview, size_bytes_max: int) -> tuple[bytes, memoryview]:
        given = rest[:_ZLIB_INPUT_SIZE_BYTES]
        piece = self._zlib.decompress(given, min(size_bytes_max, MEBIBYTE))
        unread = len(self._zlib.unconsumed_tail) + len(self._zlib.unused_data)
        return piece, rest[len(given) - unread :]


class _Gzip(_Zlib):
    """RFC 1952 section 2.2: a gzip file is a series of members. Some writers pad the last one with zeros."""

    def __init__(self, _: memoryview) -> None:
        super().__init__(16 + zlib.MAX_WBITS)

    def is_all(self, rest: memoryview) -> bool:
        return not rest or (rest[0] == 0 and not bytes(rest).strip(b"\0"))


class _Deflate(_Zlib):
    """RFC 9110 section 8.4.1.2: with zlib's header, which some senders leave out."""

    def __init__(self, rest: memoryview) -> None:
        # RFC 1950 section 2.2: method 8, and a multiple of 31. Plain deflate never begins so but for padding bits.
        has_header = len(rest) > 1 and rest[0] & 15 == 8 and (rest[0] << 8 | rest[1]) % 31 == 0
        super().__init__(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)

    def is_all(self, rest: memoryview) -> bool:
        if rest:
            raise _bad("deflate", "something follows its end")
        return True


class _Zstd:
    def __init__(self, _: memoryview) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_SIZE_BYTES_MAX).decompressobj()

    @property
    def eof(self) -> bool:
        return self._zstd.eof

    def next(self, rest: memoryview, _: int) -> tuple[bytes, memoryview]:
        given = rest[:_ZSTD_INPUT_SIZE_BYTES]
        piece = self._zstd.decompress(given)
        return piece, rest[len(given) - len(self._zstd.unused_data) :]

    def is_all(self, rest: memoryview) -> bool:
        return not rest


_PARTS: dict[str, Callable[[memoryview], _Part]] = {"gzip": _Gzip, "deflate": _Deflate, "zstd": _Zstd}
