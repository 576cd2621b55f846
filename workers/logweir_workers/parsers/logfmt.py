"""logfmt: lines that are nothing but key=value and key="quoted value"."""

from __future__ import annotations

from itertools import islice

from logweir_workers.normalise.details import name_known
from logweir_workers.parsers import ANY, FIELDS_MAX, PAIRS, Fields, line_parser
from logweir_workers.parsers._text import pairs_of

_PAIRS_MIN = 2
"""A line of one pair may as well be a formula."""


@line_parser(
    is_exact=True,
    begins=(PAIRS,),
    adds=(ANY,),
    examples=(
        (
            'time=2026-01-31T12:00:00Z level=info msg="user logged in" user=alice src_ip=192.0.2.7 duration=0.25',
            {
                "time": "2026-01-31T12:00:00Z",
                "level": "info",
                "msg": "user logged in",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "duration": 0.25,
            },
        ),
        (
            'date=2026-01-31 devname="fw1" srcip=192.0.2.7 srcport=50022 dstip=198.51.100.2 dstport=443 proto=6 action="deny"',
            {
                "date": "2026-01-31",
                "devname": "fw1",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "destinationipaddress": "198.51.100.2",
                "destinationport": 443,
                "protocol": "6",
                "action": "deny",
            },
        ),
        (
            'method=GET path="/a b" status=200 service=12ms quoted="say \\"hi\\"" url=/x?y=z',
            {
                "method": "GET",
                "path": "/a b",
                "status": 200,
                "service": "12ms",
                "quoted": 'say "hi"',
                "url": "/x?y=z",
            },
        ),
        (
            'user=alice, src_ip=192.0.2.7, msg="a, b", n=1',
            {"username": "alice", "sourceipaddress": "192.0.2.7", "msg": "a, b", "n": "1"},
        ),
        ("user=alice msg=hello user=root level=info level=info", {"msg": "hello", "level": "info"}),
        ("tags=a, b=c,d", {"tags": "a", "b": "c,d"}),
        ("a=1, b=2 c=3", {"a": "1,", "b": "2", "c": "3"}),
        ("empty= next='single quoted' last=-", {"next": "single quoted"}),
        ("status=ok code=7", {"status": "ok", "code": "7"}),
        ("type=invoice msg=paid", {"type": "invoice", "msg": "paid"}),
        ("a=1", {}),
        ("set a=1 and b=2", {}),
        ("a=1 b=2 then something else", {}),
        ('a=1 b="never closed', {}),
        ('a="x"y b=2', {}),
        ("x == y", {}),
        ("=a b=c", {}),
        ("1=2 3=4", {}),
    ),
)
def logfmt(line: str) -> Fields | None:
    """All pairs of the line, if it has at least two and nothing else; of very many, the first."""
    pairs = pairs_of(line)
    if pairs is None or len(pairs) < _PAIRS_MIN:
        return None
    if len(pairs) > FIELDS_MAX:
        pairs = dict(islice(pairs.items(), FIELDS_MAX))
    fields: Fields = {name: value for name, value in pairs.items() if value not in ("", "-")}
    name_known(fields)
    return fields
