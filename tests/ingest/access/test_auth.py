"""Keys at a running door: who is let in on which terms, changes without a refusal, no key where none belongs."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logweir.cli import main
from logweir.clock import iso_seconds, now_us
from logweir.config import load
from logweir.errors import KEYS_UNREADABLE, LogweirError
from logweir.keys.file import KeysFile, lock_path, read_keys
from logweir.keys.terms import Terms
from logweir.keys.usage import read_usage
from logweir.process.files import locked
from logweir.record import Batch, Kind
from logweir_ingest.access.auth import Authenticator, Keys
from logweir_ingest.access.proxies import SourceAddress
from logweir_workers.decode import event_of
from logweir_workers.normalise.fields import Context, normalise
from tests.ingest.helpers import INTERFACES, Answer, Door, connected_to_each, is_ready, of_kind, running
from tests.services.kafka import Kafka
from tests.waiting import until

FROM_ANYWHERE = {
    "LOGWEIR_INGEST_TRUSTED_PROXIES": "127.0.0.0/8",
    "LOGWEIR_INGEST_FAILED_ATTEMPTS_PER_MINUTE_MAX": "1000000",
}


@pytest.fixture(scope="module", params=INTERFACES)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"), interface=request.param, environment=FROM_ANYWHERE)) as door:
        until(lambda: is_ready(door))
        yield door


one_interface = pytest.mark.parametrize("door", ["asgi"], indirect=True)
"""For what takes seconds and is the same code behind both interfaces."""


def answered(door: Door, key: str, connections: list[http.client.HTTPConnection]) -> set[int]:
    """What each of these connections answers who has that key."""
    headers = {"X-Log-Key": key}
    return {door.request("POST", "/events", b"{}", headers, connection=connection).status for connection in connections}


def file_of(door: Door) -> KeysFile:
    return KeysFile(door.data_dir / "keys.toml")


def key_on(door: Door, name: str, *, expires: str | None = None, **terms: Any) -> str:
    """A key that the door knows already."""
    key = file_of(door).add(name, terms=Terms.of(terms), expires=expires)
    until(lambda: send(door, key).json.get("code") != "key_unknown")
    return key


def send(door: Door, key: str, *events: dict[str, Any], sent_from: str = "") -> Answer:
    headers = {"X-Log-Key": key} | ({"X-Forwarded-For": sent_from} if sent_from else {})
    return door.request("POST", "/events", json.dumps(events), headers)


def rejected(door: Door, reason: str) -> float:
    return door.metric(f'logweir_ingest_rejected_requests_total{{reason="{reason}"}}')


def batches_of(door: Door, key_name: str) -> list[Batch]:
    records = of_kind(door.records(), Kind.DATA)
    return [batch for _, one in records for batch in one.batches if batch.key == key_name]


# --- terms ----------------------------------------------------------------------------------------------------------
def test_a_key_is_let_in_from_its_networks_only(door: Door) -> None:
    """403 from elsewhere; the answer does not say why, the log and the metrics do."""
    key = key_on(door, "office", networks=["10.1.0.0/16", "2001:db8::/32", "192.0.2.7"])
    before = rejected(door, "key_wrong_network")
    good = [
        send(door, key, {}, sent_from=one).status
        for one in ("10.1.255.1", "2001:db8:1::1", "::ffff:10.1.0.1", "192.0.2.7")
    ]
    bad = [send(door, key, {}, sent_from=one) for one in ("10.2.0.1", "2001:db9::1", "192.0.2.8")]

    assert good == [202] * 4
    assert [answer.status for answer in bad] == [403] * 3
    assert bad[0].json["code"] == "key_refused"
    assert b"network" not in bad[0].body and b"office" not in bad[0].body
    assert rejected(door, "key_wrong_network") == before + 3
    assert door.log.count("The key 'office'") == 1 and "refused to " in door.log
    assert {batch.source_address for batch in batches_of(door, "office")} == {
        "10.1.255.1",
        "2001:db8:1::1",
        "10.1.0.1",
        "192.0.2.7",
    }


@one_interface
def test_a_key_ends_when_it_expires(door: Door) -> None:
    """From one moment to the next, without a change of the file; 403, as above."""
    key = key_on(door, "guest")
    assert send(door, key, {}).status == 202
    file_of(door).change("guest", {"expires": iso_seconds(now_us() + 3_000_000)})
    until(lambda: send(door, key, {}).status == 403)
    answer = send(door, key, {})
    expired_us = read_keys(door.data_dir / "keys.toml")[-1].expires_us

    assert now_us() >= (expired_us or 0)
    assert answer.json["code"] == "key_refused" and b"expire" not in answer.body
    assert rejected(door, "key_expired") >= 2
    assert "The key 'guest'" in door.log and "it expired at" in door.log


def test_a_key_sends_its_categories_only(door: Door) -> None:
    """One event of another refuses the batch, by index and name; nothing of it is accepted."""
    key = key_on(door, "mailer", categories=["mail", "spam"])
    good = send(door, key, {"category": "mail"}, {"category": "SPAM"})
    other = send(door, key, {"category": "mail"}, {"category": "auth"})
    none = send(door, key, {"summary": "x"})

    assert good.status == 202
    assert (other.status, other.json["code"]) == (403, "category_refused")
    assert (other.json["event_index"], other.json["category"]) == (1, "auth")
    assert (none.status, none.json["code"], none.json["event_index"]) == (403, "category_missing", 0)
    assert rejected(door, "category_refused") == 1 and rejected(door, "category_missing") == 1
    assert [len(batch.events) for batch in batches_of(door, "mailer")] == [2]


@one_interface
def test_logweir_send_names_the_line_of_an_event_that_the_key_may_not_send(
    door: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands before it is accepted."""
    key = key_on(door, "lines", categories=["mail"])
    file = tmp_path / "events"
    file.write_text('{"category":"mail"}\n{"category":"mail"}\n{"category":"auth"}\n{"category":"mail"}\n')
    url = f"http://127.0.0.1:{door.port}/events"
    status = main(["send", "--url", url, "--key", key, str(file)])

    assert status == 2
    assert "Line 3: the event has the category 'auth'" in capsys.readouterr().err
    assert sum(len(batch.events) for batch in batches_of(door, "lines")) == 2


