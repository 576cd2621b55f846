"""A connection's bytes into requests: httptools, with bounds on all that is not a body."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import httptools

from logweir.errors import HTTP_BAD, HTTP_VERSION_UNKNOWN, TRANSFER_ENCODING_UNKNOWN, LogweirError
from logweir.http.limits import Limits
from logweir.http.reply import Header
from logweir.http.states import BODY, HEADERS, OPEN, State

_VERSIONS = ("1.1", "1.0")
# What llhttp says of versions that it does not read. Those that there are get 505; others are no HTTP.
_VERSION_BAD = ("Invalid HTTP version", "Expected dot")
_LATER_VERSION = re.compile(rb" HTTP/(?:1\.[2-9]|[23](?:\.[0-9])?)\r?\n")
# Headers that say how the request is to be read.
_OF_FRAMING = frozenset((b"expect", b"host", b"transfer-encoding"))
# RFC 9110 section 7.2, RFC 3986 section 3.2: what a host and port consist of, or nothing. A comma joins two.
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+;=%:\[\]-]*")
_SHOWN_MAX = 100
# A chunked body costs at most this many bytes on the wire for each of its own ("1\r\nx\r\n").
_CHUNKING_FACTOR = 6


# The same clients ask again and again for the same host.
@lru_cache(1000)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


@dataclass(slots=True)
class Head:
    """A request but for its body."""

    method: bytes
    url: bytes
    version: str
    headers: list[Header]
    """Names in lower case."""
    keep_alive: bool
    expects_100: bool
    """Whether the client sends the body only after a "100 Continue", or after a while."""


class Connection(Protocol):
    """What is told of a message: of its begin, its head, each piece of its body, and its end, in this order.

    Each may raise LogweirError: then the rest is not read.
    """

    state: State

    def begin(self) -> None: ...
    def end_headers(self, head: Head) -> None: ...
    def add_body(self, piece: bytes) -> None: ...
    def end(self) -> None: ...


class _ClosingError(Exception):
    """The connection reads no more requests."""


class RequestReader:
    """Tells the connection of the messages in what it is fed.

    Of the message under way it counts the bytes: all on the wire, those of its body, and those that came since the last
    of its body. What is no body is headers, trailers, or the framing of chunks, and none of them may grow.
    """

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._url = b""
        self._headers: list[Header] = []
        self._expects_100 = False
        self._hosts = 0
        self._codings: tuple[bytes, ...] = ()
        self._wire_bytes = 0
        self._body_bytes = 0
        self._behind_body_bytes = 0
        self._began_behind_another = False
        # Of what is fed now.
        self._fed_bytes = 0
        self._has_body = False
        self._has_end = False
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        # What is sent behind a request with "Connection: close" is ignored, and no reason to refuse that request.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def release(self) -> None:
        """Nothing is read any more: hold no memory for it. Parser and reader would hold each other, too."""
        self._parser = None
        self._headers = []

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises LogweirError when it is the last that is read: HTTP_BAD, HTTP_VERSION_UNKNOWN, HEADERS_TOO_LARGE,
        TRANSFER_ENCODING_UNKNOWN, HEADERS_TOO_MANY, or what the connection has raised.
        """
        self._fed_bytes = len(data)
        self._has_body = self._has_end = False
        try:
            self._parse(data)
        except _ClosingError:
            return
        if self._connection.state is HEADERS or self._connection.state is BODY:
            self._bound(len(data))

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if self._connection.state is not HEADERS:
                    raise LogweirError(HTTP_BAD, reason="it asks for a tunnel") from None
                data = self._without_upgrade() + data[stopped.args[0] :]
                self._fed_bytes = len(data)
                continue
            except httptools.HttpParserCallbackError as error:
                raise (error.__context__ or error) from None
            except httptools.HttpParserError as error:
                if str(error) in _VERSION_BAD and _LATER_VERSION.search(data):
                    raise LogweirError(HTTP_VERSION_UNKNOWN) from None
                raise LogweirError(HTTP_BAD, reason="it does not follow the protocol") from None
            return

    def _without_upgrade(self) -> bytes:
        """The head of the request once more, for a new parser: this one ends at a wish for HTTP/2, before the body.

        RFC 9110 section 7.8: a server may do as if it was not wished for. Java's own client does so with each POST.
        """
        head = [b"%b %b HTTP/%b\r\n" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        head += [b"%b: %b\r\n" % (name, value) for name, value in self._headers if name != b"upgrade"]
        self._renew()
        return b"".join([*head, b"\r\n"])

    def _bound(self, size_bytes: int) -> None:
        """Refuse the message under way if too much has come of it, ``size_bytes`` of which in the last piece."""
        # What came in one piece with the end of the message before cannot be told apart; it is one read at most.
        if not self._began_behind_another:
            self._wire_bytes += size_bytes
            self._behind_body_bytes = 0 if self._has_body else self._behind_body_bytes + size_bytes
        self._began_behind_another = False
        size_bytes_max = self._limits.settings.header_size_bytes_max
        framing_bytes_max = size_bytes_max + _CHUNKING_FACTOR * self._body_bytes
        if self._behind_body_bytes > size_bytes_max or self._wire_bytes - self._body_bytes > framing_bytes_max:
            raise self._limits.headers_too_large()
        if len(self._headers) > self._limits.settings.headers_max:
            raise self._limits.headers_too_many()

    # --- what the parser finds -------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._connection.state not in OPEN:
            raise _ClosingError
        self._connection.begin()
        self._url, self._headers, self._expects_100 = b"", [], False
        self._hosts, self._codings = 0, ()
        self._began_behind_another = self._has_end
        self._wire_bytes = self._body_bytes = self._behind_body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # RFC 9110 section 5.5: white space around a value is no part of it. What is before it, the parser takes away.
        value = value.rstrip(b" \t")
        if name in _OF_FRAMING:
            self._note_framing(name, value)
        self._headers.append((name, value))

    def _note_framing(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
            if not _is_host(value):
                raise LogweirError(HTTP_BAD, reason="its Host is no name or address")
        elif name == b"transfer-encoding":
            self._codings += (value,)
        elif value.lower() == b"100-continue":
            self._expects_100 = True

    def on_headers_complete(self) -> None:
        parser, settings, headers = self._parser, self._limits.settings, self._headers
        method = parser.get_method()
        if parser.should_upgrade() and method != b"CONNECT":
            return
        # Headers are counted one by one only where all that came is larger.
        if self._wire_bytes + self._fed_bytes > settings.header_size_bytes_max and self._has_large_headers():
            raise self._limits.headers_too_large()
        if len(headers) > settings.headers_max:
            raise self._limits.headers_too_many()
        version = parser.get_http_version()
        if version != "1.1" or self._hosts != 1 or self._codings:
            self._check_framing(version)
        keep_alive = version != "1.0" and parser.should_keep_alive()
        # RFC 9110 section 6.5.1: trailers must not be merged into the headers.
        self._headers = []
        # RFC 9110 section 10.1.1: HTTP/1.0 knows no "100 Continue".
        expects_100 = self._expects_100 and version != "1.0"
        self._connection.end_headers(Head(method, self._url, version, headers, keep_alive, expects_100))

    def _check_framing(self, version: str) -> None:
        if version == "0.9":
            raise LogweirError(HTTP_BAD, reason="it names no version of HTTP")
        if version not in _VERSIONS:
            raise LogweirError(HTTP_VERSION_UNKNOWN)
        # RFC 9112 section 3.2: else a proxy and we may differ about whose request it is.
        if self._hosts != 1 and (self._hosts or version != "1.0"):
            raise LogweirError(HTTP_BAD, reason="it has not exactly one Host header")
        if self._codings:
            self._check_codings(b", ".join(self._codings))

    def _check_codings(self, sent: bytes) -> None:
        """RFC 9112 sections 6.1 and 6.3: its chunks alone say where the body ends: they are the last coding, once."""
        codings = [coding.strip().lower() for coding in sent.split(b",")]
        if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
            raise LogweirError(HTTP_BAD, reason="its Transfer-Encoding does not say where its body ends")
        if len(codings) > 1:
            raise LogweirError(TRANSFER_ENCODING_UNKNOWN, encoding=sent[:_SHOWN_MAX].decode("latin-1"))

    def _has_large_headers(self) -> bool:
        size_bytes = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        return size_bytes > self._limits.settings.header_size_bytes_max

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        self._has_body = True
        self._connection.add_body(piece)

    def on_message_complete(self) -> None:
        # The parser ends a message whose wish for another protocol is not followed, too.
        if self._connection.state is not HEADERS:
            self._has_end = True
            self._connection.end()
