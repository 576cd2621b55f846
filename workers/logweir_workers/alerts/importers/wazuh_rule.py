"""One rule of Wazuh 4: what it asks of an event itself, without its parents."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from logweir_workers.alerts.importers import wazuh_expressions as expressions
from logweir_workers.alerts.importers.conditions import ALWAYS, Leaf, Tree, Unfit, all_of, none_of, one_of
from logweir_workers.alerts.importers.fields import Place, place_of
from logweir_workers.alerts.importers.wazuh_xml import Element
from logweir_workers.alerts.sigma.parsing import Unfit as NoList
from logweir_workers.alerts.sigma.parsing import list_of

NUMBERS = re.compile(r"\d{1,9}")
_SUMMARY = Place("summary")
_SAID = ("description", "group", "info", "cve", "mitre", "options", "ignore")
"""Elements that ask nothing of an event."""
PARENTS = ("if_sid", "if_group", "if_matched_sid", "if_matched_group", "if_level", "if_matched_level")
TEXTS = {
    "match": (_SUMMARY, expressions.SREGEX),
    "regex": (_SUMMARY, expressions.OSREGEX),
    "hostname": (Place("hostname"), expressions.SREGEX),
    "program_name": (Place("processname"), expressions.SREGEX),
    "srcport": (Place("details.sourceport"), expressions.SREGEX),
    "dstport": (Place("details.destinationport"), expressions.SREGEX),
    "protocol": (Place("details.protocol"), expressions.SREGEX),
    "status": (Place("details.status"), expressions.SREGEX),
    "action": (Place("details.action"), expressions.STRING),
    "url": (Place("details.c-uri"), expressions.SREGEX),
    "id": (Place("details.status"), expressions.SREGEX),
    "user": (Place("details.username"), expressions.SREGEX),
}
"""By element, the field that it asks, and what kind its expressions are."""
_DECODED = {
    "srcip": "details.sourceipaddress",
    "dstip": "details.destinationipaddress",
    "srcport": "details.sourceport",
    "dstport": "details.destinationport",
    "srcuser": "details.username",
    "dstuser": "details.targetusername",
    "user": "details.username",
    "url": "details.path",
    "protocol": "details.protocol",
    "action": "details.action",
    "status": "details.status",
    "program_name": "processname",
    "hostname": "hostname",
    "location": "hostname",
    "full_log": "summary",
    "win.system.providerName": "details.Provider_Name",
    "audit.file.name": "details.filepath",
    "audit.command": "details.comm",
}
"""By the name of one of Wazuh's own fields, ours."""
_MADE = ("win.system.severityValue", "audit.directory.name")
_PREFIXES = ("win.system.", "win.eventdata.", "audit.", "aws.", "office365.", "github.", "gcp.")
"""What Wazuh writes before the names that a record's own sender has."""
OBJECTS = {"json", "windows_eventchannel"}
"""Decoders of what is no line of text."""
OF_WEB = {"web-log", "web-accesslog", "nginx-accesslog", "apache-accesslog"}
"""Decoders, and the category, of access lines: their id is the status."""
_AUDIT: Tree = Leaf("recordtype", "exists", (True,))
_PROGRAMS = ("sshd", "sudo", "su", "named", "postfix", "vsftpd", "proftpd", "pure-ftpd", "smbd", "dropbear")
_OWN = ("syscheck", "rootcheck", "syscollector", "ciscat", "ossec", "hostinfo", "vulnerability", "wazuh")
_WEB: Tree = all_of(Leaf(name, "exists", (True,)) for name in ("method", "path", "status"))
_WINDOWS: Tree = all_of(Leaf(name, "exists", (True,)) for name in ("Channel", "EventID"))
LEFT = {
    "time": "it is for some hours of the day, by the clock of Wazuh's manager",
    "weekday": "it is for some days of the week, by the clock of Wazuh's manager",
    "location": "it asks for the agent and file that a line came from",
    "if_fts": "it is for what is seen for the first time, of what a decoder of Wazuh's names",
    "if_level": "its parents are all rules of a level",
    "if_matched_level": "it counts all rules of a level",
    "check_if_ignored": "it is silent about what an alert before has had ignored",
    "compiled_rule": "it asks a function that is compiled into Wazuh",
    "check_diff": "it compares with what a command printed the last time",
}