def test_stamped_fields_reach_the_store_s_form_of_events_that_do_not_say_them(door: Door) -> None:
    """The record carries them, the worker adds them; what an event says itself is stronger."""
    stamp = {"category": "mail", "hostname": "mx-1", "site": "north"}
    key = key_on(door, "stamper", categories=["mail", "spam"], stamp=stamp)
    assert send(door, key, {"summary": "a"}, {"summary": "b", "category": "spam", "site": "south"}).status == 202
    (batch,) = batches_of(door, "stamper")
    context = Context(batch.received_us, batch.key, stamp=batch.stamp)
    first, second = (normalise(event_of(raw), context) for raw in batch.events)

    assert batch.stamp == stamp
    assert batch.events[0] == b'{"summary": "a"}'
    assert (first["category"], first["hostname"], first["details"]) == ("mail", "mx-1", {"site": "north"})
    assert second["category"] == "spam" and second["details"]["site"] == "south"


def test_an_ipv4_address_is_one_however_it_is_written() -> None:
    """A door that listens on :: sees IPv4 senders as addresses of IPv6: networks and proxies are met all the same."""
    source = SourceAddress(("10.0.0.0/8",))

    assert source.of("::ffff:192.0.2.1", b"198.51.100.1") == "192.0.2.1"
    assert source.of("::ffff:10.0.0.1", b"198.51.100.1") == "198.51.100.1"
    assert source.of("::ffff:10.0.0.1", b"::ffff:198.51.100.1, ::ffff:a00:2") == "198.51.100.1"


def test_all_keys_of_a_name_share_its_quota(door: Door) -> None:
    """Else a second key would be a second quota."""
    first = key_on(door, "shared", events_per_second=1)
    second, _ = file_of(door).rotate("shared", grace_us=None)
    until(lambda: send(door, second).json.get("code") != "key_unknown")
    until(lambda: send(door, first, *[{}] * 30).status == 202)
    answers = [send(door, key, {}) for key in (second, first)]

    assert [answer.status for answer in answers] == [429, 429]
    assert all(25 <= int(answer.headers["retry-after"]) <= 30 for answer in answers)


