"""access: the access lines of nginx and Apache, common and combined, with or without the virtual host in front."""

from __future__ import annotations

import re

from logweir_workers.normalise.details import address_of
from logweir_workers.parsers import Fields, line_parser


@line_parser(
    is_exact=True,
    processes=("nginx", "apache", "apache2", "httpd", "httpd24", "caddy", "lighttpd"),
    categories=("web", "nginx", "apache", "access", "accesslog", "access_log", "access-log"),
    begins=tuple("0123456789:"),
    adds=(
        "sourceipaddress",
        "sourceport",
        "username",
        "method",
        "path",
        "query",
        "protocol",
        "status",
        "bytes",
        "referrer",
        "useragent",
        "vhost",
    ),
    # Forms of nginx' log_format combined and of Apache's LogFormat common, combined and vhost_combined.
    examples=(
        (
            '192.0.2.7 - - [31/Jan/2026:12:00:00 +0100] "GET /a/b.html?x=1&y=2 HTTP/1.1" 200 612 "https://example.org/" '
            '"Mozilla/5.0 (X11; Linux x86_64) Firefox/147.0"',
            {
                "sourceipaddress": "192.0.2.7",
                "method": "GET",
                "path": "/a/b.html",
                "query": "x=1&y=2",
                "protocol": "HTTP/1.1",
                "status": 200,
                "bytes": 612,
                "referrer": "https://example.org/",
                "useragent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/147.0",
            },
        ),
        (
            '192.0.2.7 - alice [31/Jan/2026:12:00:00 +0000] "POST /login HTTP/2.0" 302 0 "-" "-"',
            {
                "sourceipaddress": "192.0.2.7",
                "username": "alice",
                "method": "POST",
                "path": "/login",
                "protocol": "HTTP/2.0",
                "status": 302,
                "bytes": 0,
            },
        ),
        (
            '::1 - - [31/Jan/2026:12:00:00 +0000] "GET /favicon.ico HTTP/1.1" 404 209',
            {
                "sourceipaddress": "::1",
                "method": "GET",
                "path": "/favicon.ico",
                "protocol": "HTTP/1.1",
                "status": 404,
                "bytes": 209,
            },
        ),
        (
            '192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "-" 408 -',
            {"sourceipaddress": "192.0.2.7", "status": 408},
        ),
        (
            'www.example.org:443 192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "HEAD / HTTP/1.0" 200 5 "-" "curl/8.5.0"',
            {
                "sourceipaddress": "192.0.2.7",
                "method": "HEAD",
                "path": "/",
                "protocol": "HTTP/1.0",
                "status": 200,
                "bytes": 5,
                "useragent": "curl/8.5.0",
                "vhost": "www.example.org:443",
            },
        ),
        (
            '2001:db8::7 - - [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 45 "-" "a \\"quoted\\" 200 1 agent" 0.004',
            {
                "sourceipaddress": "2001:db8::7",
                "method": "GET",
                "path": "/",
                "protocol": "HTTP/1.1",
                "status": 200,
                "bytes": 45,
                "useragent": 'a "quoted" 200 1 agent',
            },
        ),
        (
            'localhost 127.0.0.1 - - [31/Jan/2026:12:00:00 +0000] "M-SEARCH * HTTP/1.1" 405 5 "http://a/\\"b" "x \\\\ y"',
            {
                "sourceipaddress": "127.0.0.1",
                "method": "M-SEARCH",
                "path": "*",
                "protocol": "HTTP/1.1",
                "status": 405,
                "bytes": 5,
                "referrer": 'http://a/"b',
                "useragent": "x \\ y",
                "vhost": "localhost",
            },
        ),
        (
            '198.51.100.1, 192.0.2.7 - alice [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5',
            {
                "username": "alice",
                "method": "GET",
                "path": "/",
                "protocol": "HTTP/1.1",
                "status": 200,
                "bytes": 5,
            },
        ),
        (
            '192.0.2.7:4242 - "" [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1" 401 5',
            {
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "method": "GET",
                "path": "/",
                "protocol": "HTTP/1.1",
                "status": 401,
                "bytes": 5,
            },
        ),
        # What a client sends in place of a request is no request; nor does a quote in it end it.
        (
            '192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "\\x16\\x03\\x01\\x02" 400 157 "-" "-"',
            {"sourceipaddress": "192.0.2.7", "status": 400, "bytes": 157},
        ),
        (
            '192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "GET /\\" 200 5 \\"x HTTP/1.1" 404 9 "-" "-"',
            {"sourceipaddress": "192.0.2.7", "status": 404, "bytes": 9},
        ),
        (
            '192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "<SCRIPT>x</SCRIPT> / HTTP/1.1" 400 3386 "-" "-"',
            {"sourceipaddress": "192.0.2.7", "status": 400, "bytes": 3386},
        ),
        (
            'client.example.org - - [31/Jan/2026:12:00:00 +0000] "GET /status HTTP/1.1" 200 612',  # HostnameLookups On
            {"method": "GET", "path": "/status", "protocol": "HTTP/1.1", "status": 200, "bytes": 612},
        ),
        ('192.0.2.7 said "hello" 200 times', {}),
        ("200 OK", {}),
        ('192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1"', {}),
        ('192.0.2.7 - - [yesterday, or on the day before] "GET / HTTP/1.1" 200 5', {}),
    ),
)
def access(line: str) -> Fields | None:
    """``[VHOST ]ADDRESS IDENTITY USER [TIME] "REQUEST" STATUS BYTES[ "REFERRER" "AGENT"[ …]]``"""
    match = _LINE.match(line)
    if match is None:
        return None
    head, request, status, size, referrer, agent = match.groups()
    names = head[:-1].split(" ")
    if len(names) < 3:
        return None
    fields: Fields = {"status": int(status)}
    if len(names) > 3:
        _take_first_names(names, fields)
    if (address := address_of(names[0])) is not None:
        fields["sourceipaddress"] = address
    elif ":" in names[0]:
        _add_peer(fields, names[0])
    if (len(names) > 3 or names[2] != "-") and (user := " ".join(names[2:]).strip('"')):
        fields["username"] = user
    _add_request(fields, request)
    if size != "-":
        fields["bytes"] = int(size)
    if referrer and referrer != "-":
        fields["referrer"] = _unescaped(referrer)
    if agent and agent != "-":
        fields["useragent"] = _unescaped(agent)
    return fields