@dataclass(slots=True)
class Rule:
    """One rule, as Wazuh has it."""

    id: int
    element: Element
    groups: list[str]
    path: PurePosixPath | None
    """None of one that is not to be taken."""
    order: int

    @property
    def label(self) -> str:
        return f"rule {self.id}"

    @property
    def name(self) -> str:
        return f"rule_{self.id}"

    @property
    def level(self) -> int:
        return int(self.element.attributes["level"])

    @property
    def alerts(self) -> bool:
        options = {one.text.strip() for one in self.element.all("options")}
        is_quiet = self.element.attributes.get("noalert", "0") not in ("0", "no", "")
        return self.level > 0 and not is_quiet and not options & {"no_log", "no_alert"}

    @property
    def counts(self) -> bool:
        """It is about several events."""
        return any(one.name.startswith("if_matched_") for one in self.element.children)

    def texts(self, name: str) -> list[str]:
        return [one.text.strip() for one in self.element.all(name)]

    def numbers(self, name: str) -> list[int]:
        return [int(one) for text in self.texts(name) for one in NUMBERS.findall(text)]

    def number(self, name: str) -> int | None:
        """An attribute's. Raises Unfit."""
        text = self.element.attributes.get(name)
        if text is None:
            return None
        if not NUMBERS.fullmatch(text):
            raise Unfit(f"its {name} is {text[:30]!r}, which is no number")
        return int(text)

    def own(self) -> Tree:
        """What it asks of an event itself, without its parents. Raises Unfit."""
        names = {one.name for one in self.element.children}
        if not self.counts and (self.number("frequency") is not None or any(map(_is_about_several, names))):
            raise Unfit("it counts, and does not say what is counted (if_matched_sid, if_matched_group)")
        if self.number("maxsize") is not None:
            raise Unfit("it is for events of some length (maxsize)")
        parts: list[Tree] = []
        done: set[str] = set()
        for one in self.element.children:
            name = one.name
            if name in _SAID or name in PARENTS[:4] or _is_about_several(name) or name in done:
                continue
            parts.append(self._asked(name, one))
            if name not in ("field", "list"):
                done.add(name)  # Several of one name are taken together.
        return all_of(parts)

    def _asked(self, name: str, one: Element) -> Tree:
        if name in LEFT:
            raise Unfit(f"{LEFT[name]} (<{name}>)")
        if name == "field":
            return _of_text(_field(one.attributes.get("name", "")), one.text, [one], expressions.OSREGEX)
        if name == "list":
            return _of_list(one)
        if name == "decoded_as":
            return _decoded_as(one.text.strip())
        if name == "category":
            return _category(one.text.strip(), self.texts("decoded_as"))
        several = list(self.element.all(one.name))
        if name in ("srcip", "dstip"):
            return _of_addresses(Place(_DECODED[name]), several)
        # loadmemory of Wazuh's puts them one behind the other: | at the end of one goes on in the next.
        text = "".join(each.text for each in several)
        if name not in TEXTS:
            raise Unfit(f"it asks with <{name[:40]}>, for which there is nothing like it here")
        place, kind = TEXTS[name]
        asked = _of_text(place, text, several, kind)
        if name != "user":
            return asked
        # Whom it was done to, where that is known; else who did it.
        target = Place("details.targetusername")
        there = target.asked("exists", (True,))
        return one_of([_of_text(target, text, several, kind), all_of([none_of(there), asked])])


def _is_about_several(element: str) -> bool:
    """Whether an element says how several events go together."""
    return element == "global_frequency" or element.startswith(("same_", "different_", "not_same_"))


