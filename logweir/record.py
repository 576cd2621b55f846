"""What one queue record is, in bytes: version 1. Encode and decode stand side by side.

A record is a fixed header (big-endian) and a body:

    offset  size  what
    0       3     magic: b"LWR"
    3       1     version: 1
    4       1     kind: 1 data, 2 marker, 3 void, 4 refused, 5 canary, 6 gone
    5       1     codec of the body: 0 none, 1 zstd
    6       16    ingest epoch
    22      8     first: the number, in (ingest epoch, partition), of the record's first event, from 1
    30      4     count: how many numbers the record covers
    34      4     window: minutes since 1970-01-01 UTC
    38      4     size of the body when decompressed, in bytes
    42      4     CRC-32 of header bytes 0-41 and of the body as stored
    46      …     body: MessagePack, the fields of the structs below as arrays, in their order

Header and numbers can be read without touching the body. A record never spans two windows.
"""

from __future__ import annotations

import struct
import threading
import zlib
from dataclasses import dataclass
from enum import IntEnum

import msgspec
import zstandard

from logweir.errors import RECORD_CORRUPT, RECORD_VERSION_UNKNOWN, LogweirError

VERSION = 1
BODY_SIZE_BYTES_MAX = 256 * 1024 * 1024
"""No record of ours decompresses to more: a header that says otherwise is damaged or hostile."""
RAW_SIZE_BYTES_MAX = 4 * 1024 * 1024
"""A door puts no more into one record, however well it compresses; only a single larger event may exceed it."""
EVENTS_MAX = 10_000
"""A door puts no more events into one record; a batch without events counts as one."""
NUMBER_MAX = 2**53 - 1
"""The highest number that an emitter may give or name, and the most that it may say to have dropped for one reason:
whatever reads it, as JSON, as a double or as a signed integer of 64 bits, reads it exactly."""
REASONS_MAX = 64
"""The most reasons for what it dropped that an emitter may name at once, and that are told apart of one of its runs."""

OTHERS = " (others)"
"""In a marker, the emitters of a key that have no row of their own, together. It begins with a space: no header's value
does, so no emitter is called so."""

_MAGIC = b"LWR"
_HEADER = struct.Struct(">3sBBB16sQIIII")
HEADER_SIZE_BYTES = _HEADER.size
_CODEC_NONE = 0
_CODEC_ZSTD = 1
_COMPRESS_FROM_BYTES = 128


class Kind(IntEnum):
    """What a record carries."""

    DATA = 1
    MARKER = 2
    VOID = 3
    REFUSED = 4
    CANARY = 5
    GONE = 6


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """The events of one accepted request, or a run of them when the request did not fit into one record.

    ``index_first`` is the index in the request of ``events[0]``. ``sequence_first`` is the emitter's own number of
    ``events[0]``; ``high`` the highest it had created; ``previous`` its last epoch and that epoch's last number;
    ``dropped`` its cumulative counts by reason. All of these are None when the emitter does not number its events.
    """

    id: bytes
    received_us: int
    key: str
    emitter: str | None
    epoch: str | None
    sequence_first: int | None
    high: int | None
    previous: tuple[str, int] | None
    dropped: dict[str, int] | None
    bye: bool
    source_address: str
    format: str
    stamp: dict[str, str] | None
    index_first: int
    events: list[bytes]

    @property
    def has_numbers_in_bounds(self) -> bool:
        """Whether all numbers that its sender names are within NUMBER_MAX, as doors of today have it."""
        return (
            (self.sequence_first is None or 1 <= self.sequence_first <= NUMBER_MAX + 1 - len(self.events))
            and (self.high is None or 0 <= self.high <= NUMBER_MAX)
            and (self.previous is None or 0 <= self.previous[1] <= NUMBER_MAX)
            and (self.dropped is None or all(0 <= count <= NUMBER_MAX for count in self.dropped.values()))
        )


class Accepted(msgspec.Struct, array_like=True, frozen=True):
    """What a door says of one emitter in one window: answered 2xx, and queued although the sender was refused.

    ``emitter`` may be OTHERS, for what is of those without a row.
    """

    key: str
    emitter: str | None
    accepted: int
    unconfirmed: int


class Marker(msgspec.Struct, array_like=True, frozen=True):
    """The end of a window on one partition; the header's ``first`` and ``count`` are all numbers given out in it.

    ``voids`` are ranges (first, last) that were numbered and refused to the sender because the queue reported their
    record as failed. Should such a record be in the queue after all, its events are unconfirmed, not accepted. The
    counts of ``accepted`` and the lengths of ``voids`` add up to the header's ``count``. A marker may come twice.
    """

    accepted: list[Accepted]
    voids: list[tuple[int, int]]


class Void(msgspec.Struct, array_like=True, frozen=True):
    """Ranges (first, last) declared void after their window's marker was written."""

    voids: list[tuple[int, int]]


class Refused(msgspec.Struct, array_like=True, frozen=True):
    """An authenticated body that could not be read; ``body`` holds at most the first bytes of ``size_bytes``."""

    id: bytes
    received_us: int
    key: str
    emitter: str | None
    source_address: str
    format: str
    code: str
    detail: str
    size_bytes: int
    body: bytes


class Gone(msgspec.Struct, array_like=True, frozen=True):
    """Another ingest process's word that this record's is gone, and that nothing of it waits in a spool.

    So all that it has ever sent to the partition stands before this record, or was on its way when it died. ``by``: the
    ingest epoch of who says it.
    """

    by: bytes
    said_us: int


