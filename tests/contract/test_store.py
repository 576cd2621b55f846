"""Both stores keep events, ledger and dead letters alike: the same answers, the same refusals, the same durability."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.event import Document, Provenance, day_of
from logweir.query.parse import parse
from logweir.query.tree import And, Range, Term
from logweir.store import open_store
from logweir.store.port import DeadLetter, Held, Item, LedgerDocument, LetterFilter, Store, Written
from tests.contract.stores import DAY_US, NOON_US, STORES, document, empty_store, settings_of

HUGE = "é" * 40_000


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with empty_store(request.param, request, tmp_path) as store:
        yield store


def some(count: int, *, first: int = 1, received_us: int = NOON_US) -> list[Document]:
    return [
        document(f"e{number}", {"summary": f"event {number}"}, number=number, received_us=received_us)
        for number in range(first, first + count)
    ]


def found(store: Store, query: str = "*") -> list[str]:
    store.refresh()
    return [event["_id"] for event in store.search(parse(query), size=1000).events]


# --- events -------------------------------------------------------------------------------------------------------
def test_events_are_counted_by_the_numbers_they_carry(store: Store) -> None:
    """How many documents carry a range of one stream's numbers: what receipts and audits ask."""
    yesterday = some(2, first=6, received_us=NOON_US - DAY_US)
    other = replace(some(1, first=9)[0], id="other", provenance=Provenance("cd" * 16 + "-1", 3, "f" * 16))
    store.index([*some(5), *yesterday, other])
    store.refresh()
    stream = some(1)[0].provenance.stream
    today, before = day_of(NOON_US), day_of(NOON_US - DAY_US)

    def count(lowest: int, highest: int, days: tuple[str, str] | None = None) -> int:
        asked = store.count(And((Term("ingest_stream", stream), Range("ingest_number", lowest, highest + 1))))
        counted = store.count_numbers(stream, lowest, highest, days=days)
        assert days is not None or counted == asked.number
        return counted

    assert [count(1, 100), count(2, 4), count(5, 6), count(100, 200)] == [7, 3, 2, 0]
    assert [count(1, 100, (today, today)), count(1, 100, (before, before)), count(1, 100, (before, today))] == [5, 2, 7]


def test_new_documents_are_created_and_found(store: Store) -> None:
    """Documents of several days go to their indices, one item each in order."""
    documents = some(3) + some(2, first=4, received_us=NOON_US - DAY_US) + some(1, first=6)

    assert store.index(documents) == [Item(Written.CREATED)] * 6
    assert found(store) == ["e6", "e3", "e2", "e1", "e5", "e4"]
    store.refresh()
    assert [event["_index"][-15:] for event in store.search(parse("*"), size=10).events][-2:] == ["events-20260130"] * 2


def test_an_event_replaced_is_there_once_with_its_new_words(store: Store) -> None:
    """What a replay writes: over its own earlier try, or anew; found by the new words and no longer by the old ones."""
    store.index(some(3))
    again = [document(f"e{number}", {"summary": f"mended {number}"}, number=number) for number in (2, 3, 4)]

    assert store.replace(again) == [Item(Written.CREATED)] * 3
    assert store.replace([]) == []
    assert found(store) == ["e4", "e3", "e2", "e1"]
    assert found(store, "mended") == ["e4", "e3", "e2"]
    assert found(store, "event") == ["e1"]
    places = [("20260131", "e2"), ("20260131", "absent"), ("19990101", "e2")]
    (stored, *others) = store.sources(places)
    assert stored == {
        **again[0].source,
        "ingest_stream": again[0].provenance.stream,
        "ingest_number": 2,
        "content_hash": again[0].provenance.content_hash,
    }
    assert others == [None, None]


def test_another_events_document_is_neither_replaced_nor_deleted(store: Store) -> None:
    """Under an id that another event has taken, that event stays: its provenance is the answer."""
    theirs, ours = some(1)[0], replace(some(1)[0], provenance=Provenance("cd" * 16 + "-1", 9, "0" * 16))
    store.index([theirs])
    store.delete([(ours.day, ours.id, ours.provenance)])

    assert store.replace([ours]) == [Item(Written.EXISTS, stored=theirs.provenance)]
    assert store.provenances([(theirs.day, theirs.id)]) == [theirs.provenance]


