"""What each store does when it is away, full, locked, blocked or killed: nothing half, and the right error."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from logweir.config import StoreSettings
from logweir.errors import LogweirError
from logweir.query.parse import parse
from logweir.store import open_store
from logweir.store.elasticsearch.mapping import IndexNames
from logweir.store.port import Item, LedgerDocument, LetterFilter, Store, Written
from tests.contract.stores import DAY_US, ELASTICSEARCH, NOON_US, document, settings_of
from tests.contract.test_documents import NOTES
from tests.contract.test_store import found, letter, some


def problem_of(action: Any) -> LogweirError:
    with pytest.raises(LogweirError) as caught:
        action()
    return caught.value


# --- the embedded store -------------------------------------------------------------------------------------------
@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store", timeout_s=0.3))) as store:
        store.prepare()
        yield store


def zero_a_page(path: Path) -> None:
    """As a disk does that has lost one."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'").fetchone()
    with path.open("r+b") as file:
        file.seek(page * (root - 1))
        file.write(bytes(page))


def forget_a_row(path: Path) -> None:
    """As a file does that came back with an older page among newer ones: an index knows a row that is not there."""
    index = "sqlite_autoindex_events_1"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'events'").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (index,)).fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        plain = sql.replace("id TEXT NOT NULL UNIQUE", "id TEXT NOT NULL")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'events'", (plain,))
        connection.execute("DELETE FROM sqlite_schema WHERE name = ?", (index,))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE id = 'b'")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'events'", (sql,))
        connection.execute("INSERT INTO sqlite_schema VALUES ('index', ?, 'events', ?, NULL)", (index, root))


