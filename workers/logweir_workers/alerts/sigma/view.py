"""An event as Sigma's rules look at it: their names of fields, and the log sources that it is of.

Rules stay as they are written, and events as they are stored. A field is looked for under its own name, whatever its
case, then under the names that logweir and its parsers have for it; what neither has is worked out where that is
possible (a whole URL, an audit record's arguments).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from logweir.event import FIELD_BY_NAME, Document
from logweir.query.match import text_of
from logweir_workers.alerts.sigma.channels import (
    LINUX_SERVICES,
    OF_EVENT_ID,
    OF_SYSMON,
    SERVICES_OF_CHANNEL,
    SYSMON,
    WELL_KNOWN,
)
from logweir_workers.normalise.details import SYNONYMS

_TOP = frozenset(FIELD_BY_NAME) - {"details", "ingest_stream", "ingest_number", "content_hash"}
_SAID = ("summary", "processname", "hostname", "source")
"""Fields beside details that a rule's words are looked for in: what the sender said, not what we say of it."""
_VALUES_MAX = 10_000
"""Values of one event that are looked at."""


class View:
    """One event. Each field is worked out once, when it is asked for."""

    __slots__ = ("_all_low", "_flat", "_record", "document", "low", "raw", "sources")

    def __init__(self, document: Document) -> None:
        self.document = document
        self._flat: dict[str, list[str]] | None = None
        self._all_low: str | None = None
        self._record: dict[str, list[str]] | None = None
        self.raw: dict[str, list[str]] = _Raw(self)
        """By a field's name in Sigma, its values as text; none where the event does not have it."""
        self.low: dict[str, list[str]] = _Low(self.raw)
        """The same in lower case."""
        self.sources = _marks(document, self.flat)
        """What tells the log sources that the event is of (see ``fits``)."""

    @property
    def flat(self) -> dict[str, list[str]]:
        """The texts of details by path, in lower case."""
        if self._flat is None:
            self._flat = {}
            details = self.document.source.get("details")
            if details:
                opened = details.keys() & _OPENED
                _flatten("", {k: v for k, v in details.items() if k not in opened} if opened else details, self._flat)
                for name in sorted(opened):
                    _open(details[name], self._flat)
        return self._flat

    def all_values(self) -> list[str]:
        """Whatever the sender said."""
        top = [text for name in _SAID for text in _texts_of(self.document.source.get(name))]
        return [*top, *(text for texts in self.flat.values() for text in texts)]

    @property
    def all_low(self) -> str:
        """All of it, in lower case, one value a line."""
        if self._all_low is None:
            self._all_low = "\n".join(self.all_values()).lower()
        return self._all_low

    @property
    def record(self) -> dict[str, list[str]]:
        """Of a record of Linux' audit, its members as the line has them, and its command's arguments, one by one."""
        if self._record is None:
            self._record = {}
            for name, value in _MEMBER.findall(str(self.document.source.get("summary") or "")[:_MEMBERS_TEXT_MAX]):
                # Where a record has a name in both cases, the upper one is the readable one.
                if name.isupper() or name.lower() not in self._record:
                    self._record[name.lower()] = [value[1:-1] if value[0] in "\"'" else _unpacked(name, value)]
            if "a0" not in self._record:
                # Whoever sends the command as a whole, such as audisp-json.
                for command in self.flat.get("command", ())[:1]:
                    for at, part in enumerate(_parts(command)[:_ARGUMENTS_MAX]):
                        self._record[f"a{at}"] = [part]
        return self._record


class _Raw(dict[str, list[str]]):
    __slots__ = ("_view",)

    def __init__(self, view: View) -> None:
        self._view = view

    def __missing__(self, field: str) -> list[str]:
        found = self[field] = _find(self._view, field.lower())
        return found


class _Low(dict[str, list[str]]):
    __slots__ = ("_raw",)

    def __init__(self, raw: dict[str, list[str]]) -> None:
        self._raw = raw

    def __missing__(self, field: str) -> list[str]:
        found = self[field] = [text.lower() for text in self._raw[field]]
        return found


def _texts_of(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, list):
        return [text for one in value for text in _texts_of(one)]
    return [text_of(value)]


_OPENED = frozenset(("winlog", "detail"))
"""Objects at the top whose members count as the event's own: of Winlogbeat, and of EventBridge."""
_OPENED_WITHIN = frozenset(("event_data", "user_data", "eventdata", "userdata"))


