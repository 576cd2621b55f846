"""Numbers that events bring along: read from the fields that a setting names, by key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from logweir import config
from logweir.config import EventFields
from logweir.errors import SETTING_BAD, LogweirError
from logweir.queue import open_queue
from logweir.store import open_store
from logweir_workers.accounting.natural import natural_runs
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

FIELDS = EventFields(("details", "seqnum"), ("hostname",), ("details", "boot"))


def event(number: Any, host: Any = "web", boot: Any = "b1") -> bytes:
    return json.dumps({"summary": "x", "hostname": host, "details": {"seqnum": number, "boot": boot}}).encode()


def runs(*events: bytes, fields: EventFields = FIELDS) -> list[tuple[str | None, str | None, int | None, int]]:
    return [
        (run.emitter, run.epoch, run.sequence_first, len(run.events)) for run in natural_runs(batch(*events), fields)
    ]


def test_events_are_cut_into_runs_by_emitter_epoch_and_number() -> None:
    """Numbers that follow make one run; another host, boot or number begins the next."""
    assert runs(event(7), event("8"), event(10), event(11, "db"), event(12, "db", "b2"), event(13, "db", "b2")) == [
        ("web", "b1", 7, 2),
        ("web", "b1", 10, 1),
        ("db", "b1", 11, 1),
        ("db", "b2", 12, 2),
    ]


@pytest.mark.parametrize(
    "number", [0, -1, 1.5, True, None, "x", "", "12345678901234567890", 2**63, 2**53, [], {"a": 1}]
)
def test_an_event_without_a_whole_number_from_1_is_not_numbered(number: Any) -> None:
    """It is left out, and so is one that cannot be read; their neighbours are not."""
    assert runs(event(1), event(number), b"{", event(2, boot=None), event(2)) == [
        ("web", "b1", 1, 1),
        ("web", "b1", 2, 1),
    ]


def test_without_fields_for_them_emitter_and_epoch_are_the_batchs_own() -> None:
    """Only the number has to be in the event."""
    assert runs(event(3), event(4), fields=EventFields(("details", "seqnum"))) == [(None, None, 3, 2)]


@pytest.mark.parametrize("entry", ["syslog", "syslog emitter=hostname", "syslog sequence=", "s sequence=a host=b"])
def test_an_entry_that_cannot_be_read_is_refused_with_what_it_should_be(entry: str) -> None:
    """At the start, not when the first event comes."""
    with pytest.raises(LogweirError) as caught:
        config.load(environment={"LOGWEIR_ACCOUNTING_EVENT_FIELDS": entry})

    assert caught.value.problem is SETTING_BAD
    assert "sequence=field" in str(caught.value)


def test_losses_of_a_source_that_numbers_its_own_events_are_exact(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Class from_fields: what is missing between its numbers, by host; a number 1 that comes again begins a new run."""
    from logweir.audit.books import read_books

    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "accounting.late_after_s": 1,
        "accounting.event_fields": "other sequence=a, app sequence=details.seqnum emitter=hostname",
    }
    settings = config.load(environment={}, overrides=overrides)
    queue, store = open_queue(settings.queue), open_store(settings.store)
    queue.prepare()
    store.prepare()
    door = Door(queue)
    door.write(batch(event(5), event(6), event(9), b'{"summary":"bare"}', id=b"\x01" * 16))
    door.write(batch(event(1, "db"), event(2, "db"), event(1, "db"), event(3, "db"), id=b"\x02" * 16))

    # A run that its sender names is never taken for one of those that the numbers themselves begin.
    for name in ("run-1", "~x", "~1"):
        door.write(batch(b"{}", id=b"\x03" * 16, emitter="both", epoch=name, sequence_first=1))
    door.write(batch(event(1, "both"), event(3, "both"), id=b"\x04" * 16))

    def losses() -> dict[str | None, tuple[str, int | None, list[list[Any]]]]:
        books = read_books(store, group="logweir", late_us=1_000_000, now_us=0)
        return {row["emitter"]: (row["class"], row["lost"], row["lost_ranges"]) for row in books.as_json()["emitters"]}

    expected = {
        None: ("unknown", None, []),
        "web": ("from_fields", 2, [["run 1", 7, 8]]),
        "db": ("from_fields", 1, [["run 2", 2, 2]]),
        "both": ("from_fields", 1, [["run 1", 2, 2]]),
    }
    with running_worker(settings, queue, store):
        until(lambda: losses() == expected)
    door.close()
    queue.close()
    store.close()


def test_an_event_that_is_mended_has_its_number() -> None:
    """Else it would be taken for lost, though it is stored."""
    bare = b'{"hostname":"web","details":{"seqnum":8,"boot":"b1"},"structured data":"[a b="c"]"}'

    assert runs(event(7), bare, event(9)) == [("web", "b1", 7, 3)]