@pytest.mark.parametrize("harm", [zero_a_page, forget_a_row])
def test_a_damaged_file_is_used_by_nobody_until_it_is_another(
    embedded: Store, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """What one process finds stands beside the file; set aside, the day begins anew, and other days never noticed."""
    documents = [document(id, {"summary": id}, number=number) for number, id in enumerate("abc")]
    other_day = document("d", {"summary": "d"}, number=3, received_us=NOON_US + DAY_US)
    embedded.index([*documents[:2], other_day])
    (path,) = (tmp_path / "store").glob("events-20260131.sqlite")
    harm(path)
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        errors = [problem_of(lambda: store.index(documents))]
        for action in (store.check, lambda: found(store, "*"), lambda: embedded.index(documents)):
            errors.append(problem_of(action))
        next_day = store.index([other_day])
        for part in path.parent.glob(f"{path.name}*"):
            part.rename(tmp_path / part.name)
        anew = store.index(documents)
        checked = store.check()

    for error in errors:
        assert error.problem.code == "store_down"
        assert "its file events-20260131.sqlite is damaged" in str(error)
        assert "docs/how-to/damaged-files.md" in str(error)
    assert [one.written for one in next_day] == [Written.EXISTS]
    assert [one.written for one in anew] == [Written.CREATED] * 3
    assert "writable, 2 days" in checked


HEAD = """
import resource, sys
from logweir.config import StoreSettings
from logweir.errors import LogweirError
from logweir.store import open_store
from logweir.store.port import LedgerDocument
from tests.contract.test_store import some
store = open_store(StoreSettings(url=sys.argv[1], timeout_s=5))
"""


def run_python(code: str, folder: Path) -> subprocess.Popen[str]:
    """A process of its own with ``store`` on the folder and ``some`` to make documents; its pipes are ours."""
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(code), f"sqlite:///{folder}/store"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_search_of_no_store_makes_no_files(tmp_path: Path) -> None:
    """Reading where no store is yet finds nothing and leaves nothing behind."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        assert store.count(parse("foo")).number == 0
        assert store.ledger.read(["p"]) == {}
        assert store.dead_letters.page(size=1) == []

    assert list(tmp_path.iterdir()) == []


def test_writing_before_prepare_is_an_error(tmp_path: Path) -> None:
    """Without prepare there is no store to write to, and none comes about by accident."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        assert problem_of(lambda: store.index(some(1))).problem.code == "store_down"
        assert problem_of(lambda: store.ledger.claim("p", "one")).problem.code == "store_down"

    assert list(tmp_path.iterdir()) == []


def test_files_locked_by_another_process_are_store_down_and_then_work(embedded: Store, tmp_path: Path) -> None:
    """Who waits longer than store.timeout_s for another's write gets STORE_DOWN, with nothing written."""
    embedded.index(some(1))
    code = """
        folder = store._folder
        with folder.writing(folder.day_path("20260131")), folder.writing(folder.main):
            print("locked", flush=True)
            sys.stdin.readline()
    """
    with run_python(code, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        error = problem_of(lambda: embedded.index(some(2)))
        assert problem_of(lambda: embedded.ledger.write([LedgerDocument("p", 1, {})])).problem.code == "store_down"
        assert embedded.count(parse("*")).number == 1
        process.communicate("go\n")

    assert error.problem.code == "store_down"
    assert "locked" in error.detail
    assert embedded.index(some(2))[1] == Item(Written.CREATED)


def test_full_disk_is_store_down_and_nothing_half(embedded: Store, tmp_path: Path) -> None:
    """When a file can grow no more, the bulk fails whole; the ones before it stay, and with space again all goes on."""
    code = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        for bulk in range(100):
            try:
                store.index(some(500, first=bulk * 500 + 1))
            except LogweirError as error:
                print(bulk, error.problem.code)
                break
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.index(some(500, first=bulk * 500 + 1))
        store.close()
    """
    output, _ = run_python(code, tmp_path).communicate(timeout=60)
    bulks, code = output.split()

    assert code == "store_down"
    assert 0 < int(bulks) < 100
    assert embedded.count(parse("summary:event")).number == (int(bulks) + 1) * 500


def test_damaged_file_is_store_down(embedded: Store, tmp_path: Path) -> None:
    """A file that is no database is named as such, for reading and writing; other days work."""
    embedded.index(some(1))
    (tmp_path / "store" / "events-20260130.sqlite").write_bytes(b"nonsense" * 1000)

    assert "not a database" in problem_of(lambda: embedded.search(parse("*"), size=5)).detail
    assert embedded.index(some(2))[1] == Item(Written.CREATED)


def test_killed_writer_leaves_whole_bulks(tmp_path: Path) -> None:
    """kill -9 at any moment: what was answered is there once, the bulk under way is there whole or not at all."""
    code = """
        store.prepare()
        for bulk in range(int(sys.stdin.readline()), 10_000):
            store.index(some(50, first=bulk * 50 + 1))
            store.ledger.write([LedgerDocument("p", 1, {"bulks": bulk + 1})])
            print(bulk + 1, flush=True)
    """
    answered = 0
    for kill in range(4):
        with run_python(code, tmp_path) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{answered}\n")
            process.stdin.flush()
            for _ in range(3 + 5 * kill):
                answered = int(process.stdout.readline())
            process.kill()
            answered = max([answered, *map(int, process.stdout.read().split())])
        with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
            total = store.count(parse("summary:event")).number

            assert store.ledger.read(["p"])["p"].body["bulks"] in (answered, answered + 1)
            assert total in (answered * 50, answered * 50 + 50)
            assert total == store.count(parse("*")).number


# --- Elasticsearch ------------------------------------------------------------------------------------------------
@pytest.fixture(params=ELASTICSEARCH)
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Any, IndexNames]]:
    """A store, the server behind it, and what its indices are called there."""
    settings = settings_of(request.param, request, tmp_path, timeout_s=10)
    with closing(open_store(settings)) as store:
        yield store, request.getfixturevalue(request.param), IndexNames(settings.index_prefix)


def test_nobody_listening_is_store_down() -> None:
    """A refused connection says where, and why, without the credentials of the URL."""
    with closing(open_store(StoreSettings(url="http://user:secret@127.0.0.1:9,http://127.0.0.1:10"))) as store:
        error = problem_of(lambda: store.index(some(1)))

    assert error.problem.code == "store_down"
    assert "http://127.0.0.1:9,http://127.0.0.1:10" in error.detail
    assert "Connection refused" in error.detail
    assert "secret" not in str(error)


def test_one_living_address_of_several_is_enough(remote: tuple[Store, Any], tmp_path: Path) -> None:
    """A dead node among several costs nothing but a try."""
    _, server, names = remote
    settings = StoreSettings(url=f"http://127.0.0.1:9,{server.url}", index_prefix=names.prefix)
    with closing(open_store(settings)) as store:
        assert store.index(some(3)) == [Item(Written.CREATED)] * 3
        assert len(found(store)) == 3


def test_user_and_password_in_the_url_are_percent_decoded() -> None:
    """What had to be encoded to stand in a URL is decoded before it is sent."""
    sent: list[str | None] = []

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_error(503)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://m%40e:p%2Fa%3As%25s@127.0.0.1:{server.server_port}"
        with closing(open_store(StoreSettings(url=url))) as store:
            problem_of(store.check)
        server.shutdown()

    assert base64.b64decode((sent[0] or "").removeprefix("Basic ")) == b"m@e:p/a:s%s"


NOTHING = (200, b"{}", True)


class Standin(BaseHTTPRequestHandler):
    """Answers as Elasticsearch, until it is told what stands before it, or its index, has to say."""

    answers: tuple[int, bytes, bool] | None = None

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer(*(type(self).answers or NOTHING))

    def do_GET(self) -> None:
        answers = type(self).answers
        # An answer of its own is one to what is written.
        self._answer(*(answers if answers and not answers[2] else NOTHING))

    def _answer(self, status: int, body: bytes, is_own: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_own else "text/html")
        if is_own:
            self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store on a server that gives ``Standin.answers``; it has been reached before."""
    monkeypatch.setattr(Standin, "answers", None)
    with HTTPServer(("127.0.0.1", 0), Standin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with closing(open_store(StoreSettings(url=f"http://127.0.0.1:{server.server_port}", timeout_s=5))) as store:
            store.prepare()
            yield store
        server.shutdown()


@pytest.mark.parametrize("status", [200, 302, 408])
def test_a_page_of_what_stands_before_the_store_is_no_answer(
    standin: Store, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A balancer that says sorry is a store that is away for now: nothing is taken for written, and nobody dies."""
    monkeypatch.setattr(Standin, "answers", (status, b"<html>We will be back soon.</html>", False))
    ledger = standin.ledger
    actions: list[Callable[[], object]] = [
        lambda: standin.index(some(1)),
        lambda: ledger.write([LedgerDocument("a", 1, {"n": 1})]),
        lambda: ledger.read(["a"]),
        lambda: ledger.claim("a", "me"),
        standin.check,
    ]
    for action in actions:
        assert problem_of(action).problem.code == "store_down"


def test_what_a_pipeline_drops_is_not_indexed(standin: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers 200 then, and not 201: the event is a dead letter that says so."""
    answers = b'{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":200}}]}'
    monkeypatch.setattr(Standin, "answers", (200, answers, True))
    created, dropped = standin.index(some(2))

    assert created == Item(Written.CREATED)
    assert (dropped.written, dropped.error) == (Written.REFUSED, "an ingest pipeline of the index drops it")


@pytest.mark.parametrize("url", ["http://", "http://host:port", "https://h:1,ftp://h", "http://[::1", "http:/u:x@h"])
def test_unreadable_url_is_a_bad_setting(url: str) -> None:
    """What is no URL is said when the store is opened."""
    assert problem_of(lambda: open_store(StoreSettings(url=url))).problem.code == "setting_bad"


def test_missing_ca_file_is_a_bad_setting(tmp_path: Path) -> None:
    """A CA file that is not there, or holds no certificate, is named."""
    (tmp_path / "empty.pem").write_text("")
    for name in ("none.pem", "empty.pem"):
        settings = StoreSettings(url="https://127.0.0.1:9200", ca_file=tmp_path / name)
        error = problem_of(lambda settings=settings: open_store(settings))

        assert (error.problem.code, error.numbers["name"]) == ("setting_bad", "store.ca_file")


def test_a_server_that_was_replaced_by_an_empty_one_is_made_ready_again(
    remote: tuple[Store, Any, IndexNames], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without our templates an index would get guessed mappings: its events are not found, and no audit reads it."""
    store, server, names = remote
    monkeypatch.setattr("logweir.store.elasticsearch.connection._TEMPLATES_KNOWN_S", 0)
    store.index(some(1))
    store.documents.put(NOTES, "a", {"name": "Before"}, version=None)
    for pattern in (names.days, f"{names.prefix}logweir-*"):
        for index in server.request("GET", f"/{pattern}"):
            server.request("DELETE", f"/{index}")
    server.request("DELETE", f"/_index_template/{names.templates}")
    store.index(some(2))
    store.ledger.write([LedgerDocument("a", 1, {"n": 1})])
    store.documents.put(NOTES, "a", {"name": "Since"}, version=None)
    store.refresh()

    assert len(found(store)) == 2
    assert [document.id for document in store.ledger.scan("")] == ["a"]
    assert store.documents.search(NOTES, parse("name:since", NOTES.by_name), size=1).total == 1


@pytest.mark.parametrize("block", ["index.blocks.read_only_allow_delete", "index.blocks.write"])
def test_blocked_index_is_tried_again(remote: tuple[Store, Any], block: str) -> None:
    """A full disk or an operator's block is not the documents' fault: AGAIN, and later it works."""
    store, server, names = remote
    store.index(some(1))
    store.documents.put(NOTES, "a", {"name": "a"}, version=None)
    server.request("PUT", f"/{names.of_day('20260131')}/_settings", {block: True})
    blocked = store.index(some(2))
    server.request("PUT", f"/{names.of_day('20260131')}/_settings", {block: None})

    for index in (names.ledger, names.of_documents(NOTES)):
        server.request("PUT", f"/{index}/_settings", {block: True})
    errors = [
        problem_of(lambda: store.ledger.claim("a", "me")),
        problem_of(lambda: store.documents.put(NOTES, "b", {"name": "b"}, version=None)),
    ]

    assert {error.problem.code for error in errors} == {"store_down"}
    assert [item.written for item in blocked][1] is Written.AGAIN
    assert blocked[1].error
    assert store.index(some(2))[1] == Item(Written.CREATED)


def test_a_closed_ledger_is_not_an_empty_one(remote: tuple[Store, Any, IndexNames]) -> None:
    """Who reads it while it is closed would find that nothing was ever accepted."""
    store, server, names = remote
    absent = list(store.ledger.scan(""))
    store.ledger.write([LedgerDocument("a", 1, {"n": 1})])
    server.request("POST", f"/{names.ledger}/_close")
    error = problem_of(lambda: list(store.ledger.scan("")))
    server.request("POST", f"/{names.ledger}/_open")

    assert absent == []
    assert error.problem.code in ("store_down", "store_refuses")
    assert [document.id for document in store.ledger.scan("")] == ["a"]


def test_closed_index_is_tried_again(remote: tuple[Store, Any, IndexNames]) -> None:
    """A closed day is not the documents' fault either, and a search leaves it out."""
    store, server, names = remote
    store.index(some(1))
    server.request("POST", f"/{names.of_day('20260131')}/_close")
    closed = store.index(some(2))

    assert {item.written for item in closed} == {Written.AGAIN}
    assert found(store) == []
    server.request("POST", f"/{names.of_day('20260131')}/_open")
    assert store.index(some(2))[1] == Item(Written.CREATED)


@pytest.mark.parametrize("kind", ELASTICSEARCH)
def test_cluster_without_room_for_an_index_is_tried_again(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The limit of shards, 1,000 on a node, is the cluster's fault, not a reason for dead letters."""
    settings = settings_of(kind, request, tmp_path, shards=1024)
    with closing(open_store(settings)) as store:
        (item,) = store.index(some(1))

    assert item.written is Written.AGAIN
    assert "maximum normal shards" in item.error


def test_cluster_that_makes_no_indices_by_itself_is_served(remote: tuple[Store, Any, IndexNames]) -> None:
    """With action.auto_create_index off, the day's index is made for the next try."""
    store, server, names = remote
    server.request("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": f"-{names.prefix}*,+*"}})
    try:
        assert [item.written for item in store.index(some(2))] == [Written.AGAIN] * 2
        assert store.index(some(2)) == [Item(Written.CREATED)] * 2
        assert found(store, "summary:event") == ["e2", "e1"]
        store.ledger.claim("p", "one")
        store.dead_letters.put([letter("a", 1)])
    finally:
        server.request("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": None}})


def test_bulk_larger_than_the_server_takes_is_halved(remote: tuple[Store, Any, IndexNames]) -> None:
    """A bulk above http.max_content_length (100 MB) arrives in parts; one event above it is refused alone."""
    store, _, _ = remote
    huge = document("huge", {"details": {"x": "y" * 105_000_000}}, number=9)
    items = store.index([*some(2), huge, *some(2, first=3)])

    assert [item.written for item in items] == [Written.CREATED] * 2 + [Written.REFUSED] + [Written.CREATED] * 2
    assert "413" in items[2].error
    assert len(found(store)) == 4


def test_index_has_our_mapping_alias_and_settings(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A daily index comes from the template: fixed mapping, alias, ECS names, shards and replicas as set."""
    settings = settings_of("elasticsearch", request, tmp_path, shards=2, replicas=1, refresh_interval_s=2.5)
    server = request.getfixturevalue("elasticsearch")
    names = IndexNames(settings.index_prefix)
    day = names.of_day("20260131")
    with closing(open_store(settings)) as store:
        store.index([document("e1", {"hostname": "web1", "unknown": {"field": 1}}, number=1)])
        index = server.request("GET", f"/{day}")[day]
        properties = index["mappings"]["properties"]

        assert index["aliases"] == {names.events: {}}
        assert index["settings"]["index"]["number_of_shards"] == "2"
        assert index["settings"]["index"]["number_of_replicas"] == "1"
        assert index["settings"]["index"]["refresh_interval"] == "2500ms"
        assert index["mappings"]["dynamic"] == "false"
        assert "unknown" not in properties
        assert properties["details"] == {"type": "flattened", "depth_limit": 40, "ignore_above": 8000}
        assert properties["host"]["properties"]["name"] == {"type": "alias", "path": "hostname"}
        assert properties["@timestamp"] == {"type": "alias", "path": "timestamp"}
        store.refresh()
        found_by_kibana = server.request("GET", f"/{names.events}/_search?q=host.name:WEB1")

        assert found_by_kibana["hits"]["total"]["value"] == 1


@pytest.mark.parametrize("kind", ELASTICSEARCH)
def test_installations_with_other_prefixes_share_a_cluster(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Neither finds, claims, counts or deletes what is the other's, though one prefix begins with the other."""
    ours = settings_of(kind, request, tmp_path)
    theirs = ours.model_copy(update={"index_prefix": f"{ours.index_prefix}b-"})
    with closing(open_store(ours)) as one, closing(open_store(theirs)) as other:
        for store, count in ((one, 2), (other, 3)):
            store.index(some(count))
            store.ledger.write([LedgerDocument("p", count, {"n": count})])
            store.dead_letters.put([letter(f"l{count}", 1)])
        removed = one.delete_expired("20270101")
        one.dead_letters.delete(LetterFilter())

        assert removed == ["20260131"]
        assert (found(one), found(other)) == ([], ["e3", "e2", "e1"])
        assert [[document.body for document in store.ledger.scan("")] for store in (one, other)] == [
            [{"n": 2}],
            [{"n": 3}],
        ]
        assert [held.letters for held in other.dead_letters.count().values()] == [1]


def test_refused_ledger_write_names_the_store(remote: tuple[Store, Any, IndexNames]) -> None:
    """A ledger that cannot be written is an error, never silence."""
    store, server, names = remote
    store.ledger.claim("p", "one")
    server.request("PUT", f"/{names.ledger}/_settings", {"index.blocks.write": True})
    error = problem_of(lambda: store.ledger.write([LedgerDocument("p", 1, {})]))
    server.request("PUT", f"/{names.ledger}/_settings", {"index.blocks.write": None})

    assert error.problem.code == "store_down"
    assert "block" in error.detail
