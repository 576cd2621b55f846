"""The details that ``event.DETAILS`` knows: one name each, whatever senders call them, and values of one type.

docs/reference/event.md says the rules in words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from logweir.event import DETAILS, Kind

SYNONYMS: dict[str, tuple[str, ...]] = {
    "sourceipaddress": (
        "sourceipaddress",
        "source_ip_address",
        "sourceip",
        "source_ip",
        "srcip",
        "src_ip",
        "src",
        "srcaddr",
        "src_addr",
        "source.ip",
        "source.address",
        "clientip",
        "client_ip",
        "clientaddr",
        "client_addr",
        "client.ip",
        "client.address",
        "remoteip",
        "remote_ip",
        "remoteaddr",
        "remote_addr",
        "remoteaddress",
        "remote_address",
        "c-ip",
        "c_ip",
        "id.orig_h",
    ),
    "sourceport": (
        "sourceport",
        "source_port",
        "srcport",
        "src_port",
        "spt",
        "source.port",
        "clientport",
        "client_port",
        "client.port",
        "remoteport",
        "remote_port",
        "c-port",
        "id.orig_p",
    ),
    "destinationipaddress": (
        "destinationipaddress",
        "destination_ip_address",
        "destinationip",
        "destination_ip",
        "destip",
        "dest_ip",
        "dstip",
        "dst_ip",
        "dst",
        "dstaddr",
        "dst_addr",
        "destination.ip",
        "destination.address",
        "serverip",
        "server_ip",
        "server.ip",
        "server_addr",
        "server.address",
        "s-ip",
        "s_ip",
        "id.resp_h",
    ),
    "destinationport": (
        "destinationport",
        "destination_port",
        "destport",
        "dest_port",
        "dstport",
        "dst_port",
        "dpt",
        "destination.port",
        "server_port",
        "server.port",
        "s-port",
        "id.resp_p",
    ),
    "username": (
        "username",
        "user_name",
        "user",
        "user.name",
        "usr.name",
        "suser",
        "remote_user",
        "remoteuser",
        "cs-username",
        "cs_username",
        "client.user.name",
        "source.user.name",
        "enduser.id",
    ),
    "targetusername": (
        "targetusername",
        "target_username",
        "target_user_name",
        "targetuser",
        "target_user",
        "user.target.name",
        "duser",
        "dstuser",
        "dst_user",
        "destination.user.name",
    ),
    "action": ("action", "event_action", "event.action"),
    "outcome": ("outcome", "event_outcome", "event.outcome"),
    "status": (
        "status",
        "statuscode",
        "status_code",
        "http_status",
        "httpstatus",
        "http_status_code",
        "http.status_code",
        "http.response.status_code",
        "response_code",
        "responsecode",
        "sc-status",
        "sc_status",
    ),
    "bytes": (
        "bytes",
        "bytes_sent",
        "body_bytes_sent",
        "sc-bytes",
        "sc_bytes",
        "http.response.body.bytes",
        "http.response.bytes",
        "http.response.body.size",
    ),
    "duration": ("duration", "duration_s", "duration_seconds", "elapsed_s", "elapsed_seconds", "request_time"),
    "method": (
        "method",
        "http_method",
        "httpmethod",
        "http.method",
        "http.request.method",
        "request_method",
        "requestmethod",
        "cs-method",
        "cs_method",
    ),
    "protocol": (
        "protocol",
        "proto",
        "network.protocol",
        "network.protocol.name",
        "network.transport",
        "server_protocol",
        "cs-version",
        "cs_version",
    ),
    "path": (
        "path",
        "url_path",
        "uri_path",
        "request_path",
        "url.path",
        "cs-uri-stem",
        "cs_uri_stem",
    ),
    "query": (
        "query",
        "query_string",
        "querystring",
        "url_query",
        "uri_query",
        "url.query",
        "cs-uri-query",
        "cs_uri_query",
    ),
    "useragent": (
        "useragent",
        "user_agent",
        "user-agent",
        "http_user_agent",
        "httpuseragent",
        "http.useragent",
        "http.user_agent",
        "user_agent.original",
        "cs(user-agent)",
        "cs_user_agent",
    ),
    "referrer": (
        "referrer",
        "referer",
        "http_referer",
        "http_referrer",
        "http.referer",
        "http.request.referrer",
        "cs(referer)",
        "cs_referer",
    ),
    "country": (
        "country",
        "country_code",
        "countrycode",
        "geoip_country",
        "client.geo.country_iso_code",
        "source.geo.country_iso_code",
        "geoip.country_code2",
    ),
    "command": (
        "command",
        "cmd",
        "cmdline",
        "commandline",
        "command_line",
        "process.command_line",
        "_cmdline",
    ),
    "executable": ("executable", "exe", "process.executable", "_exe"),
    "parentexecutable": ("parentexecutable", "parent_executable", "parentimage", "process.parent.executable"),
    "filepath": ("filepath", "file_path", "file.path", "targetfilename"),
    "hash": ("hash", "file_hash", "filehash", "file.hash.sha256", "file.hash.sha1", "file.hash.md5"),
    "traceid": ("traceid", "trace_id", "trace.id"),
    "spanid": ("spanid", "span_id", "span.id"),
    "exceptiontype": ("exceptiontype", "exception_type", "exception.type", "error.type"),
    "exceptionmessage": ("exceptionmessage", "exception_message", "exception.message", "error.message"),
    "stacktrace": ("stacktrace", "stack_trace", "exception.stacktrace", "error.stack_trace"),
}
"""By known detail, the names that mean it, the strongest first. Case does not count."""

ADDRESS_LENGTH_MAX = 45
"""Longest spelling of an address: an IPv4 one inside of an IPv6 one."""

Fit = Callable[[Any], Any]
"""A value as its type, or None when it has not the form of the type."""


def name_known(details: dict[str, Any]) -> None:
    """Give the known details in ``details`` their names and types, in place; what does not fit stays as it was sent.

    Of several names for one detail the strongest whose value fits wins; the others stay, unless they say the same.
    """
    found: list[_Found] = []
    for name, value in details.items():
        spelling = _SPELLINGS.get(name) or _SPELLINGS.get(name.lower())
        if spelling is None:
            continue
        known, rank, fit, members = spelling
        if type(value) is dict:
            if members is not None:
                _look_into(value, (name,), members, found)
        elif known is not None and (fitting := fit(value)) is not None and (name != known or fitting is not value):
            found.append((rank, known, (name,), fitting))
    if not found:
        return
    found.sort(key=_rank)
    for _, known, path, value in found:
        if path == (known,):
            details[known] = value
        elif known not in details:
            _remove(details, path)
            details[known] = value
        elif details[known] == value:
            _remove(details, path)


_Found = tuple[int, str, tuple[str, ...], Any]
"""Rank of the name, the known detail, the names that lead to its value, and the value as its type."""


def _rank(found: _Found) -> int:
    return found[0]


def _look_into(
    value: dict[str, Any], path: tuple[str, ...], spellings: dict[str, _Spelling], found: list[_Found]
) -> None:
    """Append what the object at ``path`` has of known details: ``{"user": {"name": …}}`` is ``user.name``."""
    for name, inner in value.items():
        spelling = spellings.get(name)
        if spelling is None:
            continue
        known, rank, fit, members = spelling
        if type(inner) is dict:
            if members is not None:
                _look_into(inner, (*path, name), members, found)
        elif known is not None and (fitting := fit(inner)) is not None:
            found.append((rank, known, (*path, name), fitting))


def _remove(value: dict[str, Any], path: tuple[str, ...]) -> None:
    """Remove what is at ``path``, and the objects on the way there that are empty then."""
    name, rest = path[0], path[1:]
    if rest:
        _remove(value[name], rest)
        if value[name]:
            return
    del value[name]


# --- values ---------------------------------------------------------------------------------------------------------

_INTEGER_MAX = 2**63 - 1
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
_DIGITS_MAX = 15
"""Most digits of a number that a float certainly keeps."""
_OUTCOMES = {
    "success": "success",
    "succeeded": "success",
    "successful": "success",
    "failure": "failure",
    "failed": "failure",
    "fail": "failure",
}


def _address(value: Any) -> str | None:
    address = address_of(value) if type(value) is str else None
    return value if address == value else address


def address_of(text: str) -> str | None:
    """An address as it is kept: an IPv4 address inside of an IPv6 one as the IPv4 one. None for anything else."""
    # Longer ones would also fill the cache's memory.
    return _parsed_address(text) if len(text) <= ADDRESS_LENGTH_MAX else None


@lru_cache(maxsize=8192)
def _parsed_address(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:  # it means something on one host only, and no store takes it
            return None
        return str(address.ipv4_mapped or address)
    return str(address)


def _whole(value: Any) -> int | None:
    if type(value) is str:
        if value.isdigit() and len(value) < 19 and value.isascii() and (value[0] != "0" or len(value) == 1):
            return int(value)
        return int(value) if len(value) < 20 and _INTEGER.fullmatch(value) else None
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if type(value) is int and -_INTEGER_MAX <= value <= _INTEGER_MAX else None


def _number(value: Any) -> int | float | None:
    if type(value) is str and _DECIMAL.fullmatch(value) and len(value.replace(".", "").lstrip("-0")) <= _DIGITS_MAX:
        return float(value)
    return value if type(value) is float else _whole(value)


def _keyword(value: Any) -> str | None:
    # "-" is how access logs say that something is not known.
    if type(value) is str:
        return value if value != "-" and value[:1] > " " and value[-1:] > " " else _trimmed(value)
    return str(value) if type(value) is int else None


def _trimmed(text: str) -> str | None:
    text = text.strip()
    return None if text in ("", "-") else text


def _outcome(value: Any) -> str | None:
    return _OUTCOMES.get(value) or _OUTCOMES.get(value.lower()) if type(value) is str else None


_BY_KIND: dict[Kind, Fit] = {Kind.IP: _address, Kind.NUMBER: _whole, Kind.FLOAT: _number, Kind.KEYWORD: _keyword}
FITS: dict[str, Fit] = {field.name.removeprefix("details."): _BY_KIND[field.kind] for field in DETAILS}
FITS["outcome"] = _outcome
"""By known detail, how a value takes its type."""


# --- names ----------------------------------------------------------------------------------------------------------

_Spelling = tuple[str | None, int, Fit, dict[str, Any] | None]
"""The detail that a name means, if one; how strong the name is; how its value fits; what the name's members mean."""


def _spellings() -> dict[str, _Spelling]:
    spellings: dict[str, _Spelling] = {}
    for known, names in SYNONYMS.items():
        for rank, name in enumerate(names):
            spellings[name] = (known, rank, FITS[known], spellings[name][3] if name in spellings else None)
            _add_members(spellings, name, (known, rank, FITS[known], None))
    return spellings


def _add_members(spellings: dict[str, _Spelling], name: str, spelling: _Spelling) -> None:
    """Let ``{"a": {"b": …}}`` mean what the name ``a.b`` means."""
    first, dot, rest = name.partition(".")
    if not dot:
        spellings[name] = (*spelling[:3], spellings[name][3] if name in spellings else None)
        return
    known, rank, fit, members = spellings.get(first, (None, 0, _keyword, None))
    members = {} if members is None else members
    spellings[first] = (known, rank, fit, members)
    _add_members(members, rest, spelling)


_SPELLINGS = _spellings()
