"""Rules of Wazuh 4, of XML, as rules in Python: one file for each of theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from logweir_workers.alerts.importers import wazuh_expressions as expressions
from logweir_workers.alerts.importers.conditions import ALWAYS, Tree, Unfit, all_of, named, one_of
from logweir_workers.alerts.importers.wazuh_rule import LEFT, TEXTS, Rule, group_path, kind_in, list_name
from logweir_workers.alerts.importers.wazuh_tree import Rules
from logweir_workers.alerts.importers.wazuh_xml import Element
from logweir_workers.alerts.importers.written import Converted, MadeRule, Value, name_of, time_of

NAME = "wazuh"
SUFFIXES = (".xml",)
_TIMEFRAME_DEFAULT_S = 360
_QUIET_DEFAULT_S = 900


def is_of(content: bytes) -> bool:
    """Whether a file of XML has rules: whatever else it is, is left with its reason."""
    return bool(content)


def convert(files: Mapping[PurePosixPath, bytes], parents: Sequence[bytes]) -> Iterator[Converted]:
    """What becomes of each file. ``parents``: files whose rules others refer to, and that are not taken."""
    rules = Rules()
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

    def __init__(self, rules: Rules, rule: Rule) -> None:
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
            raise Unfit(LEFT["if_matched_level"])
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
                path = group_path(one.text.strip()) if what == "field" else _SAME[what]
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
            expressions.is_greedy(one.text, kind_in(one.attributes, expressions.OSREGEX))
            for one in elements
            if one.name in ("regex", "field") or (one.name in TEXTS and "type" in one.attributes)
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
    path = group_path(field)
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
    file, name = one.text.strip(), list_name(one)
    said = f"The keys of {file} have to become the list {name} (docs/how-to/lists.md); without it, {without}."
    return said + (" Networks are written 192.0.2.0/24 there, not 192.0.2." if "address" in lookup else "")


def _severity(level: int) -> str:
    """As Wazuh's own pages have it: 12 is high, 7 is medium."""
    for severity, from_level in (("critical", 15), ("high", 12), ("medium", 7), ("low", 4)):
        if level >= from_level:
            return severity
    return "info"
