"""cef: the Common Event Format of ArcSight, which firewalls and scanners write, in a message."""

from __future__ import annotations

import re
from itertools import islice

from logweir_workers.normalise.details import name_known
from logweir_workers.parsers import ANY, FIELDS_MAX, Fields, line_parser

_HEAD = ("cefvendor", "cefproduct", "cefversion", "cefid", "cefname", "cefseverity")
_NAMES = {"act": "action", "requestClientApplication": "useragent", "fname": "filename", "dhost": "destinationhost"}
"""Keys of the dictionary whose names nobody else uses."""


@line_parser(
    processes=("cef",),  # where a syslog daemon took "CEF:" for the name of a process
    begins=("CEF:",),
    adds=(ANY,),
    # "ArcSight Common Event Format (CEF) Implementation Standard", version 26: header, escaping, dictionary.
    examples=(
        (
            "CEF:0|Security|threatmanager|1.0|100|worm successfully stopped|10|src=192.0.2.7 dst=198.51.100.2 spt=1232 "
            "suser=alice act=blocked msg=a worm, stopped outcome=success",
            {
                "cefvendor": "Security",
                "cefproduct": "threatmanager",
                "cefversion": "1.0",
                "cefid": "100",
                "cefname": "worm successfully stopped",
                "cefseverity": "10",
                "sourceipaddress": "192.0.2.7",
                "destinationipaddress": "198.51.100.2",
                "sourceport": 1232,
                "username": "alice",
                "action": "blocked",
                "msg": "a worm, stopped",
                "outcome": "success",
            },
        ),
        (
            r"CEF:0|a\|b|c|1|7|detected a \| in message|Low|msg=pairs are key\=value request=https://example.org/?a=b cs1Label=Rule cs1=x",
            {
                "cefvendor": "a|b",
                "cefproduct": "c",
                "cefversion": "1",
                "cefid": "7",
                "cefname": "detected a | in message",
                "cefseverity": "Low",
                "msg": "pairs are key=value",
                "request": "https://example.org/?a=b",
                "cs1Label": "Rule",
                "cs1": "x",
            },
        ),
        ("CEF:0|a|b|c|d|e|f|", {**dict(zip(_HEAD, "abcdef", strict=True))}),
        ("CEF:0|a|b|c", {}),
        ("CEF: a format", {}),
        ("CEF:x|a|b|c|d|e|f|src=192.0.2.7", {}),
    ),
)
def cef(line: str) -> Fields | None:
    """``CEF:VERSION|VENDOR|PRODUCT|VERSION|ID|NAME|SEVERITY|key=value …``"""
    parts = _BAR.split(line.removeprefix("CEF:"), 7)
    if len(parts) != 8 or not parts[0].strip().isdigit():
        return None
    fields: Fields = {
        name: part.replace("\\|", "|").replace("\\\\", "\\") for name, part in zip(_HEAD, parts[1:7], strict=True)
    }
    places = list(islice(_KEY.finditer(parts[7]), FIELDS_MAX))
    ends = [place.start() for place in places[1:]] + [len(parts[7])]
    said: dict[str, str] = {}
    for place, end in zip(places, ends, strict=False):
        value = parts[7][place.end() : end].strip(" ")
        # Blanks in values are not escaped: where a key stands twice, one may be of a value that somebody else chose.
        if value:
            said[place[1]] = value if said.get(place[1], value) == value else ""
    for key, value in said.items():
        if value:
            fields[_NAMES.get(key, key)] = _ESCAPE.sub(lambda match: _UNESCAPED.get(match[1], match[1]), value)
    name_known(fields)
    return fields


_BAR = re.compile(r"(?<!\\)\|")
# A key stands at the beginning or behind a blank; an equals sign inside of a value is escaped, or behind other signs.
_KEY = re.compile(r"(?:^|(?<= ))([A-Za-z][A-Za-z0-9_.\[\]-]{0,62}+)=")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPED = {"n": "\n", "r": "\r"}
