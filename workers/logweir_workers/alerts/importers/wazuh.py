"""Rules of Wazuh 4, of XML, as rules in Python: one file for each of theirs.

A rule of Wazuh's is asked only where its parent holds, and an event is for one rule alone: of a parent's children,
those of level 0 are asked first, and make no alert. So what is written for a rule asks for its parents, too, and for
none of the children that would take the event from it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from logweir_workers.alerts.importers import wazuh_expressions as expressions
from logweir_workers.alerts.importers import wazuh_xml
from logweir_workers.alerts.importers.conditions import (
    ALWAYS,
    Leaf,
    Tree,
    Unfit,
    all_of,
    named,
    none_of,
    one_of,
    require_small,
)
from logweir_workers.alerts.importers.fields import Place, place_of
from logweir_workers.alerts.importers.wazuh_xml import Element
from logweir_workers.alerts.importers.written import Converted, MadeRule, Value, name_of, time_of
from logweir_workers.alerts.sigma.parsing import Unfit as NoList
from logweir_workers.alerts.sigma.parsing import list_of

NAME = "wazuh"
SUFFIXES = (".xml",)
_TIMEFRAME_DEFAULT_S = 360
_QUIET_DEFAULT_S = 900
_PARENTS_MAX = 150
"""Of one rule, those of its parents among them: each is asked by way of the one before it."""
_SUMMARY = Place("summary")
_NUMBERS = re.compile(r"\d{1,9}")


def is_of(content: bytes) -> bool:
    """Whether a file of XML has rules: whatever else it is, is left with its reason."""
    return bool(content)


def convert(files: Mapping[PurePosixPath, bytes], parents: Sequence[bytes]) -> Iterator[Converted]:
    """What becomes of each file. ``parents``: files whose rules others refer to, and that are not taken."""
    rules = _Rules()
    for content in parents:
        try:
            rules.read(content, None)
        except Unfit:
            continue  # Whoever refers to its rules says that these are missing.
    made: dict[PurePosixPath, Converted] = {}
    for path, content in files.items():
        made[path] = Converted(path, name_of(NAME, path.stem), [f"From {path}, rules of Wazuh 4."])
        try:
            made[path].heading += rules.read(content, path)
        except Unfit as unfit:
            made[path].left[""] = str(unfit)
    for path, one in made.items():
        for rule in rules.of(path):
            if not rule.alerts:
                one.silent += 1
                continue
            try:
                one.rules.append(_Writer(rules, rule).made())
            except Unfit as unfit:
                one.left[rule.label] = str(unfit)
        one.left |= rules.doubles.get(path, {})
        yield one


# --- what a rule asks of an event itself ----------------------------------------------------------------------------
_SAID = ("description", "group", "info", "cve", "mitre", "options", "check_if_ignored", "ignore")
"""Elements that ask nothing of an event. The last two are about what is not alerted again."""
_PARENTS = ("if_sid", "if_group", "if_matched_sid", "if_matched_group", "if_level", "if_matched_level")
_TEXTS = {
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
    "audit.file.name": "details.filepath",
    "audit.command": "details.comm",
}
"""By the name of one of Wazuh's own fields, ours."""
_PREFIXES = ("win.system.", "win.eventdata.", "audit.", "aws.", "office365.", "github.", "gcp.")
"""What Wazuh writes before the names that a record's own sender has."""
_OBJECTS = {"json", "windows_eventchannel"}
"""Decoders of what is no line of text."""
_OF_WEB = {"web-log", "web-accesslog", "nginx-accesslog", "apache-accesslog"}
"""Decoders, and the category, of access lines: their id is the status."""
_AUDIT: Tree = Leaf("recordtype", "exists", (True,))
_PROGRAMS = ("sshd", "sudo", "su", "named", "postfix", "vsftpd", "proftpd", "pure-ftpd", "smbd", "dropbear", "crond")
_OWN = ("syscheck", "rootcheck", "syscollector", "ciscat", "ossec", "hostinfo", "vulnerability", "wazuh")
_WEB: Tree = all_of(Leaf(name, "exists", (True,)) for name in ("method", "path", "status"))
_WINDOWS: Tree = all_of(Leaf(name, "exists", (True,)) for name in ("Channel", "EventID"))
_LEFT = {
    "time": "it is for some hours of the day, by the clock of Wazuh's manager",
    "weekday": "it is for some days of the week, by the clock of Wazuh's manager",
    "location": "it asks for the agent and file that a line came from",
    "if_fts": "it is for what is seen for the first time, of what a decoder of Wazuh's names",
    "if_level": "its parents are all rules of a level",
    "if_matched_level": "it counts all rules of a level",
    "compiled_rule": "it asks a function that is compiled into Wazuh",
    "check_diff": "it compares with what a command printed the last time",
}


