"""leef: the Log Event Extended Format of QRadar, in a message."""

from __future__ import annotations

from logweir_workers.normalise.details import name_known
from logweir_workers.parsers import ANY, FIELDS_MAX, Fields, line_parser

_HEAD = ("leefvendor", "leefproduct", "leefversion", "leefid")
_NAMES = {
    "usrName": "username",
    "srcPort": "sourceport",
    "dstPort": "destinationport",
    "srcBytes": "bytesin",
    "dstBytes": "bytesout",
}


@line_parser(
    processes=("leef",),  # where a syslog daemon took "LEEF:" for the name of a process
    begins=("LEEF:",),
    adds=(ANY,),
    # "LEEF event components" of IBM's documentation: header, delimiter, predefined attributes.
    examples=(
        (
            "LEEF:1.0|Microsoft|MSExchange|4.0 SP1|15345|src=192.0.2.7\tdst=198.51.100.2\tsrcPort=1232\tsev=5\tusrName=alice\tproto=TCP",
            {
                "leefvendor": "Microsoft",
                "leefproduct": "MSExchange",
                "leefversion": "4.0 SP1",
                "leefid": "15345",
                "sourceipaddress": "192.0.2.7",
                "destinationipaddress": "198.51.100.2",
                "sourceport": 1232,
                "sev": "5",
                "username": "alice",
                "protocol": "TCP",
            },
        ),
        (
            "LEEF:2.0|Lancope|StealthWatch|1.0|41|^|src=192.0.2.7^dst=198.51.100.2^reason=a=b c",
            {
                "leefvendor": "Lancope",
                "leefproduct": "StealthWatch",
                "leefversion": "1.0",
                "leefid": "41",
                "sourceipaddress": "192.0.2.7",
                "destinationipaddress": "198.51.100.2",
                "reason": "a=b c",
            },
        ),
        (
            "LEEF:2.0|a|b|1|x|x09|src=192.0.2.7\tsev=3",
            {
                "leefvendor": "a",
                "leefproduct": "b",
                "leefversion": "1",
                "leefid": "x",
                "sourceipaddress": "192.0.2.7",
                "sev": "3",
            },
        ),
        ("LEEF:1.0|a|b|1|x|", {"leefvendor": "a", "leefproduct": "b", "leefversion": "1", "leefid": "x"}),
        ("LEEF:1.0|a|b", {}),
        ("LEEF: none", {}),
        ("LEEF:3|a|b|c|d|e", {}),
    ),
)
def leef(line: str) -> Fields | None:
    """``LEEF:1.0|VENDOR|PRODUCT|VERSION|ID|key=value<TAB>…``; version 2 names the delimiter behind the id."""
    version, *parts = line.removeprefix("LEEF:").split("|", 5)
    if len(parts) != 5 or version.strip() not in ("1.0", "2.0"):
        return None
    attributes, delimiter = parts[4], "\t"
    if version.strip() == "2.0" and "|" in attributes[:6]:
        named, _, attributes = attributes.partition("|")
        delimiter = _delimiter_of(named)
    fields: Fields = dict(zip(_HEAD, parts, strict=False))
    for part in attributes.split(delimiter, FIELDS_MAX)[:FIELDS_MAX]:
        name, equals, value = part.strip().partition("=")
        if equals and name and len(name) <= 64 and value:
            fields[_NAMES.get(name, name)] = value
    name_known(fields)
    return fields


def _delimiter_of(named: str) -> str:
    """The delimiter itself, or its code: ``x09``, ``0x09``."""
    code = named.lower().removeprefix("0")
    if code.startswith("x") and 1 < len(code) < 6 and all(digit in "0123456789abcdef" for digit in code[1:]):
        return chr(int(code[1:], 16) or 9)
    return named or "\t"
