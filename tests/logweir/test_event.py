"""Identity: the same event has the same id and index for ever, two events never share one."""

from __future__ import annotations

import uuid

from logweir import event

RECEIVED_US = 1_763_856_000_123_456


def test_ids_are_fixed() -> None:
    """Golden values: documents are stored under these, so they may never change."""
    batch_id = event.batch_id_new(RECEIVED_US, bytes(range(10)))

    assert batch_id.hex() == "019aae02a47b70018203040506070809"
    assert event.identity_prefix_bare(batch_id) == "b019aae02a47b70018203040506070809."
    assert event.identity_prefix_numbered("app", "web-1", "e1") == "n80183e0d4da88db6ae52de3bcbfc66."
    assert event.day_of(RECEIVED_US) == "20251123"


def test_a_batch_id_is_a_uuid_of_its_version() -> None:
    """Version 7 sorts by time; version 8 is our own hash of the client's Idempotency-Key."""
    new = uuid.UUID(bytes=event.batch_id_new(RECEIVED_US, b"\xff" * 10))
    derived = uuid.UUID(bytes=event.batch_id_from_idempotency_key("app", "x"))

    assert (new.version, new.variant) == (7, uuid.RFC_4122)
    assert new.int >> 80 == RECEIVED_US // 1000
    assert (derived.version, derived.variant) == (8, uuid.RFC_4122)


def test_names_cannot_run_into_each_other() -> None:
    """Key, emitter and epoch are told apart, and no emitter from an empty one, whatever they are called."""
    ids = {
        event.identity_prefix_numbered(key, emitter, epoch)
        for key, emitter, epoch in [("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c"), ("a", None, "c"), ("a", "", "c")]
    }

    assert len(ids) == 5
    assert event.batch_id_from_idempotency_key("a", "bc") != event.batch_id_from_idempotency_key("ab", "c")


def test_provenance_names_the_partition() -> None:
    """Numbers run inside (ingest epoch, partition): two partitions of one process are two streams."""
    assert event.stream_of(b"\x01" * 16, 0) != event.stream_of(b"\x01" * 16, 1)


def test_provenance_is_shown_in_words() -> None:
    """A dead letter of an identity conflict says with it what is stored already."""
    assert str(event.Provenance("ab-0", 7, "00ff")) == "number 7 of ab-0, content 00ff"
