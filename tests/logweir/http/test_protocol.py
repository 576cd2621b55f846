"""The protocol under small applications: what they are asked, what is written, and who may fail without harm."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import Server

from logweir.http.cycle import WRITER, Cycle
from logweir.http.inline import InlineRequest
from logweir.http.protocol import HttpProtocol
from logweir.http.reader import RequestReader
from tests.logweir.http.serving import Served, heard, serving, to_end
from tests.waiting import until

PAIR = (b"x-a", b"b")


class Answer:
    """A whole one."""

    status = 202
    headers = (PAIR,)
    is_cut = False

    def __init__(self, body: bytes) -> None:
        self.body = body


class Application:
    """Does what the path says. ``asked``: each request that it was given, with what came of its body.

    Inline it takes ``/inline``, unless the body says "no"; "later" is answered a little later.
    """

    inline_urls = frozenset({b"/inline"})

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes | None]] = []
        self.scopes: list[dict[str, Any]] = []

    def handle_inline(self, request: InlineRequest) -> bool:
        if request.body == b"no":
            return False
        if request.body == b"fault":
            raise ZeroDivisionError
        self.asked.append(("inline", request.body))
        answer = Answer(b"inline " + request.body)
        if request.body == b"later":
            asyncio.get_running_loop().call_later(0.05, request.answer, answer)
        else:
            request.answer(answer)
        return True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"].strip("/")
        self.scopes.append(scope)
        answer: Callable[..., Any] = getattr(self, f"_{name}", self._echo)
        await answer(scope, receive, send)

    async def _body(self, scope: Any, receive: Any) -> bytes | None:
        body = b""
        message = {"more_body": True}
        while message["more_body"]:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.asked.append((scope["path"], None))
                return None
            body += message["body"]  # type: ignore[operator]
        self.asked.append((scope["path"], body))
        return body

    async def _echo(self, scope: Any, receive: Any, send: Any) -> None:
        body = await self._body(scope, receive)
        if body is not None:
            await self._say(send, body)

    async def _say(self, send: Any, body: bytes, *, status: int = 200, length: int | None = -1) -> None:
        headers = (
            [PAIR] if length is None else [PAIR, (b"content-length", b"%d" % (len(body) if length < 0 else length))]
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        middle = len(body) // 2
        await send({"type": "http.response.body", "body": body[:middle], "more_body": True})
        await send({"type": "http.response.body", "body": body[middle:]})

    async def _whole(self, scope: Any, receive: Any, _: Any) -> None:
        body = await self._body(scope, receive)
        assert scope[WRITER].write_reply(scope, Answer(body or b""))

    async def _early(self, _: Any, __: Any, send: Any) -> None:
        await self._say(send, b"early", status=401)

    async def _sized(self, _: Any, __: Any, send: Any) -> None:
        await self._say(send, b"four", length=None)

    async def _empty(self, _: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def _short(self, _: Any, __: Any, send: Any) -> None:
        await self._say(send, b"four", length=5)

    async def _long(self, _: Any, __: Any, send: Any) -> None:
        await self._say(send, b"four", length=3)

    async def _fails(self, *_: Any) -> None:
        raise ZeroDivisionError

    async def _silent(self, *_: Any) -> None:
        pass

    async def _injects(self, _: Any, __: Any, send: Any) -> None:
        header = (b"x-a", b"b\r\nset-cookie: c")
        await send({"type": "http.response.start", "status": 200, "headers": [header]})

    async def _sleeps(self, scope: Any, _: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        self.asked.append((scope["path"], b""))
        await self._say(send, b"late")

    async def _counts(self, _: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(1.0)
        await self._say(send, b"enough")


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def served(application: Application) -> Iterator[Served]:
    with serving(application, body_timeout_s=1.5, idle_timeout_s=1.0) as served:
        yield served


def post(path: str, body: bytes = b"", headers: str = "", version: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


LAST = "Connection: close\r\n"


# --- answers ------------------------------------------------------------------------------------------------------
def test_the_scope_says_what_was_asked(served: Served, application: Application) -> None:
    """As ASGI has it: names in lower case, the path unescaped and as it was sent, who asks, and by what."""
    with served.connect() as connection:
        connection.sendall(b"PUT /a%20b?c=%64 HTTP/1.1\r\nHost: x\r\nX-UPPER: Value\r\nConnection: close\r\n\r\n")
        to_end(connection)
        client = ("127.0.0.1", connection.getsockname()[1])
    (scope,) = application.scopes

    assert WRITER not in scope
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=%64",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"x-upper", b"Value"), (b"connection", b"close")],
        "client": client,
        "server": ("127.0.0.1", served.port),
        "state": {},
    }


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        ("GET /sized HTTP/1.1", b"transfer-encoding: chunked\r\n\r\n2\r\nfo\r\n2\r\nur\r\n0\r\n\r\n"),
        ("GET /sized HTTP/1.0", b"\r\n\r\nfour"),
        ("HEAD /sized HTTP/1.1", b"\r\n\r\n"),
        ("HEAD /early HTTP/1.1", b"content-length: 5\r\nconnection: close\r\n\r\n"),
        ("GET /empty HTTP/1.1", b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
    ],
)
def test_the_end_of_an_answer_can_be_told(served: Served, request_line: str, answer: bytes) -> None:
    """By its length, in chunks, by the connection's end where chunks are unknown; or it has no body."""
    said = served.said(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    assert said.endswith(answer)
    assert said.count(b"connection: close\r\n") == 1
    assert (b"chunked" in said) == (request_line == "GET /sized HTTP/1.1")


def test_an_answer_in_one_piece_is_the_same_as_one_that_is_sent(served: Served) -> None:
    """Whether the connection stays or ends; a HEAD is no such request."""
    said = served.said(post("/whole", b"{}") + post("/whole", b"{}", LAST))

    assert said == (
        b"HTTP/1.1 202 Accepted\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}"
        b"HTTP/1.1 202 Accepted\r\nx-a: b\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    )
    assert served.said(b"HEAD /whole HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/fails", b"Internal Server Error"),
        ("/silent", b"Internal Server Error"),
        ("/injects", b"Internal Server Error"),
        ("/short", b"content-length: 5\r\n\r\nfour"),
        ("/long", b"content-length: 3\r\n\r\nfo"),
    ],
)
def test_an_application_that_fails_costs_its_connection(
    served: Served, caplog: pytest.LogCaptureFixture, path: str, said: bytes
) -> None:
    """A 500 if nothing is said yet, a connection that ends if there is; a trace in the log; others are served."""
    answer = served.said(post(path, b"{}") + post("/echo", b"behind"))

    assert answer.endswith(said) and b"behind" not in answer and b"set-cookie" not in answer
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.ERROR, f"The application failed at POST {path}.")
    ]
    assert served.said(post("/echo", b"next", LAST)).endswith(b"next")


