"""The front, deploy/nginx/nginx.conf, run by a real nginx before two real doors.

Of the file only places are changed: ports, folders, and the name server, for which a small one of this test answers.
"""

import contextlib
import http.client
import json
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from logweir.config import Settings, load
from logweir.errors import INGEST_AWAY, LogweirError
from logweir.queue import open_queue
from logweir.record import decode
from tests.deploy.compose import ROOT
from tests.services.process import ServerProcess, choose_ports

DOORS = ("127.0.0.1", "127.0.0.2")
BODY_SIZE_BYTES_MAX = Settings().ingest.body_size_bytes_max


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


@dataclass
class Front:
    """nginx, its ports, and the doors behind it, each with an embedded queue of its own."""

    folder: Path
    tls_port: int
    plain_port: int
    doors: dict[str, ServerProcess] = field(default_factory=dict)
    door_port: int = 0
    key: str = ""

    def post(self, body: Any, *, tls: bool = False, source: str = "127.0.0.1", **headers: str) -> Answer:
        """POST to /events; a key of ours unless another is given. `body`: bytes, or chunks of them."""
        given = {"X-Log-Key": self.key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.request("POST", "/events", body, given, tls=tls, source=source)

    def request(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], *, tls: bool = False, source: str = ""
    ) -> Answer:
        connection: http.client.HTTPConnection
        if tls:
            context = ssl.create_default_context(cafile=str(self.folder / "tls/tls.crt"))
            connection = http.client.HTTPSConnection("localhost", self.tls_port, context=context, timeout=30)
        else:
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.plain_port, timeout=30, source_address=(source, 0) if source else None
            )
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers), encode_chunked=not isinstance(body, bytes | None))
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())

    def start_doors(self) -> None:
        for door in self.doors.values():
            if not door.running():
                self._start_door(door)

    def _start_door(self, door: ServerProcess) -> None:
        # nginx connects from 127.0.0.1, to either door.
        environment = {"LOGWEIR_INGEST_TRUSTED_PROXIES": "127.0.0.1/32", "LOGWEIR_INGEST_PROCESSES": "1"}
        words = ["ingest", "--address", door.name, "--port", str(self.door_port)]
        door.launch([sys.executable, "-m", "logweir.cli", *words, *_data_dir(door)], environment=environment)
        door.wait_until(lambda: _answers(door.name, self.door_port), wait_s_max=60)

    def accepted(self, address: str) -> float:
        """Return how many events a door has accepted since it started, by its own metrics."""
        connection = http.client.HTTPConnection(address, self.door_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        lines = [line for line in text.splitlines() if line.startswith("logweir_ingest_accepted_events_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def sources(self, summary: str) -> list[str]:
        """Return the source address of each queued event that has these words in it."""
        return [source for door in self.doors.values() for source in _sources(door.directory, summary)]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    tls_port, plain_port, door_port, name_port = choose_ports(4)
    front = Front(folder, tls_port, plain_port, door_port=door_port)
    _make_certificate(folder)
    for address in DOORS:
        (folder / address).mkdir()
        front.doors[address] = ServerProcess(address, folder / address)
    front.key = _add_key(front.doors.values(), folder)
    with _name_server(name_port, {"ingest": DOORS}):
        nginx = ServerProcess("front", folder)
        try:
            front.start_doors()
            # One process without a master: it dies with us, where a worker would outlive a master that is killed.
            nginx.launch(["nginx", "-c", str(_configuration(front, name_port)), "-g", "master_process off;"])
            nginx.wait_until(lambda: _answers("127.0.0.1", plain_port), wait_s_max=20)
            yield front
        finally:
            for process in (nginx, *front.doors.values()):
                process.stop()


@pytest.fixture
def front(started: Front) -> Front:
    """Give the front with both of its doors open, whatever the test before has done."""
    started.start_doors()
    return started


def test_event_posted_over_tls_is_accepted(front: Front) -> None:
    """The certificate that the first start made is good for localhost, and the door's answer comes back whole."""
    answer = front.post(b'{"summary":"over tls"}', tls=True)

    assert answer.status == 202
    assert answer.json["accepted"] == 1


def test_event_posted_in_the_clear_is_accepted(front: Front) -> None:
    """The same without TLS on the other port."""
    assert front.post(b'{"summary":"in the clear"}').status == 202


def test_requests_reach_every_door(front: Front) -> None:
    """The name stands for two addresses: both of them get a share."""
    # nginx draws one for each request: that 40 go to one of the two is one chance in 10^11.
    before = {address: front.accepted(address) for address in DOORS}

    for _ in range(40):
        assert front.post(b'{"summary":"spread"}').status == 202

    gained = [front.accepted(address) - before[address] for address in DOORS]
    assert sum(gained) == 40
    assert min(gained) >= 1


def test_dead_door_costs_no_event(front: Front) -> None:
    """With one of two doors killed, every request is still answered 202 by the other."""
    front.doors[DOORS[0]].kill()

    answers = [front.post(b'{"summary":"one door"}').status for _ in range(20)]

    assert answers == [202] * 20


def test_no_door_is_a_problem_to_try_again(front: Front) -> None:
    """With both doors killed the sender gets the problem of errors.py as 503 with Retry-After, and no page of nginx."""
    for door in front.doors.values():
        door.kill()

    answer = front.post(b'{"summary":"no door"}', tls=True)

    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json == LogweirError(INGEST_AWAY).as_dict()


def test_body_as_large_as_the_door_takes_passes(front: Front) -> None:
    """A body of exactly the door's limit is accepted through the front; the front has no smaller limit of its own."""
    body = _events(BODY_SIZE_BYTES_MAX)

    answer = front.post(body, tls=True)

    assert len(body) == BODY_SIZE_BYTES_MAX
    assert answer.status == 202, answer.body


def test_larger_body_gets_the_doors_own_answer(front: Front) -> None:
    """One byte more is the door's 413 with its advice, not nginx's page."""
    answer = front.post(_events(BODY_SIZE_BYTES_MAX + 1))

    assert answer.status == 413
    assert answer.json["code"] == "body_too_large"


def test_chunked_body_passes(front: Front) -> None:
    """A sender that does not know its length beforehand is served as well, and by the door's limit too."""
    answer = front.post(iter([b'{"summary":', b'"in pieces"}']))
    too_large = front.post(iter([b" " * 1024 * 1024] * 11))

    assert answer.status == 202
    assert too_large.status == 413


def test_sender_that_waits_for_100_continue_is_let_go_on(front: Front) -> None:
    """curl asks before it sends a large body: the front says go on, and the answer follows."""
    body = b'{"summary":"expected"}'
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {front.key}\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", front.plain_port), timeout=10) as connection:
        connection.sendall((head + "Expect: 100-continue\r\n\r\n").encode())
        first = connection.recv(4096)
        connection.sendall(body)
        second = connection.recv(4096)

    assert first.startswith(b"HTTP/1.1 100 ")
    assert second.startswith(b"HTTP/1.1 202 ")


def test_body_without_a_key_is_refused_before_it_is_sent(front: Front) -> None:
    """The front does not collect bodies: the door refuses by the headers alone, while the body is still to come."""
    with socket.create_connection(("127.0.0.1", front.plain_port), timeout=10) as connection:
        connection.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: wrong\r\nContent-Length: 1000000\r\n\r\n{")
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 401 ")


def test_event_has_the_senders_address_and_not_one_it_claims(front: Front) -> None:
    """The door believes the front's X-Forwarded-For, and the front passes on none that a sender wrote itself."""
    front.post(b'{"summary":"where from"}', source="127.0.0.9", X_Forwarded_For="203.0.113.5")

    assert front.sources("where from") == ["127.0.0.9"]


def test_metrics_are_not_for_senders(front: Front) -> None:
    """/metrics is there for who asks a door itself; through the front it is not."""
    assert front.request("GET", "/metrics", None, {}).status == 404
    assert front.request("GET", "/readyz", None, {}).status == 200


def _events(size_bytes: int) -> bytes:
    """Return NDJSON of exactly that size, in events of 100 KB."""
    line = json.dumps({"summary": "large", "filling": "x" * 100_000}).encode() + b"\n"
    whole, rest = divmod(size_bytes, len(line))
    return line * whole + b" " * rest


def _configuration(front: Front, name_port: int) -> Path:
    text = (ROOT / "deploy/nginx/nginx.conf").read_text(encoding="utf-8")
    for written, meant in {
        "/tmp/": f"{front.folder}/",
        "/etc/logweir/tls": f"{front.folder}/tls",
        "listen 8080;": f"listen 127.0.0.1:{front.plain_port};",
        "listen 8443 ssl;": f"listen 127.0.0.1:{front.tls_port} ssl;",
        "resolver 127.0.0.11": f"resolver 127.0.0.1:{name_port}",
        "ingest:8080": f"ingest:{front.door_port}",
        "worker_processes auto;": "worker_processes 1;",
    }.items():
        assert written in text, written
        text = text.replace(written, meant)
    file = front.folder / "nginx.conf"
    file.write_text(text)
    return file


def _make_certificate(folder: Path) -> None:
    (folder / "tls").mkdir()
    script = str(ROOT / "deploy/nginx/certificate.sh")
    subprocess.run(["sh", script, str(folder / "tls"), "localhost"], check=True, capture_output=True, timeout=60)


def _add_key(doors: Collection[ServerProcess], folder: Path) -> str:
    """Make one key that all doors know."""
    command = [sys.executable, "-m", "logweir.cli", "keys", "add", "sender", "--data-dir", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    for door in doors:
        (door.directory / "keys.toml").write_bytes((folder / "keys.toml").read_bytes())
    return done.stdout.strip()


def _data_dir(door: ServerProcess) -> list[str]:
    return ["--data-dir", str(door.directory)]


def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = http.client.HTTPConnection(address, port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
    return False


def _sources(data_dir: Path, summary: str) -> list[str]:
    """Read a door's queue from its beginning."""
    queue = open_queue(load(overrides={"data_dir": data_dir}, environment={}).queue)
    consumer = queue.consumer(
        group=f"look-{summary}", assigned=lambda partitions: dict.fromkeys(partitions), revoked=lambda *_: None
    )
    found: list[str] = []
    try:
        while deliveries := consumer.poll(wait_s=1.0, records_max=1000):
            for batch in (batch for delivery in deliveries for batch in decode(delivery.payload).batches):
                found += [batch.source_address for event in batch.events if summary.encode() in event]
    finally:
        consumer.close()
        queue.close()
    return found


@contextlib.contextmanager
def _name_server(port: int, names: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Answer, as Docker's name server does for a service, with the addresses of all that stand behind a name."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request, reply_to = self.request
            # RFC 1035 section 4: a header of 12 bytes, then the question: labels with their lengths, type and class.
            name, end = [], 12
            while length := request[end]:
                name.append(request[end + 1 : end + 1 + length].decode())
                end += 1 + length
            question = request[12 : end + 5]
            addresses = names.get(".".join(name), ())
            code = 0x8180 if addresses else 0x8183
            head = request[:2] + struct.pack(">HHHHH", code, 1, len(addresses), 0, 0)
            answers = b"".join(
                struct.pack(">HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(address) for address in addresses
            )
            reply_to.sendto(head + question + answers, self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()
