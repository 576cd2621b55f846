"""haproxy: HAProxy's lines about requests (httplog) and connections (tcplog)."""

from __future__ import annotations

import re

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("haproxy",),
    categories=("haproxy",),
    adds=(
        "sourceipaddress",
        "sourceport",
        "frontend",
        "backend",
        "server",
        "duration",
        "status",
        "bytes",
        "termination",
        "method",
        "path",
        "query",
        "protocol",
        "reason",
    ),
    # Forms of sections 8.2.2 to 8.2.5 of HAProxy's configuration manual.
    examples=(
        (
            "192.0.2.7:33317 [06/Feb/2026:12:14:14.655] http-in~ static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 "
            '{1wt.eu} {} "GET /index.html?a=b HTTP/1.1"',
            {
                "sourceipaddress": "192.0.2.7",
                "sourceport": 33317,
                "frontend": "http-in",
                "backend": "static",
                "server": "srv1",
                "duration": 0.109,
                "status": 200,
                "bytes": 2750,
                "termination": "----",
                "method": "GET",
                "path": "/index.html",
                "query": "a=b",
                "protocol": "HTTP/1.1",
            },
        ),
        (
            '192.0.2.7:33318 [06/Feb/2026:12:14:14.655] main main/<NOSRV> -1/-1/-1/-1/+5000 408 212 - - cR-- 1/1/0/0/0 0/0 "<BADREQ>"',
            {
                "sourceipaddress": "192.0.2.7",
                "sourceport": 33318,
                "frontend": "main",
                "backend": "main",
                "duration": 5.0,
                "status": 408,
                "bytes": 212,
                "termination": "cR--",
            },
        ),
        (
            "192.0.2.7:33313 [06/Feb/2026:12:12:51.443] fnt bck/srv1 0/0/5007 212 -- 0/0/0/0/3 0/0",
            {
                "sourceipaddress": "192.0.2.7",
                "sourceport": 33313,
                "frontend": "fnt",
                "backend": "bck",
                "server": "srv1",
                "duration": 5.007,
                "bytes": 212,
                "termination": "--",
            },
        ),
        (
            "192.0.2.7:56059 [03/Feb/2026:17:35:10.380] frt/f1: Connection error during SSL handshake",
            {
                "sourceipaddress": "192.0.2.7",
                "sourceport": 56059,
                "frontend": "frt",
                "reason": "Connection error during SSL handshake",
            },
        ),
        ("Server static/srv1 is DOWN, reason: Layer4 connection problem, check duration: 0ms.", {}),
        ("Proxy http-in started.", {}),
        ("192.0.2.7:33313 [06/Feb/2026:12:12:51.443] fnt", {}),
    ),
)
def haproxy(line: str) -> Fields | None:
    """``ADDRESS:PORT [TIME] FRONTEND BACKEND/SERVER TIMERS STATUS BYTES … TERMINATION … "REQUEST"``"""
    match = _LINE.match(line)
    if match is None:
        error = _ERROR.match(line)
        if error is None:
            return None
        address, port, frontend, reason = error.groups()
        return {"sourceipaddress": address, "sourceport": port, "frontend": frontend, "reason": reason}
    address, port, frontend, backend, server, took_ms, status, size, termination = match.groups()
    fields: Fields = {
        "sourceipaddress": address,
        "sourceport": port,
        "frontend": frontend,
        "backend": backend,
        "server": None if server == "<NOSRV>" else server,
        "duration": int(took_ms) / 1000,
        "status": status,
        "bytes": size,
        "termination": termination,
    }
    # A client's own words, in the last quotes: what it asked for may have quotes in it.
    begin = line.find(' "', match.end())
    words = line[begin + 2 : -1].split(" ") if begin >= 0 and line.endswith('"') else []
    if len(words) == 3 and words[2].startswith("HTTP/") and words[0].isalpha() and words[0].isupper():
        fields["method"], target, fields["protocol"] = words
        fields["path"], _, fields["query"] = target.partition("?")
    return fields


_HEAD = r"([0-9A-Fa-f:.]{2,45}|-):([0-9]{1,5}) \[[0-9]{2}/[A-Za-z]{3}/[0-9]{4}:[0-9:]{8}\.[0-9]{3}\] ([^ /]{1,200}?)"
_LINE = re.compile(
    _HEAD
    + r"~? ([^ /]{1,200}+)/([^ ]{1,200}+) (?:-?[0-9]{1,10}/){2,4}\+?([0-9]{1,10}) (?:([0-9]{3}) )?\+?([0-9]{1,18}) (?:[^ ]{1,100} [^ ]{1,100} )?([A-Za-z-]{2,4}) "
)
_ERROR = re.compile(_HEAD + r"/[^ :]{1,200}: (.{1,500})")