# --- bodies -------------------------------------------------------------------------------------------------------
def test_100_continue_is_said_when_the_body_is_asked_for(served: Served) -> None:
    """Not to who is answered without it, nor in HTTP/1.0."""
    expects = "Expect: 100-Continue\r\n"
    with served.connect() as connection:
        connection.sendall(post("/echo", b"{}", expects)[:-2])
        assert heard(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert heard(connection, b"{}").startswith(b"HTTP/1.1 200 ")
    early = served.said(post("/early", b"", expects + LAST))
    old = served.said(post("/echo", b"{}", expects, "1.0"))

    assert early.startswith(b"HTTP/1.1 401 ") and old.startswith(b"HTTP/1.1 200 ")


def test_an_answer_before_the_body_leaves_the_connection_as_it_is(served: Served, application: Application) -> None:
    """The rest of the body is thrown away, however much it is, and what comes behind it is the next request."""
    with served.connect() as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert heard(connection, b"early").startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"x" * 1_000_000 + post("/echo", b"next", LAST))
        assert to_end(connection).endswith(b"next")

    assert application.asked == [("/echo", b"next")]


def test_a_body_that_never_ends_behind_its_answer_ends_the_connection(served: Served) -> None:
    """With no second answer."""
    started_s = time.monotonic()
    said = served.said(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")

    assert said.count(b"HTTP/1.1 ") == 1 and said.endswith(b"early")
    assert served.refused == {"body_too_slow": 1}
    assert 1 < time.monotonic() - started_s < 8


def test_a_body_is_read_no_faster_than_it_is_taken(served: Served) -> None:
    """The application has taken one piece and works: the rest stays where it is, in the sender's hands."""
    with served.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(b"POST /counts HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nx")
        time.sleep(0.3)
        connection.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                sent += connection.send(b"x" * 65536)

    assert sent < 20_000_000


def test_a_refused_body_is_no_body_for_the_application(served: Served, application: Application) -> None:
    """It is told that nobody waits, and what it still says goes to nobody."""
    chunks = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    for path in (b"/echo", b"/sleeps"):
        with served.connect() as connection:
            connection.sendall(chunks % path)
            time.sleep(0.1)
            connection.sendall(b"no chunk\r\n")
            said = to_end(connection)
        assert said.count(b"HTTP/1.1 ") == 1 and b'"code":"http_bad"' in said
    until(lambda: len(application.asked) == 2)

    assert application.asked == [("/echo", None), ("/sleeps", b"")]
    assert served.refused == {"http_bad": 2}


# --- inline requests ----------------------------------------------------------------------------------------------
def test_only_what_comes_whole_is_inline(served: Served, application: Application) -> None:
    """In pieces, with a wish for 100 Continue, or not taken, the same request is ASGI's, body and all."""
    chunks = b"2\r\nch\r\n4\r\nunks\r\n0\r\nX: y\r\n\r\n"
    with served.connect() as connection:
        for request, cut in (
            (post("/inline", b"whole"), 0),
            (post("/inline", b"cut"), -1),
            (post("/inline", b"cut"), -3),
            (post("/inline", b"cut"), 10),
            (post("/inline", b"no"), 0),
            (post("/inline", b"expects", "Expect: 100-continue\r\n"), 0),
            (b"POST /inline HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, 0),
        ):
            for piece in (request[:cut], request[cut:]) if cut else (request,):
                connection.sendall(piece)
                time.sleep(0.03)
        until(lambda: len(application.asked) == 7)

    assert application.asked == [
        ("inline", b"whole"),
        ("/inline", b"cut"),
        ("/inline", b"cut"),
        ("inline", b"cut"),
        ("/inline", b"no"),
        ("/inline", b"expects"),
        ("inline", b"chunks"),
    ]


def test_answers_keep_the_order_of_requests(served: Served) -> None:
    """Whoever is quicker: inline and ASGI, at once and later."""
    bodies = [
        ("/inline", b"later"),
        ("/echo", b"1"),
        ("/inline", b"2"),
        ("/sleeps", b""),
        ("/early", b""),
        ("/sized", b""),
    ]
    said = served.said(b"".join(post(path, body) for path, body in bodies) + post("/inline", b"last", LAST))
    answers = said.split(b"HTTP/1.1 ")[1:]

    assert [one[:3] for one in answers] == [b"202", b"200", b"200", b"200", b"401", b"200", b"200"]
    assert [one.endswith(end) for one, end in zip(answers, [b"inline later", b"1", b"2", b"late"], strict=False)]
    assert answers[-1].endswith(b"last")


@pytest.mark.parametrize("path", ["/inline", "/echo"])
def test_what_is_sent_behind_the_last_request_is_nobodys(served: Served, application: Application, path: str) -> None:
    """RFC 9112 section 9.6: nothing is done about a request behind one with "Connection: close"."""
    said = served.said(post(path, b"last", LAST) + post(path, b"behind") + b"nonsense\r\n\r\n")

    assert said.count(b"HTTP/1.1 ") == 1 and said.endswith(b"last")
    time.sleep(0.1)
    assert [body for _, body in application.asked] == [b"last"]
    assert not served.refused


def test_an_inline_request_whose_sender_has_gone_is_answered_to_nobody(
    served: Served, application: Application
) -> None:
    """And counts as under way until then."""
    with served.connect() as connection:
        connection.sendall(post("/inline", b"later"))
        until(lambda: bool(application.asked))
    tasks = served.server.server_state.tasks
    until(lambda: not served.server.server_state.connections)
    until(lambda: not tasks)

    assert served.said(post("/inline", b"next", LAST)).endswith(b"next")


def test_a_fault_in_an_inline_request_costs_its_connection(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """With a trace, and nothing left of it that would count as under way."""
    said = served.said(post("/inline", b"fault") + post("/inline", b"behind"))

    assert said == b""
    assert "ZeroDivisionError" in caplog.text
    assert not served.server.server_state.tasks
    assert served.said(post("/inline", b"next", LAST)).endswith(b"next")


# --- connections --------------------------------------------------------------------------------------------------
def test_line_ends_between_requests_are_no_request(served: Served, application: Application) -> None:
    """RFC 9112 section 2.2; nor do they keep a connection that idles."""
    with served.connect() as connection:
        for _ in range(2):
            connection.sendall(b"\r\n\r\n" + post("/echo", b"x"))
            heard(connection, b"\r\n\r\nx")
        started_s = time.monotonic()
        connection.settimeout(0.2)
        while time.monotonic() - started_s < 8:
            try:
                connection.sendall(b"\r\n")
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break

    assert 0.9 < time.monotonic() - started_s < 8
    assert len(application.asked) == 2


def test_lost_connections_leave_nothing_to_the_garbage_collector(served: Served, application: Application) -> None:
    """It runs seldom in a door: what hold each other would stay, headers and bodies and all."""
    gc.collect()
    gc.disable()
    try:
        for data in (
            post("/echo", b"x") * 3,
            post("/inline", b"x"),
            post("/inline", b"later") + post("/echo", b"x") + post("/echo", b"x")[:-1],
            post("/echo", b"cut")[:-1],
            post("/early", b"cut")[:-1],
            post("/sleeps", b"x") + post("/echo", b"x") + b"nonsense\r\n\r\n",
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
        ):
            with served.connect() as connection:
                connection.sendall(data)
                time.sleep(0.05)
        until(lambda: not served.server.server_state.connections and not served.server.server_state.tasks)
        kinds = (HttpProtocol, RequestReader, Cycle, InlineRequest)
        application.scopes.clear()
        until(lambda: not [one for one in gc.get_objects() if isinstance(one, kinds)])
    finally:
        gc.enable()


def test_uvicorns_own_server_serves_and_ends_it(application: Application) -> None:
    """The class is good wherever uvicorn takes one: its server makes and ends connections by the same names."""
    config = Config(application, port=0, http=HttpProtocol, ws="none", lifespan="off", log_config=None)
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    with (
        socket.create_connection(("127.0.0.1", port), 10) as idle,
        socket.create_connection(("127.0.0.1", port)) as busy,
    ):
        idle.sendall(post("/echo", b"one"))
        heard(idle, b"one")
        busy.sendall(post("/sleeps"))
        until(lambda: bool(server.server_state.tasks))
        server.should_exit = True

        assert to_end(idle) == b""
        assert b"connection: close" in (said := to_end(busy)) and said.endswith(b"late")
    thread.join(10)
    assert not thread.is_alive()