@dataclass(slots=True)
class _Rule:
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
        return [int(one) for text in self.texts(name) for one in _NUMBERS.findall(text)]

    def number(self, name: str) -> int | None:
        """An attribute's. Raises Unfit."""
        text = self.element.attributes.get(name)
        if text is None:
            return None
        if not _NUMBERS.fullmatch(text):
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
            if name in _SAID or name in _PARENTS[:4] or _is_about_several(name) or name in done:
                continue
            parts.append(self._asked(name, one))
            if name not in ("field", "list"):
                done.add(name)  # Several of one name are taken together.
        return all_of(parts)

    def _asked(self, name: str, one: Element) -> Tree:
        if name in _LEFT:
            raise Unfit(f"{_LEFT[name]} (<{name}>)")
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
        if name not in _TEXTS:
            raise Unfit(f"it asks with <{name[:40]}>, for which there is nothing like it here")
        place, kind = _TEXTS[name]
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
    made = expressions.asked_of(place, text.strip("\n") if "\n" in text else text, _kind(attributes, default))
    if attributes.get("negate", "no").lower() != "yes":
        return place.asked("exists", (True,)) if made == ALWAYS and place != _SUMMARY else made
    # Without the field, Wazuh's rule does not hold, negated or not.
    there = [] if place == _SUMMARY else [place.asked("exists", (True,))]
    return all_of([*there, none_of(made)])


def _kind(attributes: Mapping[str, str], default: str) -> str:
    return expressions.kind_of(attributes.get("type", ""), default)


def _field(name: str) -> Place:
    """Where an event has one of Wazuh's dynamic fields."""
    known = _DECODED.get(name)
    if known is not None:
        return Place(known)
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            place_of(name)  # It can be written.
            return Place(f"details.{name}")
    return place_of(name)


def _group_path(name: str) -> str:
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
    within = place.asked("expand", (f"%{_list_name(one)}%",))
    return all_of([place.asked("exists", (True,)), none_of(within)]) if lookup.startswith("not_") else within


def _list_name(one: Element) -> str:
    text = one.text.strip()
    try:
        return list_of(PurePosixPath(text).name)
    except NoList as error:
        raise Unfit(f"its list {text[:60]!r} can be no list's name here") from error


def _decoded_as(name: str) -> Tree:
    if name in _PROGRAMS:
        return Place("processname").asked("" if name == "su" else "startswith", (name,))
    if name in _OF_WEB:
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


_Made = TypeVar("_Made")


def _once(known: dict[int, _Made | Unfit], rule: _Rule, make: Callable[[_Rule], _Made]) -> _Made:
    """What ``make`` makes of the rule, made once. Raises Unfit, also for a rule that needs itself."""
    if rule.id not in known:
        known[rule.id] = Unfit(f"{rule.label} is one of its own parents")
        try:
            known[rule.id] = make(rule)
        except Unfit as unfit:
            known[rule.id] = unfit
    found = known[rule.id]
    if isinstance(found, Unfit):
        raise found
    return found


