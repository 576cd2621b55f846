"""named: the queries that BIND answers, and those that it refuses."""

from __future__ import annotations

import re

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("named",),
    categories=("dns", "named", "bind"),
    adds=(
        "action",
        "outcome",
        "sourceipaddress",
        "sourceport",
        "destinationipaddress",
        "dnsname",
        "dnstype",
        "dnsflags",
        "protocol",
        "reason",
    ),
    # Forms of BIND's lib/ns/query.c and client.c; "Query log" in its reference manual has the flags.
    examples=(
        (
            "client @0x7f3a9c0d2b68 192.0.2.7#53124 (www.example.org): query: www.example.org IN A +E(0)K (198.51.100.53)",
            {
                "action": "dns_query",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 53124,
                "destinationipaddress": "198.51.100.53",
                "dnsname": "www.example.org",
                "dnstype": "A",
                "dnsflags": "+E(0)K",
                "protocol": "UDP",
            },
        ),
        (
            "queries: info: client 2001:db8::7#53124 (example.org): view internal: query: example.org IN AAAA -T (2001:db8::53)",
            {
                "action": "dns_query",
                "sourceipaddress": "2001:db8::7",
                "sourceport": 53124,
                "destinationipaddress": "2001:db8::53",
                "dnsname": "example.org",
                "dnstype": "AAAA",
                "dnsflags": "-T",
                "protocol": "TCP",
            },
        ),
        (
            "client 192.0.2.7#53124: query: example.org IN MX +",
            {
                "action": "dns_query",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 53124,
                "dnsname": "example.org",
                "dnstype": "MX",
                "dnsflags": "+",
                "protocol": "UDP",
            },
        ),
        (
            "client @0x7f3a9c0d2b68 192.0.2.7#53124 (example.org): query (cache) 'example.org/ANY/IN' denied",
            {
                "action": "dns_query",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 53124,
                "dnsname": "example.org",
                "dnstype": "ANY",
                "reason": "denied",
            },
        ),
        (
            "client @0x7f3a9c0d2b68 192.0.2.7#53124 (example.org): zone transfer 'example.org/AXFR/IN' denied",
            {
                "action": "zone_transfer",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 53124,
                "dnsname": "example.org",
                "dnstype": "AXFR",
                "reason": "denied",
            },
        ),
        ("zone example.org/IN: loaded serial 2026013101", {}),
        ("client of ours: query: none", {}),
        ("running", {}),
    ),
)
def named(line: str) -> Fields | None:
    """``client ADDRESS#PORT (NAME): [view VIEW: ]query: NAME CLASS TYPE FLAGS (SERVER)``"""
    place = line.find("client ", 0, 80)
    match = _CLIENT.match(line, place) if place >= 0 else None
    if match is None:
        return None
    fields: Fields = {"sourceipaddress": match[1], "sourceport": match[2]}
    rest = line[match.end() :]
    if rest.startswith("view "):
        rest = rest.partition(": ")[2]
    if rest.startswith("query: "):
        words = rest[7:].split(" ", 5)
        if len(words) < 4:
            return None
        fields |= {"action": "dns_query", "dnsname": words[0], "dnstype": words[2], "dnsflags": words[3]}
        fields["protocol"] = "TCP" if "T" in words[3] else "UDP"
        fields["destinationipaddress"] = words[4].strip("()") if len(words) > 4 else None
        return fields
    denied = _DENIED.fullmatch(rest)
    if denied is None:
        return None
    action = "zone_transfer" if denied[1] == "zone transfer" else "dns_query"
    fields |= {"action": action, "outcome": "failure", "dnsname": denied[2], "dnstype": denied[3], "reason": "denied"}
    return fields


_CLIENT = re.compile(r"client (?:@0x[0-9a-f]{1,16} )?([0-9A-Fa-f:.]{2,45})#([0-9]{1,5})(?: \([^ )]{1,255}\))?: ")
_DENIED = re.compile(
    r"(query(?: \(cache\))?|zone transfer) '([^ ']{1,255})/([A-Z0-9]{1,10})/[A-Z]{1,5}' denied.{0,100}"
)
