"""What is kept of known details (``event.DETAILS``) beside their text: numbers and addresses, in their order.

Both stores and the matcher ask this file which value a detail has. A list, or a value that has not the form of the
detail's kind, has none, and is found by its text alone.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from logweir.event import DETAIL_BY_NAME, Kind

_PREFIX = "details."
SENDER = "sourceaddress"
"""The one field beside details that is an address."""
ORDERED: Mapping[str, Kind] = {
    SENDER: Kind.IP,
    **{name: field.kind for name, field in DETAIL_BY_NAME.items() if field.kind is not Kind.KEYWORD},
}
"""The fields that have an order without being one of ``event.FIELDS``' dates and numbers: IP, NUMBER or FLOAT."""
_ORDERED_DETAILS = {name.removeprefix(_PREFIX): kind for name, kind in ORDERED.items() if name != SENDER}
KEYWORDS = frozenset(name for name, field in DETAIL_BY_NAME.items() if field.kind is Kind.KEYWORD)
"""The details that are compared without regard to case, and by patterns."""
_INTEGER_MAX = 2**63 - 1
_ADDRESS_LENGTH_MAX = 45
_MAPPED = 0xFFFF << 32
ADDRESSES = 2**128
"""How many there are: every IPv6 address, with those of IPv4 as the mapped ones (RFC 4291 section 2.5.5.2)."""


def short(field: str) -> str:
    """What stores call the value that a field of ORDERED or KEYWORDS has beside its text."""
    return field.removeprefix(_PREFIX)


def ordered_values(source: Mapping[str, Any]) -> dict[str, int | float]:
    """By ``short`` name, the values of the fields of ORDERED that an event has: addresses as their numbers."""
    found: dict[str, int | float] = {}
    if (sender := _value(Kind.IP, source.get(SENDER))) is not None:
        found[SENDER] = sender
    details = source.get("details")
    if isinstance(details, dict):
        for name in _ORDERED_DETAILS.keys() & details.keys():
            if (value := _value(_ORDERED_DETAILS[name], details[name])) is not None:
                found[name] = value
    return found


def ordered_value(source: Mapping[str, Any], field: str) -> int | float | None:
    """The value of one field of ORDERED."""
    if field == SENDER:
        return _value(Kind.IP, source.get(SENDER))
    details = source.get("details")
    return _value(ORDERED[field], details.get(short(field))) if isinstance(details, dict) else None


def _value(kind: Kind, value: object) -> int | float | None:
    if kind is Kind.IP:
        return address_number(value) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind is Kind.FLOAT:
        # Elasticsearch puts -0.0 below 0.0.
        return float(value) + 0.0 if abs(value) <= _INTEGER_MAX or math.isfinite(value) else None
    return value if isinstance(value, int) and abs(value) <= _INTEGER_MAX else None


def address_number(text: str) -> int | None:
    """An address as a number of 128 bits; None for what is none, and for one that means something on one host only."""
    return _parsed(text) if len(text) <= _ADDRESS_LENGTH_MAX else None


@lru_cache(maxsize=8192)
def _parsed(text: str) -> int | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return _number_of(address)


def _number_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int | None:
    if isinstance(address, ipaddress.IPv4Address):
        return _MAPPED | int(address)
    return None if address.scope_id is not None else int(address)


def network_range(text: str) -> tuple[int, int] | None:
    """The first address of a network such as 10.0.0.0/8 and the first behind it, as numbers; None for what is none."""
    if "/" not in text:
        return None
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    first = _number_of(network.network_address)
    return None if first is None else (first, first + network.num_addresses)


def address_text(number: int) -> str:
    """The address of a number, as IPv6 has it."""
    return str(ipaddress.IPv6Address(number))