# --- rules among rules ----------------------------------------------------------------------------------------------
class _Rules:
    """All rules that are known, in Wazuh's order."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Rule] = {}
        self._children: dict[int, list[_Rule]] | None = None
        self._parents: dict[int, list[_Rule] | Unfit] = {}
        self._owns: dict[int, Tree | Unfit] = {}
        self._holds: dict[int, Tree | Unfit] = {}
        self.doubles: dict[PurePosixPath, dict[str, str]] = {}
        """By file, rules that are there twice."""

    def read(self, content: bytes, path: PurePosixPath | None) -> list[str]:
        """Add a file's rules; what its remarks say of authors. Raises Unfit."""
        read = wazuh_xml.read(content)
        for groups, element in read.rules:
            sid, level = element.attributes.get("id", ""), element.attributes.get("level", "")
            left = self.doubles.setdefault(path, {}) if path is not None else {}
            if not _NUMBERS.fullmatch(sid) or not re.fullmatch(r"\d{1,2}", level) or int(level) > 16:
                left[f"rule {sid[:20] or 'without an id'}"] = "it has no id, or no level from 0 to 16"
                continue
            rule = _Rule(int(sid), element, [], path, len(self._by_id))
            before = self._by_id.get(rule.id)
            if before is not None and element.attributes.get("overwrite", "no").lower() != "yes":
                left[f"{rule.label} once more"] = "there is another rule of this id, and it does not say overwrite"
                continue
            if before is not None:
                # What is written over keeps its parents and its place.
                parents = [one for one in before.element.children if one.name in _PARENTS]
                element.children = [*parents, *(one for one in element.children if one.name not in _PARENTS)]
                rule.order = before.order
            said = [groups, *rule.texts("group")]
            rule.groups = list(dict.fromkeys(one.strip() for text in said for one in text.split(",") if one.strip()))
            self._by_id[rule.id] = rule
        return read.about

    def of(self, path: PurePosixPath) -> list[_Rule]:
        return [one for one in self._by_id.values() if one.path == path]

    def named(self, number: int) -> _Rule:
        """Raises Unfit."""
        if number not in self._by_id:
            raise Unfit(
                f"rule {number}, which it refers to, is not here: import its file too, or name it with --parents"
            )
        return self._by_id[number]

    def with_group(self, name: str) -> list[_Rule]:
        return [one for one in self._by_id.values() if name in one.groups]

    def parents(self, rule: _Rule) -> list[_Rule]:
        """The rules, one of which has to hold. Raises Unfit."""
        return _once(self._parents, rule, self._parents_of)

    def own(self, rule: _Rule) -> Tree:
        """What a rule asks of an event itself. Raises Unfit."""
        return _once(self._owns, rule, self._own_of)

    def holds(self, rule: _Rule) -> Tree:
        """Its parents, itself, and none of what comes before it without an alert. Raises Unfit."""
        return _once(self._holds, rule, self._holds_of)

    def _parents_of(self, rule: _Rule) -> list[_Rule]:
        if "if_level" in {one.name for one in rule.element.children}:
            raise Unfit(_LEFT["if_level"])
        found = [self.named(one) for one in rule.numbers("if_sid")]
        groups = rule.texts("if_group")
        if not found and not groups:
            found = [self.named(one) for one in rule.numbers("if_matched_sid")]
            groups = [] if found else rule.texts("if_matched_group")
        for group in groups:
            of_group = [one for one in self.with_group(group) if one.order < rule.order and not one.counts]
            if not of_group:
                raise Unfit(f"there is no rule of the group {group[:40]} here: name its file with --parents")
            found += of_group
        if len(found) > _PARENTS_MAX:
            raise Unfit(f"it has more than {_PARENTS_MAX} parents")
        return found

    def chain(self, rule: _Rule) -> list[_Rule]:
        """The rule, and all that it goes back to. Raises Unfit."""
        found: dict[int, _Rule] = {}
        due = [rule]
        while due:
            one = due.pop()
            if one.id not in found:
                found[one.id] = one
                due += self.parents(one) if one is rule else self._parents_of_parent(one)
            if len(found) > _PARENTS_MAX:
                raise Unfit(f"it goes back to more than {_PARENTS_MAX} rules")
        return list(found.values())

    def _own_of(self, rule: _Rule) -> Tree:
        made = rule.own()
        asked = {one.name for one in rule.element.children}
        if asked & {"match", "regex", "id"}:
            told = {name for one in self.chain(rule) for name in (*one.texts("decoded_as"), *one.texts("category"))}
            if asked & {"match", "regex"} and told & _OBJECTS:
                raise Unfit("it looks for words in the text of a record that is an object, and here that has none")
            if "id" in asked and not told & _OF_WEB:
                raise Unfit("it asks for an id, and what that is, each of Wazuh's decoders says for itself (<id>)")
        return made

    def _holds_of(self, rule: _Rule) -> Tree:
        if rule.counts:
            raise Unfit("it counts events")
        self.chain(rule)
        own = named(rule.name, self.own(rule))
        parents = self.parents(rule)
        if not parents:
            return own
        ways = [
            all_of([self._of_parent(parent), *(none_of(one) for one in self._before(parent, rule))])
            for parent in parents
        ]
        # Parents of parents would be copied again and again.
        return require_small(all_of([one_of(ways), own]))

    def _parents_of_parent(self, parent: _Rule) -> list[_Rule]:
        try:
            return self.parents(parent)
        except Unfit as unfit:
            raise _of_its_parent(parent, unfit) from unfit

    def _of_parent(self, parent: _Rule) -> Tree:
        try:
            return self.holds(parent)
        except Unfit as unfit:
            raise _of_its_parent(parent, unfit) from unfit

    def _before(self, parent: _Rule, rule: _Rule) -> Iterator[Tree]:
        """What keeps an event of the parent's from the rule: children of level 0, which are asked first."""
        for other in self.children(parent):
            if other is not rule and other.level == 0 and (rule.level != 0 or other.order < rule.order):
                yield self._taken_by(other)

    def _taken_by(self, other: _Rule) -> Tree:
        """The events that another rule takes from one. Raises Unfit."""
        try:
            own = self.own(other)
        except Unfit as unfit:
            raise Unfit(f"{other.label}, of level 0, keeps events from it: {unfit}") from unfit
        if own == ALWAYS:
            raise Unfit(f"{other.label} takes each of its events")
        return named(other.name, own)

    def children(self, rule: _Rule) -> list[_Rule]:
        """Of those that are known, without what counts events."""
        if self._children is None:
            self._children = {}
            for one in self._by_id.values():
                if one.counts:
                    continue
                numbers = set(one.numbers("if_sid"))
                for group in one.texts("if_group"):
                    numbers |= {each.id for each in self.with_group(group) if each.order < one.order}
                for number in numbers:
                    self._children.setdefault(number, []).append(one)
        return self._children.get(rule.id, [])

    def ends_at(self, rule: _Rule) -> tuple[Tree, list[str]]:
        """The events that are for this rule and for none of its children; what differs. Raises Unfit."""
        parts, changes = [self.holds(rule)], []
        for child in self.children(rule):
            try:
                self.own(child)
            except Unfit as unfit:
                if child.level > 0:
                    changes.append(
                        f"Its child, {child.label}, is not taken ({unfit}): events of that one are for this one here."
                    )
                    continue
            parts.append(none_of(self._taken_by(child)))
        return all_of(parts), changes