def test_an_unreadable_body_that_is_kept_counts_for_the_quota(door: Door) -> None:
    """It goes through the queue, too; and a refused batch takes nothing."""
    key = key_on(door, "broken", bytes_per_second=1000, categories=["a"])
    for _ in range(3):
        assert send(door, key, {"category": "b" * 3000}).status == 403
    assert door.post(b"x" * 20_000, {"X-Log-Key": key}).status == 400
    answer = send(door, key, {"category": "a"})

    assert (answer.status, answer.json["code"], answer.json["resource"]) == (429, "quota_exceeded", "bytes")
    assert 17 <= int(answer.headers["retry-after"]) <= 20


def test_what_a_bulk_leaves_out_counts_for_the_quota(door: Door) -> None:
    """Each is kept, as a body is that cannot be read."""
    key = key_on(door, "large", events_per_second=1)
    bulk = b'{"create":{}}\n{"a":"%b"}\n' % (b"x" * 300_000) * 10
    headers = {"X-Log-Key": key, "User-Agent": "curl/8"}
    until(lambda: door.request("POST", "/_bulk", bulk, headers).json["errors"] is True)
    answer = send(door, key, {})

    assert (answer.status, answer.json["code"]) == (429, "quota_exceeded")
    assert int(answer.headers["retry-after"]) > 5


# --- changes --------------------------------------------------------------------------------------------------------
class Sender(threading.Thread):
    """Posts with whatever key it is told to, over and over, on connections that it keeps."""

    def __init__(self, door: Door, key: str) -> None:
        super().__init__()
        self.key = key
        self.statuses: list[tuple[str, int]] = []
        self._door = door
        self._ended = threading.Event()

    def run(self) -> None:
        with contextlib.closing(self._door.connection()) as connection:
            while not self._ended.is_set():
                key = self.key
                headers = {"X-Log-Key": key}
                answer = self._door.request("POST", "/events", b"{}", headers, connection=connection)
                self.statuses.append((key, answer.status))

    def end(self) -> None:
        self._ended.set()
        self.join(20)


@contextlib.contextmanager
def sending(door: Door, key: str, *, count: int) -> Iterator[list[Sender]]:
    senders = [Sender(door, key) for _ in range(count)]
    for sender in senders:
        sender.start()
    try:
        yield senders
    finally:
        for sender in senders:
            sender.end()


@contextlib.contextmanager
def restless(file: KeysFile) -> Iterator[None]:
    """Somebody else adds keys all the while."""
    ended = threading.Event()

    def add() -> None:
        while not ended.wait(0.2):
            file.add(f"another{time.monotonic_ns()}")

    adding = threading.Thread(target=add)
    adding.start()
    try:
        yield
    finally:
        ended.set()
        adding.join(20)


@pytest.mark.timeout(120)  # Three changes of the file.
@pytest.mark.parametrize("meanwhile", [contextlib.nullcontext, restless], ids=["alone", "while others change keys"])
def test_a_key_is_exchanged_under_load_without_one_refusal(door: Door, meanwhile: Any) -> None:
    """Rotate, go over one sender after the other, let the grace end, revoke: every request is answered 202."""
    with meanwhile(file_of(door)):
        exchange(door, f"busy-{meanwhile.__name__}")


@pytest.mark.timeout(120)  # Three changes of the file, each seen by both.
def test_a_key_is_exchanged_under_load_at_two_processes(kafka: Kafka, tmp_path: Path) -> None:
    """Each follows the file by itself."""
    environment = {"LOGWEIR_QUEUE_URL": f"kafka://{kafka.bootstrap}/events-{tmp_path.name}"}
    with running(Door(tmp_path, environment=environment | FROM_ANYWHERE), "--processes", "2") as door:
        connected_to_each(door, 2)
        with restless(file_of(door)):
            exchange(door, "busy", processes=2)