def _flatten(prefix: str, values: dict[str, Any], flat: dict[str, list[str]]) -> None:
    for name, value in values.items():
        path = prefix + name.lower()
        kind = type(value)
        if kind is str:
            if path in flat:
                flat[path].append(value)
            else:
                flat[path] = [value]
        elif kind is dict:
            _flatten(path + ".", value, flat)
        elif kind is list:
            for one in value:
                _flatten(prefix, {name: one}, flat)
        elif value is not None:
            flat.setdefault(path, []).append(text_of(value))
        if len(flat) > _VALUES_MAX:
            return


def _open(values: Any, flat: dict[str, list[str]]) -> None:
    if type(values) is not dict:
        return
    _flatten("", {name: value for name, value in values.items() if name.lower() not in _OPENED_WITHIN}, flat)
    for name, value in values.items():
        if name.lower() in _OPENED_WITHIN and type(value) is dict:
            # What Windows says goes before what a parser has made of it, such as targetusername.
            own: dict[str, list[str]] = {}
            _flatten("", value, own)
            flat.update(own)


# --- fields ---------------------------------------------------------------------------------------------------------
_MORE_NAMES: dict[str, tuple[str, ...]] = {
    # Of Windows and Sysmon; 4688 of the security log says the same as Sysmon's 1 by other names.
    "image": ("newprocessname", "executable", "process", "processpath", "processname"),
    "parentimage": ("parentprocessname", "parentexecutable", "parentprocess"),
    "commandline": ("processcommandline", "command"),
    "user": ("subjectusername", "username"),
    "currentdirectory": ("cwd", "pwd"),
    "eventid": ("event_id", "eventcode", "event.code"),
    "provider_name": ("sourcename", "providername", "source"),
    "channel": ("log_name", "logname"),
    "computername": ("computer", "hostname"),
    "computer": ("hostname",),
    "message": ("summary",),
    "targetfilename": ("filepath",),
    "filename": ("filepath",),
    "ipaddress": ("sourceipaddress",),
    "ipport": ("sourceport",),
    "targetusername": ("targetusername", "username"),
    # Of name servers.
    "queryname": ("dnsname",),
    "query": ("dnsname", "dns.question.name"),
    "record_type": ("dnstype",),
    "qtype_name": ("dnstype",),
    # Of web servers and proxies.
    "cs-user-agent": ("useragent",),
    "c-useragent": ("useragent",),
    "cs-referrer": ("referrer",),
    "cs-referer": ("referrer",),
    "c-uri-stem": ("path",),
    "cs-host": ("host", "virtualhost", "vhost"),
    "cs-ip": ("sourceipaddress",),
    # Of Linux' audit.
    "type": ("recordtype",),
    "key": ("auditkey",),
    "name": ("filepath",),
    # Of clouds.
    "gcp.audit.method_name": ("protopayload.methodname", "protopayload.method_name"),
    "gcp.audit.service_name": ("protopayload.servicename",),
    "eventservice": ("protopayload.servicename",),
    "outcome.result": ("outcome_2.result",),
    "outcome.reason": ("outcome_2.reason",),
    "sourceipaddress": ("ipaddress",),
}


def _names() -> dict[str, tuple[str, ...]]:
    """By a name in lower case, what else it may be called, the nearest first."""
    names: dict[str, tuple[str, ...]] = {
        spelling: (known,) for known, spellings in SYNONYMS.items() for spelling in spellings if spelling != known
    }
    for name, others in _MORE_NAMES.items():
        names[name] = tuple(dict.fromkeys((*others, *names.get(name, ()))))
    return names


_NAMES = _names()


def _find(view: View, name: str) -> list[str]:
    flat = view.flat
    found = flat.get(name)
    if found is not None:
        return found
    made = _MADE.get(name)
    if made is not None and (texts := made(view)):
        return texts
    for other in _NAMES.get(name, ()):
        found = flat.get(other)
        if found is None and other in _TOP:
            found = _texts_of(view.document.source.get(other))
        if found:
            return _as_paths(found) if name in ("image", "parentimage") else found
    if name in _TOP and (found := _texts_of(view.document.source.get(name))):
        return found
    if view.sources.is_audit:
        return view.record.get(name, [])
    return []


def places_of(field: str) -> tuple[frozenset[str], bool]:
    """The paths in details, one of which an event must have to have the field; whether it may have it without them.

    Records of Linux' audit are an exception: theirs are in the line, too.
    """
    name = field.lower()
    names = {name, *_NAMES.get(name, ())}
    return frozenset(names), name in _MADE or not names.isdisjoint(_TOP)


def _as_paths(texts: list[str]) -> list[str]:
    """Rules ask how a program's path ends: ``/nc``. Where only its name is known, as if it were one."""
    return [text if "/" in text or "\\" in text else f"/{text}" for text in texts]