def _of_its_parent(parent: _Rule, unfit: Unfit) -> Unfit:
    """The reason, as the rule's that goes back to the parent."""
    reason = str(unfit)
    return unfit if reason.startswith("its parent, ") else Unfit(f"its parent, {parent.label}: {reason}")


# --- writing --------------------------------------------------------------------------------------------------------
_ONE_ALERT = (
    "Wazuh makes one alert of an event, for the first rule that it is for: level 0, then the highest level. Here each"
    " rule that an event is for counts it, but for what a child of the rule, or a rule of level 0 beside it, takes."
)
_PER_EVENT = (
    "Wazuh makes an alert of each event: here those of a host less than {quiet} apart go on in one, which counts them."
)
_PER_AGENT = "Wazuh counts the events of each agent: here those of each host (hostname)."
_GREEDY = (
    "Wazuh's own matcher tries few ways to fit an expression: here its expressions find what they describe, always."
)
_SAME = {
    "srcip": "details.sourceipaddress",
    "source_ip": "details.sourceipaddress",
    "dstip": "details.destinationipaddress",
    "srcport": "details.sourceport",
    "src_port": "details.sourceport",
    "dstport": "details.destinationport",
    "dst_port": "details.destinationport",
    "user": "details.username",
    "srcuser": "details.username",
    "dstuser": "details.targetusername",
    "protocol": "details.protocol",
    "action": "details.action",
    "status": "details.status",
    "url": "details.path",
    "agent": "hostname",
    "location": "hostname",
}
"""By what ``same_`` and ``different_`` end in, the field."""


