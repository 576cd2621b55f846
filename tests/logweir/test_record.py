"""Record v1 as bytes: the golden files never change, and nothing that is damaged or newer is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir import record
from logweir.errors import RECORD_CORRUPT, RECORD_VERSION_UNKNOWN, LogweirError
from logweir.record import Accepted, Batch, Gone, Kind, Marker, Record, Refused, Void

GOLDEN = Path(__file__).parent.parent / "golden" / "record"

_EPOCH = bytes(range(16))
_NUMBERED = Batch(
    id=bytes(range(16, 32)),
    received_us=1_790_000_000_123_456,
    key="web",
    emitter="web-1",
    epoch="run-7",
    sequence_first=41,
    high=44,
    previous=("run-6", 1000),
    dropped={"queue_overflow": 12},
    bye=False,
    source_address="192.0.2.7",
    format="json",
    stamp={"site": "north"},
    index_first=0,
    events=[b'{"summary":"one"}', '{"summary":"zwölf"}'.encode()],
)
_BARE = Batch(
    id=bytes(16),
    received_us=1_790_000_000_000_000,
    key="default",
    emitter=None,
    epoch=None,
    sequence_first=None,
    high=None,
    previous=None,
    dropped=None,
    bye=False,
    source_address="2001:db8::1",
    format="json",
    stamp=None,
    index_first=3,
    events=[b'{"summary":"' + b"x" * 300 + b'"}'],
)
_HEARTBEAT = Batch(
    id=bytes(16),
    received_us=1_790_000_000_000_000,
    key="web",
    emitter=None,
    epoch="run-7",
    sequence_first=None,
    high=44,
    previous=None,
    dropped=None,
    bye=True,
    source_address="192.0.2.7",
    format="json",
    stamp=None,
    index_first=0,
    events=[],
)
_REFUSED = Refused(
    id=bytes(16),
    received_us=1_790_000_000_000_000,
    key="default",
    emitter=None,
    source_address="192.0.2.7",
    format="json",
    code="json_bad",
    detail="Event 0 is not valid JSON at byte 6 of the body.",
    size_bytes=9,
    body=b'{"a": "b"',
)


def _record(kind: Kind, first: int, count: int, body: record.Body) -> Record:
    return Record(kind, _EPOCH, first, count, 29_833_333, body)


RECORDS = {
    "data-zstd": _record(Kind.DATA, 1, 3, [_NUMBERED, _BARE]),
    "data-plain": _record(Kind.DATA, 2**40, 2, [_NUMBERED, _HEARTBEAT]),
    "marker": _record(
        Kind.MARKER, 1, 9, Marker([Accepted("web", "web-1", 5, 1), Accepted("default", None, 1, 0)], [(8, 9)])
    ),
    "void": _record(Kind.VOID, 10, 0, Void([(4, 5), (7, 7)])),
    "refused": _record(Kind.REFUSED, 10, 0, _REFUSED),
    "canary": _record(Kind.CANARY, 10, 1, [_BARE]),
    "gone": _record(Kind.GONE, 1, 0, Gone(bytes(range(16, 32)), 1_790_000_000_000_000)),
}
_PLAIN = "data-plain"


def _encoded(name: str) -> bytes:
    wanted = RECORDS[name]
    return record.encode(
        wanted.kind,
        ingest_epoch=wanted.ingest_epoch,
        first=wanted.first,
        count=wanted.count,
        window=wanted.window,
        body=wanted.body,
        compress=name != _PLAIN,
    )


@pytest.mark.parametrize("name", RECORDS)
def test_golden_records_of_every_kind_are_read(name: str) -> None:
    """What version 1 has ever written stays readable: the golden files are never made anew."""
    assert record.decode((GOLDEN / f"{name}.bin").read_bytes()) == RECORDS[name]


def test_golden_records_cover_both_codecs() -> None:
    """One file is stored plain, another compressed; otherwise the golden files would prove half."""
    codecs = {(GOLDEN / f"{name}.bin").read_bytes()[5] for name in ("data-plain", "data-zstd")}

    assert codecs == {0, 1}


def test_plain_records_are_written_as_the_golden_file_has_them() -> None:
    """Without compression (whose bytes depend on the library's version) writing is a pure function."""
    assert _encoded(_PLAIN) == (GOLDEN / f"{_PLAIN}.bin").read_bytes()


@pytest.mark.parametrize("name", RECORDS)
def test_a_flipped_bit_anywhere_is_refused(name: str) -> None:
    """Each byte of a record is under the checksum, or under the check of magic and version."""
    good = (GOLDEN / f"{name}.bin").read_bytes()
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x10

        with pytest.raises(LogweirError) as caught:
            record.decode(bytes(damaged))
        assert caught.value.problem is (RECORD_VERSION_UNKNOWN if position == 3 else RECORD_CORRUPT)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_cut_short_is_refused(name: str) -> None:
    """Half a record is never read as a whole one."""
    good = (GOLDEN / f"{name}.bin").read_bytes()
    for size in range(len(good)):
        with pytest.raises(LogweirError) as caught:
            record.decode(good[:size])
        assert caught.value.problem is RECORD_CORRUPT


def test_a_newer_version_is_refused_with_both_versions() -> None:
    """A reader that skipped a newer record would lose it; it must stop and say what to do."""
    newer = bytearray(_encoded(_PLAIN))
    newer[3] = 2

    with pytest.raises(LogweirError) as caught:
        record.decode(bytes(newer))
    assert caught.value.problem is RECORD_VERSION_UNKNOWN
    assert "version 2" in str(caught.value) and "up to 1" in str(caught.value)


def test_a_count_that_its_batches_do_not_bear_out_is_refused() -> None:
    """The header's count is what accounting reads; it must be the truth about the body."""
    lying = record.encode(Kind.DATA, ingest_epoch=_EPOCH, first=1, count=7, window=1, body=[_BARE])

    with pytest.raises(LogweirError) as caught:
        record.decode(lying)
    assert caught.value.problem is RECORD_CORRUPT


_names = st.text(max_size=20)
_number = st.integers(0, 2**63 - 1)
_batches = st.builds(
    Batch,
    id=st.binary(min_size=16, max_size=16),
    received_us=_number,
    key=_names,
    emitter=st.none() | _names,
    epoch=st.none() | _names,
    sequence_first=st.none() | _number,
    high=st.none() | _number,
    previous=st.none() | st.tuples(_names, _number),
    dropped=st.none() | st.dictionaries(_names, _number, max_size=3),
    bye=st.booleans(),
    source_address=_names,
    format=_names,
    stamp=st.none() | st.dictionaries(_names, _names, max_size=3),
    index_first=st.integers(0, 2**31),
    events=st.lists(st.binary(max_size=400), max_size=5),
)


@given(
    batches=st.lists(_batches, max_size=4),
    first=st.integers(0, 2**64 - 1),
    window=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([Kind.DATA, Kind.CANARY]),
    compress=st.booleans(),
)
def test_what_is_written_is_read_again(
    batches: list[Batch], first: int, window: int, kind: Kind, compress: bool
) -> None:
    """Any batches, whatever bytes their events are, come back unchanged through either codec."""
    count = sum(len(batch.events) for batch in batches)
    fields: dict[str, Any] = {"ingest_epoch": _EPOCH, "first": first, "count": count, "window": window}
    encoded = record.encode(kind, body=batches, compress=compress, **fields)

    assert record.decode(encoded) == Record(kind, body=batches, **fields)