def test_deleted_events_are_gone_and_those_behind_them_have_their_own_words(store: Store) -> None:
    """Also the newest one, whose place the next one takes; deleting again, or on a day without events, is nothing."""
    documents = some(3)
    store.index(documents)
    gone = [(one.day, one.id, one.provenance) for one in documents[1:]]
    store.delete([*gone, ("19990101", "e1", documents[0].provenance)])
    store.delete(gone)
    store.index([document("new", {"summary": "fresh"}, number=7)])

    assert found(store) == ["new", "e1"]
    assert found(store, "fresh") == ["new"]
    assert found(store, "event") == ["e1"]


def test_nothing_to_index_is_nothing(store: Store) -> None:
    """An empty bulk asks the store for nothing."""
    assert store.index([]) == []


def test_same_id_again_answers_with_the_stored_provenance(store: Store) -> None:
    """A second try of an event changes nothing and says whose document is there: its own, or another's."""
    own, other = some(2)
    store.index([own])
    intruder = replace(own, provenance=Provenance("cd" * 16 + "-1", 77, "f" * 16), source={"summary": "intruder"})

    assert store.index([own, other, intruder]) == [
        Item(Written.EXISTS, stored=own.provenance),
        Item(Written.CREATED),
        Item(Written.EXISTS, stored=own.provenance),
    ]
    assert found(store, "intruder") == []
    assert sorted(found(store)) == ["e1", "e2"]


def test_provenance_is_told_of_what_is_stored_under_index_and_id(store: Store) -> None:
    """At once after writing, of several days, and None for what is not there, nor its day."""
    today, earlier = some(1)[0], some(1, first=2, received_us=NOON_US - DAY_US)[0]
    store.index([today, earlier])
    places = [(earlier.day, "e2"), (today.day, "e1"), (today.day, "e2"), ("20200101", "e1")]

    assert store.provenances(places) == [earlier.provenance, today.provenance, None, None]
    assert store.provenances([]) == []


def test_same_id_twice_in_one_bulk_is_kept_once(store: Store) -> None:
    """The first of two documents with one id wins, the second hears of it."""
    first = some(1)[0]
    second = replace(first, provenance=Provenance("cd" * 16 + "-1", 2, "f" * 16))

    assert store.index([first, second]) == [Item(Written.CREATED), Item(Written.EXISTS, stored=first.provenance)]
    assert found(store) == ["e1"]


def test_document_that_the_store_cannot_take_is_refused_alone(store: Store) -> None:
    """A document of the wrong form is refused with a reason; its neighbours are kept."""
    good, bad, also_bad, unwritable, last = some(5)
    bad = replace(bad, source={**bad.source, "details": "not an object"})
    also_bad = replace(also_bad, source={**also_bad.source, "hostname": {"an": "object"}})
    unwritable = replace(unwritable, source={**unwritable.source, "summary": "\ud800"})
    items = store.index([good, bad, also_bad, unwritable, last])

    assert [item.written for item in items] == [
        Written.CREATED,
        Written.REFUSED,
        Written.REFUSED,
        Written.REFUSED,
        Written.CREATED,
    ]
    assert all(item.error for item in items[1:4])
    assert found(store) == ["e5", "e1"]


def test_no_value_is_refused_for_its_length_or_its_time(store: Store) -> None:
    """Values beyond every limit of the index are kept; they cannot be searched, and nothing else is lost."""
    sources: list[dict[str, Any]] = [
        {"hostname": HUGE, "tags": [HUGE, "short"]},
        {"details": {"long": HUGE, "short": "x"}},
        {"summary": HUGE},
        {"summary": " ".join(f"w{number}" for number in range(30_000))},
        {"timestamp": "9999-12-31T23:59:59.999999Z"},
        {"timestamp": "0001-01-01T00:00:00.000000Z"},
        {"timestamp": "+12026-01-01T00:00:00.000000Z"},
        {"timestamp": "yesterday"},
        {"details": dict.fromkeys(("", ".", "a.", "a..b", " ", "_id", "\u0001", "é" * 1000), "x")},
    ]
    documents = [document(f"e{number}", source, number=number) for number, source in enumerate(sources)]

    assert store.index(documents) == [Item(Written.CREATED)] * len(documents)
    assert len(found(store)) == len(documents)
    assert found(store, "tags:short") == ["e0"]
    assert found(store, "hostname:*") == []
    assert found(store, "details.long:*") == ["e1"]
    assert found(store, "details.short:x") == ["e1"]
    assert found(store, "w29999") == ["e3"]
    assert found(store, "timestamp:0001") == ["e5"]
    assert found(store, "NOT timestamp:*") == ["e7", "e6"]
    (event,) = store.search(parse("NOT timestamp:* AND ingest_number:7"), size=1).events
    assert event["timestamp"] == "yesterday"