class _Writer:
    """Makes one rule of one of Wazuh's."""

    def __init__(self, rules: _Rules, rule: _Rule) -> None:
        self._rules = rules
        self._rule = rule
        self._changes = [_ONE_ALERT]

    def made(self) -> MadeRule:
        """Raises Unfit."""
        rule = self._rule
        if rule.counts:
            steps, arguments = self._counted()
        else:
            condition, changes = self._rules.ends_at(rule)
            self._changes += changes
            steps, arguments = [(condition, 1)], {"group": ["hostname"]}
        ignore_s = rule.number("ignore") or 0
        quiet = time_of(max(ignore_s, _QUIET_DEFAULT_S))
        if not rule.counts:
            self._changes.append(_PER_EVENT.format(quiet=quiet))
        elif ignore_s:
            self._changes.append(f"ignore: what goes on within {quiet} is in the same alert.")
        self._say_what_differs()
        about = [Value(path) for path in arguments["group"] if path != "hostname"]
        says = [*self._description(), *(part for one in about for part in (", ", one))]
        return MadeRule(
            name=f"{NAME}_{rule.id}",
            source=f"{rule.label}",
            steps=steps,
            severity=_severity(rule.level),
            says=says,
            arguments={**arguments, **({"quiet": quiet} if ignore_s > _QUIET_DEFAULT_S else {})},
            tags=self._tags(),
            runbook=self._link(),
            changes=self._changes,
        )

    def _counted(self) -> tuple[list[tuple[Tree, int]], dict[str, Any]]:
        """Its steps, and what is counted. Raises Unfit."""
        rule = self._rule
        frequency = rule.number("frequency")
        if frequency is None or frequency < 2:
            raise Unfit("it counts events, and does not say how many (frequency)")
        before = self._before()
        trigger = all_of([one_of([self._rules.holds(one) for one in self._rules.parents(rule)]), self._own()])
        group, distinct = self._grouped()
        arguments: dict[str, Any] = {
            "group": group,
            "within": time_of(rule.number("timeframe") or _TIMEFRAME_DEFAULT_S),
        }
        is_plain = not rule.numbers("if_sid") and not rule.texts("if_group") and self._own() == ALWAYS
        if is_plain:
            more = {"distinct": distinct[0]} if distinct else {}
            return [(before, 1)], {**arguments, **more, "at_least": frequency}
        if distinct:
            raise Unfit("it counts different values, and asks something else of the last event")
        self._changes.append("The last event has to come after the others: so it is written as two steps.")
        return [(before, frequency - 1), (trigger, 1)], {**arguments, "in_order": True}

    def _own(self) -> Tree:
        return named(self._rule.name, self._rules.own(self._rule))

    def _before(self) -> Tree:
        """The events that are counted: those that end at the rules it is about. Raises Unfit."""
        rule = self._rule
        about = [self._rules.named(one) for one in rule.numbers("if_matched_sid")]
        for group in rule.texts("if_matched_group"):
            about += [one for one in self._rules.with_group(group) if one.order < rule.order]
        if "if_matched_level" in {one.name for one in rule.element.children}:
            raise Unfit(_LEFT["if_matched_level"])
        if not about:
            raise Unfit("there is no rule of the group that it counts: name its file with --parents")
        trees, left = [], []
        for one in about:
            if one.level == 0:
                left.append((one, "Wazuh counts nothing of level 0"))
                continue
            try:
                tree, changes = self._rules.ends_at(one)
                trees.append(tree)
                self._changes += changes
            except Unfit as unfit:
                left.append((one, str(unfit)))
        if not trees:
            raise Unfit(f"of what it counts, {left[0][0].label} cannot be taken: {left[0][1]}")
        if unfit_ones := [one for one, _ in left if one.level]:
            names = ", ".join(str(one.id) for one in unfit_ones[:20])
            self._changes.append(f"It does not count what Wazuh's {names} are for, which cannot be taken.")
        return one_of(trees)

    def _grouped(self) -> tuple[list[str], list[str]]:
        """The fields that are the same, and those that differ. Raises Unfit."""
        group: list[str] = []
        distinct: list[str] = []
        is_global = False
        for one in self._rule.element.children:
            word, _, what = one.name.replace("not_same_", "different_").partition("_")
            if one.name == "global_frequency":
                is_global = True
            elif word in ("same", "different") and what:
                if what != "field" and what not in _SAME:
                    raise Unfit(f"it counts by <{one.name[:40]}>, for which there is no field here")
                if what == "user":
                    self._changes.append("Wazuh's user is whom it was done to, where known: here it is who did it.")
                path = _group_path(one.text.strip()) if what == "field" else _SAME[what]
                (group if word == "same" else distinct).append(path)
        if len(distinct) > 1:
            raise Unfit("it counts by several fields that differ")
        if distinct:
            self._changes.append(
                f"Wazuh counts events whose {distinct[0]} differs from the last one's: here so many values are needed."
            )
        if not is_global and "hostname" not in group:
            group.append("hostname")
        if "hostname" in group:
            self._changes.append(_PER_AGENT)
        if missing := [one for one in (*group, *distinct) if one != "hostname"]:
            self._changes.append(f"An event without {' or '.join(missing)} is not counted.")
        return list(dict.fromkeys(group)), distinct

    def _say_what_differs(self) -> None:
        chain = self._rules.chain(self._rule)
        elements = [one for rule in chain for one in rule.element.children]
        names = {one.name for one in elements}
        if any(
            expressions.is_greedy(one.text, _kind(one.attributes, expressions.OSREGEX))
            for one in elements
            if one.name in ("regex", "field") or (one.name in _TEXTS and "type" in one.attributes)
        ):
            self._changes.append(_GREEDY)
        for name in sorted({one.text.strip() for one in elements if one.name == "decoded_as"}):
            self._changes.append(
                f"Wazuh's decoder {name} {_DECODER_SAYS.get(name) or _PROGRAM_SAYS.format(name=name)}."
            )
        roots = [rule for rule in chain if not self._rules.parents(rule)]
        if any(not rule.texts("decoded_as") and rule.texts("category") in ([], ["syslog"]) for rule in roots):
            self._changes.append("Wazuh asks it of what its decoders count to syslog: here it is asked of every event.")
        elif "category" in names:
            self._changes.append(
                "Wazuh's category is what its decoders say: here it is told by the fields of the event."
            )
        if names & {"action", "status", "protocol", "field"}:
            self._changes.append(
                "Values of fields are those of the parsers here, or as sent, and may be others than Wazuh's decoders'."
            )
        for one in elements:
            if one.name == "list":
                self._changes.append(_list_says(one))
        if any(one.text.strip() == "alert_by_email" for one in self._rule.element.all("options")):
            self._changes.append("alert_by_email: here channels say who is told (docs/how-to/notifications.md).")
        if self._rule.element.attributes.get("overwrite", "no").lower() == "yes":
            self._changes.append("It overwrites a rule of Wazuh's, whose parents it keeps.")

    def _description(self) -> list[str | Value]:
        text = "".join(one.text for one in self._rule.element.all("description"))
        pieces = re.split(r"\$\(([\w.\- ]{1,100})\)", " ".join(text.split()))
        says: list[str | Value] = []
        for at, one in enumerate(pieces):
            says.append(_value(one.strip()) if at % 2 else one)
        return [one for one in says if one != ""] or [self._rule.label]

    def _tags(self) -> list[str]:
        found = [
            f"attack.{one.text.strip().lower()}" for mitre in self._rule.element.all("mitre") for one in mitre.children
        ]
        return list(dict.fromkeys([*found, *self._rule.groups]))

    def _link(self) -> str:
        links = [one.text.strip() for one in self._rule.element.all("info") if one.attributes.get("type") == "link"]
        return next((one for one in links if one.startswith(("https://", "http://"))), "")