def _take_first_names(names: list[str], fields: Fields) -> None:
    """Take from the names in front of the time what stands before the client: a virtual host, or other addresses."""
    if names[0].endswith(","):
        # X-Forwarded-For, which anybody may write: of several addresses, nobody can say which one is the client's.
        while len(names) > 3 and names[0].endswith(","):
            del names[0]
        names[0] = ""
    elif names[2] == "-" and (
        address_of(names[1]) is not None or ("." in names[1] and ("." in names[0] or ":" in names[0]))
    ):
        fields["vhost"] = names.pop(0)


def _add_peer(fields: Fields, peer: str) -> None:
    """Address and port of ``192.0.2.7:4242`` and ``[2001:db8::7]:4242``."""
    name, _, port = peer.rpartition(":")
    address = address_of(name.strip("[]")) if port.isdigit() and port.isascii() and len(port) < 6 else None
    if address is not None:
        fields["sourceipaddress"], fields["sourceport"] = address, int(port)


def _add_request(fields: Fields, request: str) -> None:
    words = request.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return
    if (words[0].isalpha() and words[0].isupper()) or _METHOD.fullmatch(words[0]):
        fields["method"] = words[0]
        path, _, query = words[1].partition("?")
        if path:
            fields["path"] = path
        if query:
            fields["query"] = query
        fields["protocol"] = words[2]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text


_METHOD = re.compile(r"[A-Z][A-Z_-]*+")
_ESCAPE = re.compile(r'\\(["\\])')

# Nothing here gives back what it took ("++"), and what stands before the time is looked at once: no line takes long.
_QUOTED = r'"((?:[^"\\]++|\\.)*+)"'
_TIME = r"\[[0-9]{2}/[A-Za-z]{3}/[0-9]{4}:[0-9:]{8} [+-][0-9]{4}\]"
_LINE = re.compile(
    rf"([^\[]{{5,1000}}+)(?<= ){_TIME} {_QUOTED} ([0-9]{{3}}) ([0-9]{{1,18}}+|-)(?: {_QUOTED}(?: {_QUOTED})?)?"
)
