"""Events that were stored before details had kinds: read as before, beside new ones, in one search."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from logweir.config import StoreSettings
from logweir.event import content_hash_of
from logweir.query.parse import parse
from logweir.store import open_store
from logweir.store.elasticsearch.mapping import (
    KNOWN_KINDS,
    LAYOUT,
    TEMPLATE_VERSION,
    IndexNames,
    event_mappings,
    templates,
)
from logweir.store.port import Store, Written
from tests.contract.stores import DAY_US, ELASTICSEARCH, NOON_US, document, empty_store, settings_of
from tests.contract.test_search_known import EVENTS, QUERIES

ADDED = [name for name, one in event_mappings()["properties"].items() if one.get("path", "").startswith("known.")]


@contextmanager
def prepared(settings: StoreSettings) -> Iterator[Store]:
    with closing(open_store(settings)) as store:
        store.prepare()
        yield store


def found(store: Store, query: str) -> str:
    """The ids, the oldest first."""
    return "".join(event["_id"] for event in store.search(parse(query), size=100).events)[::-1]


@pytest.mark.parametrize("change", ["DROP TABLE known", "ALTER TABLE known DROP COLUMN status"])
def test_day_files_without_kinds_are_asked_by_them(change: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A day file of before answers all that a new one does, and takes new events; the next day's is new."""
    with empty_store("sqlite", request, tmp_path) as store:
        store.index([document("0", {"summary": "first"}, number=100)])
        with closing(sqlite3.connect(tmp_path / "store" / "events-20260131.sqlite")) as file:
            file.execute(change)
        documents = [document(id, source, number=number) for number, (id, source) in enumerate(EVENTS.items(), 1)]
        store.index(documents[:4])
        store.index(documents)
        assert {query: found(store, query) for query, _ in QUERIES} == {
            query: ids + ("0" if query.startswith("NOT ") else "") for query, ids in QUERIES
        }

        later = document("z", EVENTS["a"], number=101, received_us=NOON_US + DAY_US)
        assert store.replace([later, documents[0]]) == store.replace([later, documents[0]])
        assert found(store, "details.status:>=500") == "az"


@pytest.mark.parametrize("kind", ELASTICSEARCH)
def test_indices_without_kinds_are_read_beside_new_ones(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Old events are found by what they were found by; new ones, and old ones written anew, by all."""
    settings = settings_of(kind, request, tmp_path)
    server, prefix = request.getfixturevalue(kind), settings.index_prefix
    mappings = event_mappings()
    for name in ("known", *ADDED):
        del mappings["properties"][name]
    mappings["_source"]["excludes"].remove("known")
    del mappings["_meta"]
    server.request("PUT", f"/{prefix}events-20260131", {"mappings": mappings})
    old = {
        "details": EVENTS["a"]["details"],
        "ingest_stream": "ab" * 16 + "-0",
        "ingest_number": 1,
        "content_hash": "x",
    }
    server.request("PUT", f"/{prefix}events-20260131/_create/a?refresh=true", old)
    with prepared(settings) as store:
        events = [
            document("b", EVENTS["b"], number=2),
            document("z", EVENTS["a"], number=3, received_us=NOON_US + DAY_US),
        ]
        assert [item.written for item in store.index(events)] == [Written.CREATED] * 2
        store.refresh()

        assert found(store, "details.username:Administrator") == "az"
        assert found(store, "details.username:administrator") == "z"
        assert found(store, "details.username:Admin*") == "abz"
        assert found(store, "details.status:500") == "az"
        assert found(store, "details.status:>=404") == "bz"
        assert found(store, "details.sourceipaddress:10.0.0.0/8") == "bz"
        assert found(store, "details.username:*min*") == "bz"
        assert store.search(parse("hostname:* OR details.status:404"), size=1).events[0].keys().isdisjoint({"known"})
        assert "known" not in (store.sources([("20260131", "b")])[0] or {})

        assert [item.written for item in store.replace([document("a", EVENTS["a"], number=1)])] == [Written.CREATED]
        store.refresh()
        assert found(store, "details.status:>=404") == "abz"
        assert found(store, "details.username:administrator") == "az"


def test_events_that_were_taken_out_leave_no_kinds_behind(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whoever deletes events from a day file by hand: those that come in their place have kinds of their own."""
    with empty_store("sqlite", request, tmp_path) as store:
        store.index([document(id, EVENTS[id], number=number) for number, id in enumerate("abe", 1)])
        with closing(sqlite3.connect(tmp_path / "store" / "events-20260131.sqlite")) as file:
            file.execute("DELETE FROM events WHERE id <> 'a'")
            file.commit()
        store.index([document("x", {"summary": "x"}, number=9), document("b", EVENTS["b"], number=2)])

        assert found(store, "details.status:<=404") == "b"


def test_a_new_detail_is_a_new_layout() -> None:
    """Who adds one raises LAYOUT and TEMPLATE_VERSION, or indices of before would never learn of it."""
    kinds = sorted(f"{name}={kind}" for name, kind in KNOWN_KINDS.items())

    assert (LAYOUT, TEMPLATE_VERSION, content_hash_of(",".join(kinds).encode())) == (2, 2, "8505759c28c22f5b")


@pytest.mark.parametrize("kind", ELASTICSEARCH)
def test_template_of_a_newer_program_stays(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Two versions on one cluster, during an update: the older one leaves what the newer one has put there."""
    settings = settings_of(kind, request, tmp_path)
    server, name = request.getfixturevalue(kind), f"{settings.index_prefix}logweir-events"

    def version() -> int:
        found = server.request("GET", f"/_index_template/{name}")["index_templates"]
        return int(found[0]["index_template"]["version"])

    body = templates(settings, IndexNames(settings.index_prefix))[name]
    for before, after in ((TEMPLATE_VERSION + 1, TEMPLATE_VERSION + 1), (TEMPLATE_VERSION - 1, TEMPLATE_VERSION)):
        server.request("PUT", f"/_index_template/{name}", body | {"version": before})
        with prepared(settings):
            assert version() == after


@pytest.mark.parametrize("kind", ELASTICSEARCH)
def test_index_that_nobody_may_change_stops_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """An old day that is closed to changes keeps its mapping, and that is said."""
    settings = settings_of(kind, request, tmp_path)
    server, prefix = request.getfixturevalue(kind), settings.index_prefix
    server.request("PUT", f"/{prefix}events-20260131", {"mappings": {"dynamic": False}})
    server.request("PUT", f"/{prefix}events-20260131/_settings", {"index.blocks.read_only": True})
    try:
        with prepared(settings) as store:
            assert store.index([document("b", EVENTS["b"], number=2, received_us=NOON_US + DAY_US)])[0].error == ""
            assert "events-20260131 keeps its mapping" in caplog.text
    finally:
        server.request("PUT", f"/{prefix}events-20260131/_settings", {"index.blocks.read_only": False})