def _value(field: str) -> Value:
    path = _group_path(field)
    # Who is meant by a login that failed, Wazuh's decoders and the parsers here say otherwise.
    return Value(path, "details.username" if path == "details.targetusername" else "")


_PROGRAM_SAYS = "is taken for events of a process whose name begins with {name}"
_DECODER_SAYS = {
    "su": "is taken for events of the process su",
    "json": "is not asked for: here a field is a field, whatever it was sent in",
    "auditd": "is taken for events with a recordtype, as the parser of audit records gives them",
    "windows_eventchannel": "is taken for events with Channel and EventID",
    **dict.fromkeys(
        ("web-accesslog", "nginx-accesslog", "apache-accesslog"), "is taken for events with method, path and status"
    ),
}


def _list_says(one: Element) -> str:
    lookup = one.attributes.get("lookup", "match_key")
    without = "it holds for every value" if lookup.startswith("not_") else "it holds for none"
    file, name = one.text.strip(), _list_name(one)
    said = f"The keys of {file} have to become the list {name} (docs/how-to/lists.md); without it, {without}."
    return said + (" Networks are written 192.0.2.0/24 there, not 192.0.2." if "address" in lookup else "")


def _severity(level: int) -> str:
    """As Wazuh's own pages have it: 12 is high, 7 is medium."""
    for severity, from_level in (("critical", 15), ("high", 12), ("medium", 7), ("low", 4)):
        if level >= from_level:
            return severity
    return "info"
