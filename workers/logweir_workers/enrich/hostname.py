"""hostname: the short name, in lower case; fqdn: the full name, where the event has one."""

from __future__ import annotations

import re
from functools import lru_cache

from logweir_workers.enrich import Event, enrichment
from logweir_workers.normalise.fields import Context

# The last label begins with a letter or "_": 192.0.2.7 has no labels to cut, and no top-level domain is a number.
_FULL_NAME = re.compile(r"([\w-]+)(?:\.[\w-]+)*\.[^\W\d][\w-]*")
_ABSOLUTE_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*\.")


@enrichment(
    adds=("hostname", "fqdn"),
    examples=(
        ({"hostname": "web1.example.org"}, {"hostname": "web1", "fqdn": "web1.example.org"}),
        ({"hostname": "WEB1.Example.org."}, {"hostname": "web1", "fqdn": "web1.example.org"}),
        ({"hostname": "Web1"}, {"hostname": "web1"}),
        ({"hostname": "WEB1."}, {"hostname": "web1"}),
        ({"hostname": "web1.", "fqdn": "Web1.example.org."}, {"hostname": "web1", "fqdn": "web1.example.org"}),
        ({"fqdn": "web1.example.org."}, {"hostname": "web1", "fqdn": "web1.example.org"}),
        ({"hostname": "192.0.2.7"}, {}),
        ({"hostname": "2001:DB8::7"}, {"hostname": "2001:db8::7"}),
        ({"hostname": "web1.example.org:8080"}, {}),
        ({"hostname": "v. 2 of the lab"}, {}),
        # An event that gives both names as it means them keeps both.
        ({"hostname": "web1.internal", "fqdn": "Web1.example.org"}, {"fqdn": "web1.example.org"}),
        ({"hostname": "web1.example.org", "fqdn": "web1.example.org"}, {"hostname": "web1"}),
        ({"fqdn": "web1.example.org"}, {"hostname": "web1"}),
        # No name is looked up: that would wait for the network, and give another answer tomorrow.
        ({"sourceaddress": "192.0.2.7"}, {"hostname": "192.0.2.7"}),
        ({}, {}),
    ),
)
def hostname(event: Event, _context: Context) -> None:
    """Cut a full name into both fields; an event without any host gets the address that it came from."""
    name = event.get("hostname") or event.get("fqdn") or event.get("sourceaddress")
    if name is None:
        return
    name, short = _names(name)
    full = event.get("fqdn")
    if full is not None:
        full = event["fqdn"] = _names(full)[0]
    if short is None or (full is not None and full != name):
        event["hostname"] = name
        return
    event["hostname"] = short
    if full is None:
        event["fqdn"] = name


@lru_cache(maxsize=4096)  # Most events are of a few hosts.
def _names(name: str) -> tuple[str, str | None]:
    """In lower case, without the final dot of an absolute name (RFC 1034 section 3.1); of a full name the short one."""
    name = name.lower()
    if _ABSOLUTE_NAME.fullmatch(name):
        name = name[:-1]
    full = _FULL_NAME.fullmatch(name) if "." in name else None
    return name, full[1] if full is not None else None