def _of_text(place: Place, text: str, elements: Sequence[Element], default: str) -> Tree:
    """One element's expression; of several the last says which kind it is, and whether it is negated."""
    attributes = elements[-1].attributes
    made = expressions.asked_of(place, text.strip("\n") if "\n" in text else text, kind_in(attributes, default))
    if attributes.get("negate", "no").lower() != "yes":
        return place.asked("exists", (True,)) if made == ALWAYS and place != _SUMMARY else made
    # Without the field, Wazuh's rule does not hold, negated or not.
    there = [] if place == _SUMMARY else [place.asked("exists", (True,))]
    return all_of([*there, none_of(made)])


def kind_in(attributes: Mapping[str, str], default: str) -> str:
    return expressions.kind_of(attributes.get("type", ""), default)


def _field(name: str) -> Place:
    """Where an event has one of Wazuh's dynamic fields."""
    known = _DECODED.get(name)
    if known is not None:
        return Place(known)
    if name in _MADE:
        raise Unfit(f"it asks for {name}, which is made by Wazuh's decoder, and is in no event here")
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            place_of(name)  # It can be written.
            return Place(f"details.{name}")
    return place_of(name)


def group_path(name: str) -> str:
    """The same, by the path that it is stored at."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return _DECODED.get(name) or place_of(name).path


def _of_addresses(place: Place, elements: Iterable[Element]) -> Tree:
    wanted: list[str] = []
    is_negated = False
    for one in elements:
        text = one.text.strip()
        is_negated = text.startswith("!") or one.attributes.get("negate", "no").lower() == "yes"
        try:
            wanted.append(str(ipaddress.ip_network(text.lstrip("!").strip(), strict=False)))
        except ValueError as error:
            raise Unfit(f"it asks for the address {text[:50]!r}, which is none") from error
    if is_negated and len(wanted) > 1:
        raise Unfit("it has several addresses of which one is negated")
    there, within = place.asked("exists", (True,)), place.asked("cidr", tuple(wanted))
    return all_of([there, none_of(within)]) if is_negated else within


_LOOKUPS = ("match_key", "not_match_key", "address_match_key", "not_address_match_key")


def _of_list(one: Element) -> Tree:
    lookup = one.attributes.get("lookup", "match_key")
    if lookup not in _LOOKUPS:
        raise Unfit(f"it looks for more than keys in a list ({lookup[:40]})")
    place = _field(one.attributes.get("field", ""))
    within = place.asked("expand", (f"%{list_name(one)}%",))
    return all_of([place.asked("exists", (True,)), none_of(within)]) if lookup.startswith("not_") else within


def list_name(one: Element) -> str:
    text = one.text.strip()
    try:
        return list_of(PurePosixPath(text).name)
    except NoList as error:
        raise Unfit(f"its list {text[:60]!r} can be no list's name here") from error


def _decoded_as(name: str) -> Tree:
    if name in _PROGRAMS:
        return Place("processname").asked("" if name == "su" else "startswith", (name,))
    if name in OF_WEB:
        return _WEB
    if name == "windows_eventchannel":
        return _WINDOWS
    if name == "auditd":
        return _AUDIT
    if name == "json":
        return ALWAYS
    if name.startswith(_OWN) or name == "sca":
        raise Unfit(f"it is for what Wazuh's own agent finds ({name[:40]}), of which no event comes here")
    raise Unfit(f"it is for what Wazuh's decoder {name[:40]} has read, and nothing here tells such events")


def _category(name: str, decoders: Sequence[str]) -> Tree:
    if name == "syslog" or "windows_eventchannel" in decoders:
        return ALWAYS
    known = {"web-log": _WEB, "windows": _WINDOWS}.get(name)
    if known is not None:
        return known
    if name == "ossec":
        raise Unfit("it is for what Wazuh itself and its agents report (category ossec), of which no event comes here")
    raise Unfit(
        f"it is for what Wazuh's decoders count to the category {name[:40]}, and nothing here tells such events"
    )
