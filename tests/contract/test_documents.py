"""Both stores keep documents of our own alike: no change is written over another one unseen, searches find them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logweir.errors import (
    DOCUMENT_CHANGED,
    DOCUMENT_TOO_LARGE,
    QUERY_BAD,
    QUERY_FIELD_UNKNOWN,
    QUERY_OPERATOR_UNFIT,
    LogweirError,
)
from logweir.event import Field, Kind
from logweir.query.parse import parse
from logweir.store.documents import SIZE_BYTES_MAX, DocumentSet
from logweir.store.port import Store
from tests.contract.stores import NOON_US, STORES, empty_store, iso

FIELDS = (
    Field("name", Kind.KEYWORD, ""),
    Field("labels", Kind.KEYWORD, ""),
    Field("severity", Kind.KEYWORD, ""),
    Field("summary", Kind.TEXT, ""),
    Field("count", Kind.NUMBER, ""),
    Field("changed", Kind.DATE, ""),
)
NAMES = frozenset(field.name for field in FIELDS)


def view(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name in NAMES}


NOTES = DocumentSet("test-notes", FIELDS, "changed", view)
OTHERS = DocumentSet("test-others", FIELDS, "changed", view)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path) as store:
        yield store


def put(store: Store, id: str, *, minute: int = 0, **values: Any) -> str:
    body = {"changed": iso(NOON_US + minute * 60_000_000), **values}
    return store.documents.put(NOTES, id, body, version=None)


def found(store: Store, query: str) -> list[str]:
    page = store.documents.search(NOTES, parse(query, NOTES.by_name), size=100)
    assert page.total == len(page.documents)
    return [one.id for one in page.documents]


def test_a_document_comes_back_as_it_was_written(store: Store) -> None:
    """Its body whole, also what no search looks at; what is not there is absent, also before anything was written."""
    assert store.documents.get(NOTES, ["a"]) == {}
    version = put(store, "a", name="x", rest={"list": [1, None, "é"], "deep": {"er": True}})

    stored = store.documents.get(NOTES, ["a", "b"])
    assert list(stored) == ["a"]
    assert stored["a"].body["rest"] == {"list": [1, None, "é"], "deep": {"er": True}}
    assert stored["a"].version == version
    assert store.documents.get(OTHERS, ["a"]) == {}


def test_a_change_needs_the_version_that_was_read(store: Store) -> None:
    """A second change over the same version is refused, as is making what is there, or changing what is not."""
    first = put(store, "a", count=1)
    second = store.documents.put(NOTES, "a", {"count": 2}, version=first)
    for id, version in (("a", first), ("a", None), ("b", second)):
        with pytest.raises(LogweirError) as error:
            store.documents.put(NOTES, id, {"count": 3}, version=version)

        assert error.value.problem is DOCUMENT_CHANGED
    assert store.documents.get(NOTES, ["a", "b"])["a"].body == {"count": 2}


def test_of_changes_at_once_none_is_lost(store: Store) -> None:
    """Eight threads count one document up: each reads, adds and writes until it was first."""
    put(store, "a", count=0)

    def count_up() -> None:
        for _ in range(5):
            while True:
                read = store.documents.get(NOTES, ["a"])["a"]
                try:
                    store.documents.put(NOTES, "a", {"count": read.body["count"] + 1}, version=read.version)
                    break
                except LogweirError as error:
                    assert error.problem is DOCUMENT_CHANGED

    threads = [threading.Thread(target=count_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.documents.get(NOTES, ["a"])["a"].body == {"count": 40}


def test_of_several_that_make_one_document_one_does(store: Store) -> None:
    made: list[str] = []

    def make(name: str) -> None:
        try:
            store.documents.put(NOTES, "a", {"name": name}, version=None)
            made.append(name)
        except LogweirError as error:
            assert error.problem is DOCUMENT_CHANGED

    threads = [threading.Thread(target=make, args=(f"n{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [store.documents.get(NOTES, ["a"])["a"].body["name"]] == made


def test_a_document_deleted_is_gone_and_one_made_anew_has_no_version_of_its_past(store: Store) -> None:
    first = put(store, "a", name="x")
    with pytest.raises(LogweirError) as error:
        store.documents.delete(NOTES, "a", version=put(store, "other"))
    assert error.value.problem is DOCUMENT_CHANGED
    store.documents.delete(NOTES, "a", version=first)
    assert store.documents.get(NOTES, ["a"]) == {}
    assert found(store, "name:x") == []
    with pytest.raises(LogweirError):
        store.documents.delete(NOTES, "a", version=first)
    put(store, "a", name="again")

    with pytest.raises(LogweirError):
        store.documents.put(NOTES, "a", {"name": "late"}, version=first)
    assert found(store, "name:again") == ["a"]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("*", ["c", "b", "a"]),
        ("", ["c", "b", "a"]),
        ("name:Anna", ["a"]),
        ("name:an*", ["b", "a"]),
        ("labels:ssh", ["b", "a"]),
        ("labels:(ssh AND root)", ["a"]),
        ("-labels:ssh", ["c"]),
        ("severity:high", ["a"]),
        ("count:[2 TO 3]", ["c", "b"]),
        ("count:>2", ["c"]),
        ("failed", ["b", "a"]),
        ('"failed login"', ["a"]),
        ("summary:login", ["b", "a"]),
        ('"anna ssh"', []),
        ("anna", ["a"]),
        ("changed:>=2026-01-31T12:01:00Z", ["c", "b"]),
        ("changed:2026-01-31", ["c", "b", "a"]),
        ("labels:*", ["b", "a"]),
        ("count:*", ["c", "b", "a"]),
        ("nothing", []),
    ],
)
def test_the_search_language_finds_documents(store: Store, query: str, ids: list[str]) -> None:
    """By the fields of their set, newest first, at once."""
    put(store, "a", name="Anna", labels=["ssh", "root"], severity="high", summary="Failed login of root", count=1)
    put(store, "b", minute=1, name="anton", labels=["ssh"], severity="low", summary="A login failed", count=2)
    put(store, "c", minute=2, name="Bert", summary="fine", count=3)
    store.documents.put(OTHERS, "d", {"name": "Anna", "summary": "failed", "count": 2}, version=None)

    assert found(store, query) == ids


@pytest.mark.parametrize(
    ("query", "problem"),
    [("nme:x", QUERY_FIELD_UNKNOWN), ("details.x:y", QUERY_FIELD_UNKNOWN), ("name:[a TO b]", QUERY_OPERATOR_UNFIT)],
)
def test_a_search_for_what_documents_have_not_is_refused(query: str, problem: object) -> None:
    with pytest.raises(LogweirError) as error:
        parse(query, NOTES.by_name)

    assert error.value.problem is problem
    assert "Did you mean 'name'?" in str(error.value) or query != "nme:x"


def test_pages_follow_each_other_within_their_bounds_of_time(store: Store) -> None:
    """No document twice, none left out, also where many have the same time; the total is the same on each page."""
    for number in range(9):
        put(store, f"n{number}", minute=number // 3, name="x")
    query = parse("name:x", NOTES.by_name)
    ids: list[str] = []
    after = None
    while True:
        page = store.documents.search(NOTES, query, size=2, after=after)
        ids += [one.id for one in page.documents]
        after = page.after
        assert page.total == 9
        if after is None:
            break
    bounded = store.documents.search(
        NOTES, query, size=10, from_us=NOON_US + 60_000_000, to_us=NOON_US + 2 * 60_000_000
    )
    counted = store.documents.search(NOTES, query, size=0)

    assert ids == [f"n{number}" for number in reversed(range(9))]
    assert [one.id for one in bounded.documents] == ["n5", "n4", "n3"]
    assert (counted.total, counted.documents, counted.after) == (9, [], None)


def test_a_document_that_is_too_large_is_refused(store: Store) -> None:
    with pytest.raises(LogweirError) as error:
        put(store, "a", rest="x" * SIZE_BYTES_MAX)

    assert error.value.problem is DOCUMENT_TOO_LARGE
    assert store.documents.get(NOTES, ["a"]) == {}


def test_an_events_fields_are_judged_as_before() -> None:
    """Severities of events are eight names; documents have their own."""
    with pytest.raises(LogweirError) as error:
        parse("severity:high")
    parse("severity:high", NOTES.by_name)

    assert error.value.problem is QUERY_BAD