def test_details_value_late_in_a_very_long_event_is_found(store: Store) -> None:
    """Leaves of details are found although their words were cut off."""
    long = document("e1", {"summary": "word " * 9000, "details": {"user": "root"}}, number=1)
    store.index([replace(long, all_words=long.summary_words)])

    assert found(store, "root") == []
    assert found(store, "details.user:root") == ["e1"]
    assert found(store, "details.user:ro*") == ["e1"]
    assert found(store, "details.user:toor") == []


def test_two_threads_index_at_once(store: Store) -> None:
    """Bulks from several threads, overlapping and over two days, leave each document once."""
    documents = some(300) + some(300, first=301, received_us=NOON_US - DAY_US)
    created: list[int] = []

    def run(start: int) -> None:
        items = [item for at in range(start, 600, 100) for item in store.index(documents[at : at + 150])]
        created.append(sum(item.written is Written.CREATED for item in items))

    threads = [threading.Thread(target=run, args=(start,)) for start in (0, 50, 0, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(created) == 600
    assert len(found(store)) == 600


def test_expired_days_are_removed_and_come_back_when_written_to(store: Store) -> None:
    """Days before the given one go, by name; a later event of such a day makes it anew."""
    for days in range(4):
        store.index(some(2, first=10 * days + 1, received_us=NOON_US - days * DAY_US))

    assert store.delete_expired("20260130") == ["20260128", "20260129"]
    assert store.delete_expired("20260130") == []
    assert found(store) == ["e2", "e1", "e12", "e11"]
    assert store.index(some(2, first=31, received_us=NOON_US - 3 * DAY_US)) == [Item(Written.CREATED)] * 2
    assert found(store) == ["e2", "e1", "e12", "e11", "e32", "e31"]


@pytest.mark.parametrize("kind", STORES)
def test_day_removed_by_another_process_is_made_anew(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A writer whose day was removed behind its back loses nothing of what it writes next, mapping included."""
    settings = settings_of(kind, request, tmp_path)
    writer, remover = open_store(settings), open_store(settings)
    writer.prepare()
    writer.index(some(1))
    assert remover.delete_expired("20270101") == ["20260131"]

    assert writer.index(some(2)) == [Item(Written.CREATED)] * 2
    assert found(remover, "SUMMARY OR event") == ["e2", "e1"]
    assert found(remover, "summary:event") == ["e2", "e1"]
    writer.close()
    remover.close()


@pytest.mark.parametrize("kind", STORES)
def test_stored_events_outlive_the_store_object(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """What was answered is there after opening the store anew, and prepare does not touch it."""
    settings = settings_of(kind, request, tmp_path)
    first = open_store(settings)
    first.prepare()
    first.index(some(3))
    first.ledger.claim("p", "one")
    first.close()
    second = open_store(settings)
    second.prepare()

    assert found(second) == ["e3", "e2", "e1"]
    assert second.ledger.claim("p", "two").generation == 2
    second.close()


# --- ledger -------------------------------------------------------------------------------------------------------
def test_claim_makes_the_document_then_takes_it_over(store: Store) -> None:
    """The first claim makes the document; each later one gets the body as it was and a higher generation."""
    assert store.ledger.claim("events/0", "one") == LedgerDocument("events/0", 1, {})
    store.ledger.write([LedgerDocument("events/0", 1, {"owner": "one", "next": 7, "deep": {"a.b": [1, None]}})])
    taken = store.ledger.claim("events/0", "two")

    assert taken.generation == 2
    assert taken.body == {"owner": "one", "next": 7, "deep": {"a.b": [1, None]}}
    assert store.ledger.read(["events/0"])["events/0"].body == {**taken.body, "owner": "two"}


def test_a_document_that_is_only_claimed_is_there_for_claims_alone(store: Store) -> None:
    """Nobody reads it, however often it is claimed; yet whoever claimed it before can write it no more."""
    old, new = store.ledger.claim("c:1", "zombie"), store.ledger.claim("c:1", "successor")
    many = [LedgerDocument(f"c:2:{number:03}", 1, {"owner": "one"}) for number in range(250)]
    store.ledger.write([*many, LedgerDocument("c:3", 1, {"owner": "one", "n": 1}), LedgerDocument("c:4", 1, {})])

    assert (old, new) == (LedgerDocument("c:1", 1, {}), LedgerDocument("c:1", 2, {}))
    assert list(store.ledger.read(["c:1", "c:3", "c:4"])) == ["c:3", "c:4"]
    assert [document.id for document in store.ledger.scan("c:")] == ["c:3", "c:4"]
    with pytest.raises(LogweirError) as caught:
        store.ledger.write([replace(old, body={"owner": "zombie", "partition": 3})])
    assert caught.value.problem is CLAIM_LOST
    assert caught.value.numbers == {"partition": 3, "owner": "successor", "generation": 2, "generation_own": 1}
    store.ledger.delete([old])
    assert store.ledger.claim("c:1", "third").generation == 3


def test_writing_under_a_lost_claim_is_refused(store: Store) -> None:
    """After another's claim, the older generation can write nothing more to that document, and is told by whom."""
    old = store.ledger.claim("p3", "zombie")
    new = store.ledger.claim("p3", "successor")
    store.ledger.write([replace(new, body={"owner": "successor", "partition": 3, "next": 10})])

    with pytest.raises(LogweirError) as caught:
        store.ledger.write([replace(old, body={"owner": "zombie", "partition": 3, "next": 5})])

    assert caught.value.problem.code == "claim_lost"
    assert caught.value.numbers == {"partition": 3, "owner": "successor", "generation": 2, "generation_own": 1}
    assert store.ledger.read(["p3"])["p3"].body["next"] == 10


def test_last_ledger_document_is_written_only_when_all_before_it_are(store: Store) -> None:
    """The position comes last: it must never be ahead of a window that could not be written."""
    window, position = store.ledger.claim("window", "one"), store.ledger.claim("position", "one")
    store.ledger.claim("window", "two")

    with pytest.raises(LogweirError) as caught:
        store.ledger.write([replace(document, body={"next": 9}) for document in (window, position)])

    assert caught.value.problem.code == "claim_lost"
    assert store.ledger.read(["position"]) == {}


def test_own_generation_writes_again_and_again(store: Store) -> None:
    """Under a claim that holds, every write replaces the last, new documents included."""
    claim = store.ledger.claim("p", "one")
    for position in range(3):
        documents = [LedgerDocument(id, claim.generation, {"owner": "one", "next": position}) for id in ("p", "p/w1")]
        store.ledger.write(documents)

    assert {id: document.body["next"] for id, document in store.ledger.read(["p", "p/w1", "none"]).items()} == {
        "p": 2,
        "p/w1": 2,
    }


def test_ledger_reads_are_never_stale_and_may_be_empty(store: Store) -> None:
    """Reading needs no refresh, and asking for nothing or for unknown documents gives nothing."""
    assert store.ledger.read([]) == {}
    assert store.ledger.read(["p"]) == {}
    store.ledger.write([LedgerDocument("p", 5, {"n": 2**62})])

    assert store.ledger.read(["p"]) == {"p": LedgerDocument("p", 5, {"n": 2**62})}
    assert store.ledger.claim("p", "one").generation == 6


def test_who_only_reads_makes_nothing(request: pytest.FixtureRequest, tmp_path: Path, store: Store) -> None:
    """A ledger that nobody has written yet is empty; asking for it leaves no template, index or file behind."""
    kind = request.node.callspec.params["store"]
    settings = settings_of(kind, request, tmp_path / "another")
    with closing(open_store(settings)) as reader:
        found = [
            list(reader.ledger.scan("position:")),
            reader.ledger.read(["a"]),
            reader.count(parse("*")).number,
        ]

    assert found == [[], {}, 0]
    if kind == "sqlite":
        assert not (tmp_path / "another").exists()
    else:
        assert request.getfixturevalue(kind).request("GET", f"/{settings.index_prefix}*/_alias") == {}


def test_a_scan_gives_the_ledger_documents_of_a_prefix_in_order(store: Store) -> None:
    """More of them than one page holds, none of a neighbour, each with its generation, as last written."""
    ids = [f"scan:a:{number:04}" for number in range(1200)]
    store.ledger.write([LedgerDocument(id, 3, {"n": number}) for number, id in enumerate(ids)])
    store.ledger.write(
        [LedgerDocument("scan:", 1, {}), LedgerDocument("scan:b:1", 1, {}), LedgerDocument("scan", 1, {})]
    )
    store.ledger.write([LedgerDocument(ids[7], 4, {"n": "new"})])
    found = list(store.ledger.scan("scan:a:"))

    assert [document.id for document in found] == ids
    assert found[7] == LedgerDocument(ids[7], 4, {"n": "new"})
    assert found[8] == LedgerDocument(ids[8], 3, {"n": 8})
    assert list(store.ledger.scan("scan:c")) == []


def test_ledger_documents_are_deleted_unless_a_later_claim_has_written_them(store: Store) -> None:
    """Deleting takes away what is as old or older, leaves what a successor wrote, and may be repeated."""
    store.ledger.write(
        [LedgerDocument("d:own", 3, {}), LedgerDocument("d:older", 2, {}), LedgerDocument("d:newer", 4, {})]
    )
    gone = [LedgerDocument(f"d:{name}", 3, {}) for name in ("own", "older", "newer", "never")]
    store.ledger.delete(gone)
    store.ledger.delete(gone)
    store.ledger.delete([])

    assert list(store.ledger.read([document.id for document in gone])) == ["d:newer"]
    assert [document.id for document in store.ledger.scan("d:")] == ["d:newer"]
    store.ledger.write([LedgerDocument("d:own", 3, {"back": 1})])
    assert store.ledger.read(["d:own"])["d:own"].body == {"back": 1}


def test_a_claim_takes_over_all_that_was_written_before_it(store: Store) -> None:
    """What is read, changed and written under a claim is never undone by another claim that was under way."""

    def add_one() -> None:
        for _ in range(8):
            while True:
                claimed = store.ledger.claim("counter", "me")
                body = {"owner": "me", "count": claimed.body.get("count", 0) + 1}
                try:
                    store.ledger.write([LedgerDocument("counter", claimed.generation, body)])
                except LogweirError as error:
                    assert error.problem is CLAIM_LOST
                    continue
                break

    threads = [threading.Thread(target=add_one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.ledger.read(["counter"])["counter"].body["count"] == 24


def test_claims_at_once_get_generations_of_their_own(store: Store) -> None:
    """However many claim a document at once, no two hold the same generation."""
    generations: list[int] = []

    def run() -> None:
        generations.extend(store.ledger.claim("p", threading.current_thread().name).generation for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(generations) == list(range(1, 21))


# --- dead letters -------------------------------------------------------------------------------------------------
def letter(
    id: str, received_us: int, reason: str = "event_unreadable", raw: bytes = b"\x00\xff{", **body: Any
) -> DeadLetter:
    body = {"reason": reason, "error": "x", "offset": 2**40, "key": None, **body}
    return DeadLetter(id, received_us, reason, body, raw)


def ids_of(letters: list[DeadLetter]) -> str:
    return "".join(one.id for one in letters)


def test_dead_letters_are_kept_whole_newest_first(store: Store) -> None:
    """Bytes and body come back as they were, newest first, and are counted with their bytes by reason, at once."""
    letters = [
        letter("a", 1),
        letter("b", 3, "store_refused"),
        letter("c", 2, raw=b""),
        letter("d", 3, raw=b"x" * 300_000),
    ]
    store.dead_letters.put(letters)

    assert store.dead_letters.page(size=10) == [letters[3], letters[1], letters[2], letters[0]]
    assert store.dead_letters.page(size=1) == [letters[3]]
    assert store.dead_letters.count() == {"event_unreadable": Held(3, 300_003), "store_refused": Held(1, 3)}


def test_dead_letters_are_found_by_what_is_known_of_them(store: Store) -> None:
    """By id, reason, stage, key, emitter and time of receipt, each by itself and together; counted likewise."""
    store.dead_letters.put(
        [
            letter("a", 1, "event_unfit", stage="enrich", key="web", emitter="w1"),
            letter("b", 2, "event_unfit", stage="normalise", key="web", emitter="w 2"),
            letter("c", 3, "store_refused", stage="index", key="app"),
            letter("d", 4, "body_refused", stage="ingest", key="Web"),
        ]
    )

    def found(**wanted: Any) -> str:
        one = LetterFilter(**wanted)
        assert sum(held.letters for held in store.dead_letters.count(one).values()) == len(
            store.dead_letters.page(size=10, wanted=one)
        )
        return ids_of(store.dead_letters.page(size=10, wanted=one))

    assert found() == "dcba"
    assert found(ids=("a", "c", "absent")) == "ca"
    assert found(ids=("absent",)) == ""
    assert found(reasons=("event_unfit", "store_refused")) == "cba"
    assert found(stage="enrich") == "a"
    assert found(key="web") == "ba"
    assert found(emitter="w 2") == "b"
    assert found(from_us=2, to_us=4) == "cb"
    assert found(reasons=("event_unfit",), key="web", to_us=2) == "a"


def test_dead_letters_come_page_by_page(store: Store) -> None:
    """Behind the last one of a page comes the next, none twice, equal times in the order of their ids."""
    store.dead_letters.put(
        [letter(id, received_us) for id, received_us in zip("abcdef", (5, 5, 5, 1, 9, 5), strict=True)]
    )
    seen, behind = "", None
    while page := store.dead_letters.page(size=2, behind=behind):
        seen, behind = seen + ids_of(page), page[-1]

    assert seen == "efcbad"


def test_deleted_dead_letters_are_gone_and_counted_once(store: Store) -> None:
    """Only those that are meant; deleting again finds none."""
    store.dead_letters.put([letter(f"l{at}", at, "event_unfit" if at % 3 else "store_refused") for at in range(1200)])
    few = store.dead_letters.delete(LetterFilter(ids=("l1", "l3", "absent")))
    oldest = store.dead_letters.delete(LetterFilter(to_us=1100), letters_max=4)
    old = store.dead_letters.delete(LetterFilter(to_us=1100))

    assert few == {"event_unfit": 1, "store_refused": 1}
    assert oldest == {"event_unfit": 3, "store_refused": 1}
    assert old == {"event_unfit": 729, "store_refused": 365}
    assert store.dead_letters.delete(LetterFilter(to_us=1100)) == {}
    assert sum(held.letters for held in store.dead_letters.count().values()) == 100


def test_oldest_dead_letters_of_a_reason_make_room(store: Store) -> None:
    """Until both limits hold; other reasons stay, and within the limits nothing goes."""
    store.dead_letters.put([letter("a", 0)])
    store.dead_letters.put([letter(id, at, "body_refused", b"x" * at) for at, id in enumerate("bcdefg", start=1)])

    def trim(letters_max: int, size_bytes_max: int) -> tuple[int, str]:
        count = store.dead_letters.trim("body_refused", letters_max=letters_max, size_bytes_max=size_bytes_max)
        return count, ids_of(store.dead_letters.page(size=10))

    assert trim(6, 21) == (0, "gfedcba")
    assert trim(5, 21) == (1, "gfedca")
    assert trim(5, 15) == (2, "gfea")
    assert trim(5, 5) == (3, "a")


def test_dead_letter_kept_twice_is_kept_once(store: Store) -> None:
    """Keeping a letter again changes nothing."""
    store.dead_letters.put([letter("a", 1), letter("a", 1)])
    store.dead_letters.put([letter("a", 1)])

    assert store.dead_letters.count() == {"event_unreadable": Held(1, 3)}


def test_no_dead_letters(store: Store) -> None:
    """A new store has none, and keeping none is nothing."""
    store.dead_letters.put([])

    assert store.dead_letters.page(size=5) == []
    assert store.dead_letters.count() == {}
    assert store.dead_letters.delete(LetterFilter(key="web")) == {}


# --- the rest -----------------------------------------------------------------------------------------------------
def test_prepare_is_harmless_when_repeated_or_at_once(store: Store) -> None:
    """Preparing again, from several threads, leaves everything as it is."""
    store.index(some(1))
    threads = [threading.Thread(target=store.prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found(store) == ["e1"]


def test_check_says_what_there_is(store: Store) -> None:
    """The doctor's line names the store and counts its days."""
    store.index(some(1) + some(1, first=2, received_us=NOON_US - DAY_US))

    assert "2 days of events" in store.check()
