"""squid: Squid's access lines in its own format."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("squid", "(squid-1)", "squid-1", "squid3"),
    categories=("squid", "proxy"),
    adds=(
        "sourceipaddress",
        "username",
        "duration",
        "cacheresult",
        "status",
        "bytes",
        "method",
        "path",
        "query",
        "destinationipaddress",
    ),
    # The format "squid" of the directive logformat.
    examples=(
        (
            "1769860800.049   5006 192.0.2.7 TCP_MISS/200 19763 CONNECT login.example.org:443 alice HIER_DIRECT/198.51.100.2 -",
            {
                "sourceipaddress": "192.0.2.7",
                "username": "alice",
                "duration": 5.006,
                "cacheresult": "TCP_MISS",
                "status": 200,
                "bytes": 19763,
                "method": "CONNECT",
                "path": "login.example.org:443",
                "destinationipaddress": "198.51.100.2",
            },
        ),
        (
            "1769860800.327      1 2001:db8::7 TCP_HIT/304 214 GET http://example.org/style.css?v=3 - HIER_NONE/- text/css",
            {
                "sourceipaddress": "2001:db8::7",
                "duration": 0.001,
                "cacheresult": "TCP_HIT",
                "status": 304,
                "bytes": 214,
                "method": "GET",
                "path": "http://example.org/style.css",
                "query": "v=3",
            },
        ),
        (
            "1769860800.482      4 192.0.2.7 TCP_DENIED/407 1661 GET http://example.org/ - NONE/- text/html",
            {
                "sourceipaddress": "192.0.2.7",
                "duration": 0.004,
                "cacheresult": "TCP_DENIED",
                "status": 407,
                "bytes": 1661,
                "method": "GET",
                "path": "http://example.org/",
            },
        ),
        ("Starting Squid Cache version 6.10 for x86_64-pc-linux-gnu...", {}),
        ("1769860800.049 5006 a b c d e f g h", {}),
    ),
)
def squid(line: str) -> Fields | None:
    """``TIME ELAPSED CLIENT RESULT/STATUS BYTES METHOD URL USER HIERARCHY/PEER TYPE``"""
    words = line.split()
    if len(words) != 10 or not words[1].isdigit() or not words[4].isdigit() or not words[5].isupper():
        return None
    seconds, dot, milliseconds = words[0].partition(".")
    result, slash, status = words[3].partition("/")
    if not (dot and seconds.isdigit() and milliseconds.isdigit() and slash and status.isdigit() and len(words[1]) < 16):
        return None
    path, _, query = words[6].partition("?")
    return {
        "sourceipaddress": words[2],
        "username": words[7],
        "duration": int(words[1]) / 1000,
        "cacheresult": result,
        "status": status,
        "bytes": words[4],
        "method": words[5],
        "path": path,
        "query": query,
        "destinationipaddress": words[8].partition("/")[2],
    }