def exchange(door: Door, name: str, *, processes: int = 1) -> None:
    old = key_on(door, name, networks=["127.0.0.0/8"], stamp={"site": "north"}, events_per_second=1_000_000)
    each = connected_to_each(door, processes)
    until(lambda: answered(door, old, each) == {202})
    with sending(door, old, count=4) as senders:
        new, (before,) = file_of(door).rotate(name, grace_us=600_000_000)
        until(lambda: answered(door, new, each) == {202})
        for sender in senders:
            sender.key, posted = new, len(sender.statuses)
            # What it is at has the old key.
            until(lambda: len(sender.statuses) > posted + 1)  # noqa: B023
        # The end of the grace.
        file_of(door).change(name, {"expires": "2026-01-01T00:00:00Z"}, id=before.id)
        until(lambda: answered(door, old, each) == {403})
        file_of(door).revoke(name, id=before.id)
        until(lambda: answered(door, old, each) == {401})

    answers = [answer for sender in senders for answer in sender.statuses]
    assert {status for _, status in answers} == {202}
    assert len(answers) > 100 and {key for key, _ in answers} == {old, new}


@one_interface
def test_hand_edits_in_several_steps_refuse_nobody(door: Door) -> None:
    """An editor's empty file, half a file, no file for a while: the keys stay as they were until it is whole."""
    path = door.data_dir / "keys.toml"
    key = key_on(door, "edited")
    text = path.read_text()
    with sending(door, key, count=1) as (sender,):
        for stage in ("", text[: len(text) // 2]):
            path.write_text(stage)
            time.sleep(0.1)
        # What is good in itself but not whole is there for a moment only: who leaves it there has asked for it.
        path.write_text(text[: text.rindex("[[key]]")])
        path.unlink()
        until(lambda: f"{path} is gone" in door.log)
        path.write_text("no toml")
        until(lambda: "Expected '='" in door.log)
        path.write_text(text + "\n# by hand\n")
        another = key_on(door, "afterwards")

    assert {status for _, status in sender.statuses} == {202}
    assert send(door, another, {}).status == 202
    assert door.log.count(f"{path} is gone. The keys stay as they were.") == 1


def test_a_file_counts_when_two_looks_find_it_the_same(tmp_path: Path) -> None:
    """What is good in itself but not whole, as an editor leaves it between two steps, is not in force at once."""
    path = tmp_path / "keys.toml"
    KeysFile(path).add("first")
    key = KeysFile(path).add("second").encode()
    keys, whole = Keys(path), path.read_text()
    path.write_text(whole[: whole.rindex("[[key]]")])
    keys.check()
    after_one = keys.find(key)
    path.write_text(whole + "\n# by hand\n")
    keys.check()
    keys.check()
    when_whole = keys.find(key)
    path.write_text(whole[: whole.rindex("[[key]]")])
    keys.check()
    keys.check()

    assert after_one is not None and when_whole is not None
    assert keys.find(key) is None


@pytest.fixture
def following(tmp_path: Path) -> Iterator[tuple[Keys, KeysFile]]:
    """The keys of a file that are followed as a door does it."""
    file = KeysFile(tmp_path / "keys.toml")
    file.add("first")
    keys = Keys(tmp_path / "keys.toml")
    keys.start()
    yield keys, file
    keys.stop()


def test_a_file_that_goes_on_changing_keeps_no_key_alive(following: tuple[Keys, KeysFile]) -> None:
    """Others are added all the while: a revoked key ends, and a new one begins all the same."""
    keys, file = following
    old, new = file.add("old").encode(), b""
    until(lambda: keys.find(old) is not None)
    file.revoke("old")
    new = file.add("new").encode()

    def is_in_force() -> bool:
        file.add(f"another{time.monotonic_ns()}")
        time.sleep(0.2)
        return keys.find(old) is None and keys.find(new) is not None

    until(is_in_force)


def test_who_holds_the_lock_keeps_no_key_alive(following: tuple[Keys, KeysFile], tmp_path: Path) -> None:
    """An edit by hand counts, the end waits for nobody, and uses are noted when the lock is free."""
    keys, file = following
    held, ended = file.add("held").encode(), file.add("ended").encode()
    until(lambda: keys.find(ended) is not None)
    path = tmp_path / "keys.toml"
    with locked(lock_path(path)):
        used = keys.find(held)
        assert used is not None
        used.is_used = True
        keys.note()
        path.write_text(path.read_text() + "revoked = 2026-01-01T00:00:00Z\n")
        until(lambda: keys.find(ended) is None)
        started_s = time.monotonic()
        keys.stop()
        took_s = time.monotonic() - started_s
    held_up = read_usage(path)
    keys.note()

    assert took_s < 10
    assert held_up == {}
    assert list(read_usage(path)) == [used.id]


@one_interface
def test_the_last_use_of_a_key_is_noted(door: Door) -> None:
    """Beside the file, within seconds; a refusal is no use."""
    used = key_on(door, "used")
    key_on(door, "tried", networks=["192.0.2.0/24"])
    path = door.data_dir / "keys.toml"
    before_us = now_us()
    text = path.read_text()
    assert send(door, used, {}).status == 202
    ids = {key.name: key.id for key in read_keys(path)}
    until(lambda: read_usage(path).get(ids["used"], "") >= iso_seconds(before_us))

    assert ids["tried"] not in read_usage(path)
    assert path.read_text() == text


def test_a_stop_notes_what_was_used_last(tmp_path: Path) -> None:
    """Not only what is some seconds old."""
    with running(Door(tmp_path)) as door:
        until(lambda: is_ready(door))
        assert door.post(b"{}").status == 202
        assert door.stop() == 0

    assert list(read_usage(tmp_path / "keys.toml")) == [read_keys(tmp_path / "keys.toml")[0].id]


def test_a_door_that_never_read_its_keys_tells_nobody_that_he_is_a_stranger(tmp_path: Path) -> None:
    """A process that starts while the file is broken: 503, so that senders keep their events; then it recovers."""
    path = tmp_path / "keys.toml"
    key = KeysFile(path).add("web")
    text = path.read_text()
    path.write_text(text + "x")
    settings = load(overrides={"data_dir": tmp_path}, environment={})
    reader = Authenticator.of(settings)
    with pytest.raises(LogweirError) as caught:
        reader.authenticate(None, {b"x-log-key": key.encode()}, "127.0.0.1")
    assert caught.value.problem is KEYS_UNREADABLE

    reader.start()
    try:
        path.write_text(text)
        until(lambda: _name_of(reader, key) == "web")
    finally:
        reader.stop()


def _name_of(reader: Authenticator, key: str) -> str | None:
    try:
        return reader.authenticate(None, {b"x-log-key": key.encode()}, "127.0.0.1").name
    except LogweirError:
        return None


def test_a_folder_that_takes_no_notes_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Doors may have no right to write there: keys work all the same."""
    path = tmp_path / "keys.toml"
    key = KeysFile(path).add("web")
    keys = Keys(path)
    (tmp_path / "keys.toml.lock").unlink()
    (tmp_path / "keys.toml.lock").mkdir()
    for _ in range(3):
        known = keys.find(key.encode())
        assert known is not None
        known.is_used = True
        keys.note()
    said = caplog.text.count("cannot be noted")
    (tmp_path / "keys.toml.lock").rmdir()
    keys.note()

    assert said == 1
    assert len(read_usage(path)) == 1


# --- keys in wrong places -------------------------------------------------------------------------------------------
def raw(door: Door, request: bytes) -> bytes:
    """Whatever is answered to these bytes."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.settimeout(3)
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def test_no_key_shows_up_in_an_answer_a_log_line_or_a_metric(door: Door) -> None:
    """Sent in every wrong place there is, whole and cut off."""
    key = key_on(door, "spread")
    good = {"X-Log-Key": door.key}
    answers: list[bytes] = []
    for path in (f"/{key}", f"/events/{key}", f"/receipts/{key}", f"/events?key={key}", "/" + "x" * 180 + key):
        for method in ("GET", "POST", "PUT"):
            answers.append(door.request(method, path, headers={"Content-Length": "0"} | good).body)
    answers.append(door.request(key.replace("_", "-"), "/events", headers=good).body)
    headers = (
        "Content-Encoding",
        "Content-Type",
        "Log-Emitter",
        "Log-Epoch",
        "Log-Seq",
        "Log-High",
        "Log-Prev",
        "Log-Dropped",
        "Idempotency-Key",
        "X-Forwarded-For",
        "Expect",
        "User-Agent",
        key,
    )
    for header in headers:
        answers.append(door.post(b"{}", {header: key}).body)
        answers.append(door.post(b"{}", {"Log-Epoch": "e", "Log-Seq": "1", header: f"x {key} " * 3}).body)
    for body in (key, f'{{"a":"{key}" x', f'["{key}"]', f'{{"{key}":1}}{key}', f'{{"category":"{key}"}}'):
        answers.append(door.post(body).body)
    for value in (f"{key}x", f"{key},{key}", f"{key} {key}", key[:40]):
        answers.append(door.request("POST", "/events", b"{}", {"X-Log-Key": value}).body)
    answers.append(door.request("POST", "/events", b"{}", {"Authorization": f"Basic {key}"}).body)
    for request in (
        f"{key}\r\n\r\n",
        f"GET {key}\r\n\r\n",
        f"GET / {key}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{key}\r\n\r\n",
        f"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: {key}\r\n\r\n",
        f"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {key}\r\n\r\n",
    ):
        answers.append(raw(door, request.encode()))
    file_of(door).revoke("spread")
    until(lambda: send(door, key, {}).status == 401)
    metrics = door.request("GET", "/metrics").body
    emitters = {batch.emitter for _, one in of_kind(door.records(), Kind.DATA) for batch in one.batches}

    secret = key[3:23].encode()
    assert all(secret not in answer for answer in answers), [answer for answer in answers if secret in answer]
    assert secret.decode() not in door.log
    assert secret not in metrics
    assert not any(secret.decode() in (emitter or "") for emitter in emitters)
    assert any(b"lw_***" in answer for answer in answers)
    assert "Traceback" not in door.log


@one_interface
def test_what_is_kept_on_disk_holds_no_key(door: Door) -> None:
    """Of all that the door has written but what senders themselves put into their events and bodies."""
    key = key_on(door, "written", networks=["192.0.2.0/24"], events_per_second=1)
    for sent_from in ("192.0.2.1", "127.0.0.1"):
        for _ in range(3):
            send(door, key, {"summary": "x"}, sent_from=sent_from)
    until(lambda: bool(read_usage(door.data_dir / "keys.toml")))
    for path in door.data_dir.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path


@one_interface
def test_a_connection_outlives_a_revoked_key(door: Door) -> None:
    """The next request on it is a stranger's; with another key it goes on."""
    key = key_on(door, "ended")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)) as connection:
        first = door.request("POST", "/events", b"{}", {"X-Log-Key": key}, connection=connection).status
        file_of(door).revoke("ended")
        until(lambda: send(door, key, {}).status == 401)
        second = door.request("POST", "/events", b"{}", {"X-Log-Key": key}, connection=connection).status
        third = door.post(b"{}", connection=connection).status

    assert (first, second, third) == (202, 401, 202)


def test_a_door_that_lets_nobody_in_is_not_ready(tmp_path: Path) -> None:
    """Without a live key each event is refused; one more is found out as its first use is."""
    keys = KeysFile(tmp_path / "keys.toml")
    keys.add("gone", expires=iso_seconds(now_us() - 1_000_000))
    with running(Door(tmp_path, key="none")) as door:
        door.wait_for("no live key")
        unready = door.request("GET", "/readyz")
        keys.add("live")
        until(lambda: is_ready(door))
        keys.revoke("live")
        until(lambda: not is_ready(door))
        health = door.request("GET", "/healthz")

    assert (unready.status, unready.json["status"]) == (503, "not ready") and "no live key" in unready.json["reason"]
    assert health.status == 200


def test_keys_that_cannot_be_read_are_why_a_door_is_not_ready(tmp_path: Path) -> None:
    """Nobody can be told from a stranger: that is ours to mend."""
    settings = load(environment={}, overrides={"data_dir": tmp_path})
    (tmp_path / "keys.toml").mkdir()

    assert Authenticator.of(settings).unready() == "the keys cannot be read"