def _url(view: View) -> list[str]:
    """Path and query of a request, as one."""
    whole = view.flat.get("c-uri") or view.flat.get("cs-uri") or view.flat.get("url") or view.flat.get("requesturi")
    path, query = view.flat.get("path"), view.flat.get("query")
    if whole or not path:
        return whole or query or []
    return [f"{path[0]}?{query[0]}"] if query else path[:1]


def _extension(view: View) -> list[str]:
    path = (view.flat.get("path") or [""])[0].rpartition("/")[2]
    return [path.rpartition(".")[2]] if "." in path else []


def _host(view: View) -> list[str]:
    """The host of a URL that names one, as a proxy's do."""
    found = _HOST.match((view.flat.get("path") or [""])[0])
    return [found[1]] if found else []


_HOST = re.compile(r"(?:[a-z][a-z0-9+.-]*://)([^/:?#]+)", re.IGNORECASE)

_MADE: dict[str, Callable[[View], list[str]]] = {
    "c-uri": _url,
    "cs-uri": _url,
    # As SigmaHQ's rules use it, with the path in it.
    "cs-uri-query": _url,
    "c-uri-query": _url,
    "c-uri-extension": _extension,
    "cs-host": _host,
    "r-dns": _host,
    "destinationhostname": _host,
}
"""Fields that are made of others."""

_MEMBER = re.compile(r"""\b([A-Za-z][A-Za-z0-9_]*)=("[^"]*"|'[^']*'|\S+)""")
_PART = re.compile(r"""(?:"[^"]*"|'[^']*'|\S)+""")
_PACKED = re.compile(r"(?:[0-9A-F]{2})+")
_MEMBERS_TEXT_MAX = 16_384
_ARGUMENTS_MAX = 100


def _unpacked(name: str, value: str) -> str:
    """An argument as it was: those with blanks and the like are in hexadecimal digits, without quotes."""
    if name[0] == "a" and name[1:].isdigit() and _PACKED.fullmatch(value):
        return bytes.fromhex(value).decode(errors="replace")
    return value


def _parts(command: str) -> list[str]:
    """A command's arguments, roughly as a shell cuts them."""
    found = _PART.findall(command[:_MEMBERS_TEXT_MAX])
    return [one[1:-1] if len(one) > 1 and one[0] in "\"'" and one[-1] == one[0] else one for one in found]


# --- log sources ----------------------------------------------------------------------------------------------------
class Marks(NamedTuple):
    """What tells which log sources an event is of."""

    categories: frozenset[str]
    products: frozenset[str]
    services: frozenset[str]
    names: frozenset[str]
    """What the event calls itself, which may be any of the three."""
    is_audit: bool = False
    """It is a record of Linux' audit."""


_SYSTEMS = ("windows", "linux", "macos")
_DEVICES = frozenset(("cisco", "fortigate", "fortios", "huawei", "juniper", "paloalto"))
"""Whose events do not say which of their services they are of."""


def fits(marks: Marks, logsource: tuple[str, str, str]) -> bool:
    """Whether an event is of a log source: category, product and service, each empty where any will do."""
    category, product, service = logsource
    if product and product not in marks.products and product not in marks.names:
        return False
    if service and service not in marks.services and service not in marks.names and product not in _DEVICES:
        return False
    if not category or category in marks.categories or category in marks.names:
        return True
    return category in ("application", "appliance") and bool(product) and product not in _SYSTEMS


def _marks(document: Document, flat: dict[str, list[str]]) -> Marks:
    source = document.source
    process = source.get("processname")
    process = process.lower() if type(process) is str else ""
    category = source.get("category")
    category = category.lower() if type(category) is str else ""
    first = flat.get
    channel, number = first("channel") or first("log_name"), first("eventid") or first("event_id") or first("eventcode")
    if number and (channel or "provider_name" in flat or "sourcename" in flat):
        kind = (first("eventtype") or _NONE)[0]
        return _windows((channel or _NONE)[0][:128].lower(), number[0][:16], kind[:16].lower(), category[:64])
    cloud = _cloud(flat)
    action = (first("action") or _NONE)[0]
    is_web = "method" in flat and "path" in flat
    named = tuple(texts[0][:64].lower() for name in _NAMED if (texts := first(name)) is not None)
    system = (first("os") or first("platform") or first("host.os.type") or first("os.type") or _NONE)[0].lower()[:16]
    typed, said = source.get("type"), source.get("source")
    return _other(
        process[:64],
        category[:64],
        action if action in _ACTIONS else "",
        cloud,
        "recordtype" in flat or process == "audisp-json",
        (first("nametype") or _NONE)[0].lower()[:16],
        is_web,
        "command" in flat,
        system,
        typed.lower()[:64] if type(typed) is str else "",
        said.lower()[:64].partition(".")[0] if type(said) is str else "",
        named,
    )


