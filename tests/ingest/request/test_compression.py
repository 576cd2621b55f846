"""Decompression: what each encoding may look like, and that nothing costs more than the limit."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logweir.config import MEBIBYTE
from logweir.errors import CONTENT_ENCODING_UNKNOWN, DECOMPRESSED_TOO_LARGE, ENCODING_BAD, LogweirError
from logweir_ingest.request.compression import ENCODINGS, encoding_of, plain
from logweir_ingest.request.limits import Limits

LIMITS = Limits(10 * MEBIBYTE, 32 * MEBIBYTE, 200, 256 * 1024, 10_000, 32, 0)


def deflate_raw(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def zstd_streamed(body: bytes) -> bytes:
    """Without its size in the header, as a sender writes that does not know it."""
    compressor = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compressobj()
    return compressor.compress(body) + compressor.flush()


def zstd_long(body: bytes, window_log: int = 23) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(body) + compressor.flush()


WRITERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without zlib's header": ("deflate", deflate_raw),
    "deflate, stored": ("deflate", lambda body: zlib.compress(body, 0)),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd, size unknown": ("zstd", zstd_streamed),
    "zstd, largest window": ("zstd", zstd_long),
}


@pytest.mark.parametrize("writer", WRITERS)
@settings(max_examples=25, deadline=None)
@given(body=st.binary(max_size=2000), times=st.sampled_from([1, 3, 2000]))
@example(body=b"", times=1)
def test_what_was_compressed_comes_out_again(writer: str, body: bytes, times: int) -> None:
    """Each way that senders write an encoding, small bodies and large ones."""
    encoding, write = WRITERS[writer]
    whole = (body * times)[:MEBIBYTE]

    assert plain(write(whole), encoding, LIMITS) == whole


@pytest.mark.parametrize("writer", WRITERS)
def test_every_cut_of_a_body_is_refused(writer: str) -> None:
    """What ends too early never passes for the whole, wherever it ends."""
    encoding, write = WRITERS[writer]
    body = write(b'{"a":"some text"}\n' * 20)
    for end in range(len(body)):
        with pytest.raises(LogweirError) as caught:
            plain(body[:end], encoding, LIMITS)
        assert caught.value.problem is ENCODING_BAD


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(body=st.binary(max_size=300), position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_damage_is_refused_or_harmless(encoding: str, body: bytes, position: int, byte: int) -> None:
    """Any byte changed: a body or a refusal, never anything else."""
    _, write = next(writer for writer in WRITERS.values() if writer[0] == encoding)
    compressed = bytearray(write(body))
    compressed[position % len(compressed)] = byte
    try:
        plain(bytes(compressed), encoding, LIMITS)
    except LogweirError as error:
        assert error.problem in (ENCODING_BAD, DECOMPRESSED_TOO_LARGE)


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("gzip", gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b") + b"\0" * 9, b"ab"),
        ("zstd", zstandard.compress(b"a") + zstd_streamed(b"b") + zstandard.compress(b""), b"ab"),
        # RFC 8878 section 3.1.2: skippable frames, in front, between and behind.
        ("zstd", b"\x5a\x2a\x4d\x18\x03\0\0\0abc".join([b"", zstandard.compress(b"a"), b""]), b"a"),
    ],
    ids=["gzip", "zstd", "skippable"],
)
def test_several_parts_are_one_body(encoding: str, body: bytes, expected: bytes) -> None:
    """gzip's members and zstd's frames one after another."""
    assert plain(body, encoding, LIMITS) == expected


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("gzip", gzip.compress(b"a", mtime=0) + b"rest", "incorrect header check"),
        ("gzip", gzip.compress(b"a", mtime=0) + b"\0rest", "incorrect header check"),
        ("gzip", zlib.compress(b"a"), "incorrect header check"),
        ("deflate", zlib.compress(b"a") + b"\0", "something follows its end"),
        ("deflate", zlib.compress(b"a")[:-1] + b"x", "incorrect data check"),
        ("zstd", zstandard.compress(b"a") + b"rest", "Unknown frame descriptor"),
        ("zstd", zstd_long(b"a" * 100, window_log=24), "Frame requires too much memory for decoding"),
        ("zstd", b"", "it ends too early"),
        ("gzip", gzip.compress(b"") * 10_001, "it has more than 10000 parts"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(encoding: str, body: bytes, reason: str) -> None:
    """Damage, something behind the end, a window that RFC 9659 does not allow, more parts than events are."""
    with pytest.raises(LogweirError) as caught:
        plain(body, encoding, LIMITS)

    assert (caught.value.problem, caught.value.numbers["reason"]) == (ENCODING_BAD, reason)


# --- bombs --------------------------------------------------------------------------------------------------------
def zstd_block_bomb(size_bytes: int) -> bytes:
    """One frame of blocks that each stand for 128 KiB of one byte, four bytes a block."""
    frame = b"\x28\xb5\x2f\xfd\x00" + b"\x58"  # RFC 8878 section 3.1.1.1: no size, a window of 2 MiB
    return frame + (((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b" ") * (size_bytes // 4)


def deflate_bomb(size_bytes: int, begin: bytes, window_bits: int) -> bytes:
    """The same flushed piece again and again: a whole 10 MiB of it takes no time to make."""
    compressor = zlib.compressobj(9, wbits=window_bits)
    piece = compressor.compress(b" " * MEBIBYTE) + compressor.flush(zlib.Z_FULL_FLUSH)
    return begin + piece[len(begin) :] + piece[len(begin) :] * (size_bytes // len(piece))


BOMBS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "gzip": ("gzip", lambda size: deflate_bomb(size, gzip.compress(b"")[:10], 16 + zlib.MAX_WBITS)),
    "deflate": ("deflate", lambda size: deflate_bomb(size, b"", -zlib.MAX_WBITS)),
    "zstd in one frame": ("zstd", zstd_block_bomb),
    "zstd in many": ("zstd", lambda size: zstandard.compress(b" " * MEBIBYTE) * (size // 60)),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("size", [3000, 10 * MEBIBYTE])
def test_a_bomb_costs_no_more_than_the_limit(bomb: str, size: int) -> None:
    """It is refused as soon as the limit is reached, whatever else it holds."""
    encoding, make = BOMBS[bomb]
    body = make(size)
    size_bytes_max = MEBIBYTE if size == 3000 else LIMITS.decompressed_size_bytes_max
    tracemalloc.start()
    started_s = time.process_time()
    with pytest.raises(LogweirError) as caught:
        plain(body, encoding, LIMITS)
    took_s, peak = time.process_time() - started_s, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert caught.value.problem is DECOMPRESSED_TOO_LARGE
    assert caught.value.numbers["size_bytes_max"] == size_bytes_max
    assert peak < 1.2 * size_bytes_max + 9 * MEBIBYTE
    assert took_s < 1


@pytest.mark.parametrize(
    ("encoding", "part"),
    [("gzip", gzip.compress(b"")), ("zstd", zstandard.compress(b"")), ("zstd", b"\x50\x2a\x4d\x18\0\0\0\0")],
    ids=["members", "frames", "skippable"],
)
def test_ten_mebibytes_of_nothing_take_no_time(encoding: str, part: bytes) -> None:
    """Half a million empty parts: refused after as many as there may be events."""
    started_s = time.process_time()
    with pytest.raises(LogweirError) as caught:
        plain(part * (10 * MEBIBYTE // len(part)), encoding, LIMITS)

    assert caught.value.problem is ENCODING_BAD
    assert time.process_time() - started_s < 2


def test_empty_blocks_take_no_time() -> None:
    """Ten mebibytes of zstd blocks that stand for nothing, behind as much as is allowed."""
    frame = b"\x28\xb5\x2f\xfd\x00" + b"\x58"
    body = frame + zstd_block_bomb(4 * 255)[6:] + b"\0\0\0" * (3 * MEBIBYTE)
    started_s = time.process_time()
    with pytest.raises(LogweirError) as caught:
        plain(body, "zstd", LIMITS)

    assert caught.value.numbers["reason"] == "it ends too early"
    assert time.process_time() - started_s < 2


# --- what Content-Encoding says -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (b"", ""),
        (b"identity", ""),
        (b"gzip", "gzip"),
        (b"GZip ", "gzip"),
        (b"x-gzip", "gzip"),
        (b"Deflate", "deflate"),
        (b"zstd", "zstd"),
        (b"identity, zstd", "zstd"),
        (b" gzip ,", "gzip"),
        (b",", ""),
    ],
)
def test_the_encoding_is_read_as_senders_write_it(header: bytes, encoding: str) -> None:
    """Without regard to case, with what stands for nothing left out."""
    assert encoding_of(header) == encoding


@pytest.mark.parametrize("header", [b"br", b"gzip, gzip", b"gzip,deflate", b"\xff", b"compress", b"gzip;q=1"])
def test_other_encodings_are_refused(header: bytes) -> None:
    """Also what was compressed twice: no sender of logs does, and each layer would cost its own limit."""
    with pytest.raises(LogweirError) as caught:
        encoding_of(header)

    assert caught.value.problem is CONTENT_ENCODING_UNKNOWN
    assert caught.value.numbers["understood"] == "gzip, deflate, zstd"
