"""What people type who know another search language, or the field by the name that their events have: what to write."""

from __future__ import annotations

import difflib
import ipaddress
import re

from logweir.event import FIELDS

SEVERITIES = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")
"""Every severity that a stored event can have, in the order of syslog's numbers (RFC 5424 section 6.2.1)."""

SENT_AS = {
    "host": "hostname",
    "pid": "processid",
    "process_id": "processid",
    "procid": "processid",
    "program": "processname",
    "programname": "processname",
    "process": "processname",
    "ident": "processname",
    "app_name": "processname",
    "level": "severity",
    "loglevel": "severity",
    "lvl": "severity",
    "priority": "severity",
    "logger": "source",
    "msg": "summary",
    "log": "summary",
    "event": "summary",
    "short_message": "summary",
    "tag": "tags",
    "time": "timestamp",
    "ts": "timestamp",
    "date": "timestamp",
    "datetime": "timestamp",
    "user": "details.username",
    "user_name": "details.username",
    "remote_user": "details.username",
    "target_user": "details.targetusername",
    "src": "details.sourceipaddress",
    "src_ip": "details.sourceipaddress",
    "srcip": "details.sourceipaddress",
    "source_ip": "details.sourceipaddress",
    "client_ip": "details.sourceipaddress",
    "clientip": "details.sourceipaddress",
    "remote_addr": "details.sourceipaddress",
    "src_port": "details.sourceport",
    "dst": "details.destinationipaddress",
    "dst_ip": "details.destinationipaddress",
    "dstip": "details.destinationipaddress",
    "dest_ip": "details.destinationipaddress",
    "dst_port": "details.destinationport",
    "dest_port": "details.destinationport",
    "status_code": "details.status",
    "http_status": "details.status",
    "user_agent": "details.useragent",
    "http_user_agent": "details.useragent",
    "referer": "details.referrer",
    "http_method": "details.method",
    "proto": "details.protocol",
    "cmd": "details.command",
    "exe": "details.executable",
}
"""Names that events are often sent with, and what they become; a search for such a detail looks for both."""

_KNOWN = {name.lower(): name for field in FIELDS for name in (field.name, field.ecs) if name}
_PLAIN_NAME = re.compile(r"[^\W\d][\w.@-]*")
_META = {
    "_missing_": " To ask whether a field is absent, write NOT hostname:*.",
    "_id": " An id cannot be searched for; ingest_stream and ingest_number together find one event.",
    "_index": " An index cannot be searched for; receivedtimestamp has the day.",
    "_all": " To look in all fields, write the word alone.",
    "*": " To look in all fields, write the word alone.",
}
SEVERITY_BY_SPELLING = {
    **{name.lower(): name for name in SEVERITIES},
    **{str(number): name for number, name in enumerate(SEVERITIES)},
    "emerg": "EMERGENCY",
    "panic": "EMERGENCY",
    "crit": "CRITICAL",
    "fatal": "CRITICAL",
    "err": "ERROR",
    "severe": "ERROR",
    "warn": "WARNING",
    "notification": "NOTICE",
    "information": "INFO",
    "informational": "INFO",
    **dict.fromkeys(("trace", "verbose", "fine", "finer", "finest"), "DEBUG"),
}
"""What people type, and what the severities are called that it means. A digit is syslog's number."""


def for_field(name: str, value: str) -> str:
    """What to write instead of a field that there is not; ``value`` is what was typed behind its colon."""
    if name.lower() == "_exists_":
        return f" To ask whether a field is there, write {value.strip(chr(34)) or 'hostname'}:*."
    if name.lower() in _META:
        return _META[name.lower()]
    if value.startswith("//"):
        return f' An address needs quotes: "{name}:{value}".'
    if re.fullmatch(r"[A-Za-z]", name) and value.startswith("\\"):
        doubled = re.sub(r"\\+", r"\\\\", value)
        return f' A path needs quotes, and two backslashes for each: "{name}:{doubled}".'
    if "*" in name or "?" in name:
        return " The name of a field takes no wildcards."
    if nearest := _nearest(name):
        return f" Did you mean {nearest!r}?"
    if re.match(r"[\d[]", name):
        return f' Text with a colon in it needs quotes: "{name}:{value}".'
    return f" Did you mean 'details.{name}'?" if _PLAIN_NAME.fullmatch(name) else ""


def known_detail(field: str) -> str | None:
    """What the detail of this name is stored as, when that is another name; None for all other fields."""
    if not field.startswith("details."):
        return None
    known = SENT_AS.get(field.removeprefix("details.").lower(), "")
    return known if known.startswith("details.") else None


def _nearest(name: str) -> str | None:
    """The field whose name is this but for its case, what is sent under this name, or what is spelled nearly so."""
    lowered = name.lower()
    first, dot, rest = name.partition(".")
    if dot and rest and difflib.SequenceMatcher(None, first.lower(), "details").ratio() > 0.8:
        known = SENT_AS.get(rest.lower(), "")
        return known if known.startswith("details.") else f"details.{rest}"
    found = _KNOWN.get(lowered) or SENT_AS.get(lowered) or _KNOWN.get(lowered.removeprefix("_"))
    if found:
        return found
    # user.name is no slip of the pen for host.name, nor is username one for hostname: both are below details.
    nearest = difflib.get_close_matches(lowered, _KNOWN, n=1, cutoff=0.85 if dot else 0.75)
    return _KNOWN[nearest[0]] if nearest else None


def severity_of(text: str) -> str | None:
    """The severity that is meant, in any of its spellings; None for what is none."""
    return SEVERITY_BY_SPELLING.get(text.lower())


def for_severity(text: str) -> str:
    """What to write instead of a severity that there is not."""
    lowered = text.lower()
    begins = [name for name in SEVERITIES if lowered and name.lower().startswith(lowered)]
    nearest = difflib.get_close_matches(text.upper(), SEVERITIES, n=1)
    found = [*begins, *nearest]
    return f" (perhaps {found[0]} is meant)" if found else ""


def is_network(text: str) -> bool:
    """Whether the text is a range of addresses, such as 10.0.0.0/8."""
    if "/" not in text:
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def address_of(text: str) -> str | None:
    """The address as a stored event spells it; None for what is none."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