_NONE = [""]
_ACTIONS = frozenset(("execute", "run_command", "dns_query", "path"))
_NAMED = (
    "logsource.category",
    "logsource.product",
    "logsource.service",
    "product",
    "vendor",
    "service",
    "devicevendor",
    "deviceproduct",
    "device_vendor",
    "device_product",
    "event.module",
    "event.dataset",
    "log_type",
)
"""Details by which senders say what an event is of; the first three are for who wants to say it in Sigma's words."""

_CACHED = 4_096


@lru_cache(maxsize=_CACHED)
def _windows(channel: str, number: str, kind: str, category: str) -> Marks:
    services = SERVICES_OF_CHANNEL.get(channel, ())
    categories = OF_SYSMON.get(number, ()) if channel == SYSMON else OF_EVENT_ID.get((channel, number), ())
    if "registry_event" in categories and channel == SYSMON and number == "12":
        wanted = {
            "createkey": ("registry_add",),
            "deletekey": ("registry_delete",),
            "deletevalue": ("registry_delete",),
        }
        categories = ("registry_event", *wanted.get(kind, ("registry_add", "registry_delete")))
    names = {category} - {""}
    return Marks(frozenset(categories), frozenset(("windows",)), frozenset(services), frozenset(names))


def _cloud(flat: dict[str, list[str]]) -> tuple[str, ...]:
    """Product and services of what a cloud or an application recorded, by members that only it has."""
    if "eventsource" in flat and "eventname" in flat:
        return ("aws", "cloudtrail")
    if "legacyeventtype" in flat:
        return ("okta", "okta")
    if "auditid" in flat and "verb" in flat:
        return ("kubernetes", "audit")
    if "_document_id" in flat or "actor_location.country_code" in flat:
        return ("github", "audit")
    if "audittype.action" in flat:
        return ("bitbucket", "audit")
    if "gcp.audit.method_name" in flat or "protopayload.methodname" in flat or "protopayload.servicename" in flat:
        service = (flat.get("protopayload.servicename") or _NONE)[0]
        return ("gcp", "gcp.audit", *_WORKSPACE.get(service, ()))
    if "logtype" in flat and "node_id" in flat:
        return ("opencanary",)
    if "workload" in flat and "operation" in flat:
        return ("m365", "audit", "exchange", "threat_management", "threat_detection")
    if "riskeventtype" in flat:
        return ("azure", "riskdetection", "pim")
    if "operationname" in flat or "operationnamevalue" in flat:
        return ("azure", "activitylogs", "auditlogs", "signinlogs")
    if "id.orig_h" in flat or "_path" in flat:
        return ("zeek", (flat.get("_path") or _NONE)[0][:64].lower())
    return ()


_WORKSPACE = {
    "admin.googleapis.com": ("google_workspace.admin",),
    "login.googleapis.com": ("google_workspace.login",),
}


@lru_cache(maxsize=_CACHED)
def _other(
    process: str,
    category: str,
    action: str,
    cloud: tuple[str, ...],
    is_audit: bool,
    name_type: str,
    is_web: bool,
    has_command: bool,
    system: str,
    type_: str,
    source: str,
    named: tuple[str, ...],
) -> Marks:
    categories: set[str] = set()
    services: set[str] = set(cloud[1:])
    names = {process, category, type_, source, *named}
    for name in tuple(names):
        names.update(WELL_KNOWN.get(name, ()))
    products = {cloud[0]} if cloud else set()
    is_macos = system in ("macos", "darwin", "osx", "mac")
    if is_macos:
        products.add("macos")
    elif is_audit or (process and not cloud):
        products.add("linux")
        services.update(("syslog", *LINUX_SERVICES.get(process, ())))
        if category == "authentication":
            services.add("auth")
    if is_audit:
        services.add("auditd")
    if has_command and action in ("execute", "run_command"):
        categories.add("process_creation")
    if name_type == "create":
        categories.add("file_event")
    if action == "dns_query":
        categories.add("dns")
    if is_web:
        categories.add("proxy" if "squid" in names or "proxy" in names else "webserver")
    return Marks(
        frozenset(categories), frozenset(products), frozenset(services), frozenset(names - {""}), is_audit=is_audit
    )