Body = list[Batch] | Marker | Void | Refused | Gone


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded record. ``body`` is a list of batches for data and canary records, else the kind's own struct.

    A canary is one batch without events, ``high`` of which is its number in the ingest epoch. It covers no numbers. The
    epoch of a gone record is that of the process that is gone.
    """

    kind: Kind
    ingest_epoch: bytes
    first: int
    count: int
    window: int
    body: Body

    @property
    def batches(self) -> list[Batch]:
        """The batches of a data record; none for the other kinds."""
        return self.body if isinstance(self.body, list) and self.kind == Kind.DATA else []

    @property
    def canary(self) -> Batch | None:
        """The batch of a canary record, None for the other kinds."""
        return self.body[0] if isinstance(self.body, list) and self.kind == Kind.CANARY else None

    @property
    def is_numbered(self) -> bool:
        """Whether it has numbers, or says what became of some: those are the records that windows are made of."""
        return self.kind in (Kind.DATA, Kind.MARKER, Kind.VOID)

    @property
    def last(self) -> int:
        return self.first + self.count - 1


@dataclass(frozen=True, slots=True)
class Header:
    """What a record says of itself before its body is unpacked: not checked yet, so only good for passing it over."""

    ingest_epoch: bytes
    first: int
    count: int
    window: int


_BODY_TYPE = {
    Kind.DATA: list[Batch],
    Kind.MARKER: Marker,
    Kind.VOID: Void,
    Kind.REFUSED: Refused,
    Kind.CANARY: list[Batch],
    Kind.GONE: Gone,
}
_encoder = msgspec.msgpack.Encoder()
_decoder: dict[Kind, msgspec.msgpack.Decoder[Body]] = {
    kind: msgspec.msgpack.Decoder(body_type) for kind, body_type in _BODY_TYPE.items()
}


class _Zstd(threading.local):
    """zstandard's (de)compressors may not be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def encode(
    kind: Kind, *, ingest_epoch: bytes, first: int, count: int, window: int, body: Body, compress: bool = True
) -> bytes:
    """The bytes of a record."""
    plain = _encoder.encode(body)
    codec, stored = _CODEC_NONE, plain
    if compress and len(plain) >= _COMPRESS_FROM_BYTES:
        squeezed = _zstd.compressor.compress(plain)
        if len(squeezed) < len(plain):
            codec, stored = _CODEC_ZSTD, squeezed
    fields = (_MAGIC, VERSION, kind, codec, ingest_epoch, first, count, window, len(plain))
    head = _HEADER.pack(*fields, 0)[:-4]
    return head + zlib.crc32(stored, zlib.crc32(head)).to_bytes(4, "big") + stored


def decode(data: bytes) -> Record:
    """The record in ``data``.

    Raises LogweirError: RECORD_VERSION_UNKNOWN for a version later than ours (stop: skipping it would lose it),
    RECORD_CORRUPT for anything else that is not a whole record of ours.
    """
    if len(data) >= 4 and data[:3] == _MAGIC and data[3] != VERSION:
        raise LogweirError(RECORD_VERSION_UNKNOWN, version=data[3], version_max=VERSION)
    if len(data) < _HEADER.size or data[:3] != _MAGIC:
        raise LogweirError(RECORD_CORRUPT, reason=f"its {len(data)} bytes do not begin with a record's header")
    _, _, kind, codec, ingest_epoch, first, count, window, size_bytes, crc = _HEADER.unpack_from(data)
    stored = data[_HEADER.size :]
    if zlib.crc32(stored, zlib.crc32(data[: _HEADER.size - 4])) != crc:
        raise LogweirError(RECORD_CORRUPT, reason="its checksum does not match")
    try:
        plain = _decompressed(stored, codec, size_bytes)
        body = _decoder[Kind(kind)].decode(plain)
    except (ValueError, zstandard.ZstdError, msgspec.DecodeError) as error:
        raise LogweirError(RECORD_CORRUPT, reason=str(error)) from error
    record = Record(Kind(kind), ingest_epoch, first, count, window, body)
    if isinstance(body, list) and sum(len(batch.events) for batch in body) != count:
        raise LogweirError(RECORD_CORRUPT, reason=f"its header counts {count} events, its batches hold others")
    return record


def header_of(data: bytes) -> Header | None:
    """The header of a record of our version, or of its first HEADER_SIZE_BYTES; None for anything else."""
    if len(data) < _HEADER.size or data[:3] != _MAGIC or data[3] != VERSION:
        return None
    _, _, _, _, ingest_epoch, first, count, window, _, _ = _HEADER.unpack_from(data)
    return Header(ingest_epoch, first, count, window)


def _decompressed(stored: bytes, codec: int, size_bytes: int) -> bytes:
    if size_bytes > BODY_SIZE_BYTES_MAX:
        raise ValueError(f"its body claims {size_bytes} bytes")
    if codec == _CODEC_NONE:
        plain = stored
    elif codec == _CODEC_ZSTD:
        plain = _zstd.decompressor.decompress(stored, max_output_size=size_bytes)
    else:
        raise ValueError(f"its codec {codec} is not known")
    if len(plain) != size_bytes:
        raise ValueError(f"its body has {len(plain)} bytes instead of {size_bytes}")
    return plain
