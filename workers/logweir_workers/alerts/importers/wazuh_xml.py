"""Wazuh's files of rules, read: no XML as others have it, for ``&`` is a plain character and ``\\<`` is a ``<``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from logweir_workers.alerts.importers.conditions import Unfit

_ELEMENTS_MAX = 200_000
_DEPTH_MAX = 10
_ABOUT = re.compile(r"author|copyright|licen[cs]e|\bGPL|created by", re.IGNORECASE)
_ESCAPED = re.compile(r"\\<(?!/\w+>)")
_VARIABLE = re.compile(r"\$([A-Za-z0-9_]+)")


@dataclass(slots=True)
class Element:
    name: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> Iterator[Element]:
        return (one for one in self.children if one.name == name)


@dataclass(slots=True)
class RuleFile:
    rules: list[tuple[str, Element]]
    """Each with the groups that are around it."""
    about: list[str]
    """What its remarks say of authors and licences."""


def read(content: bytes) -> RuleFile:
    """The rules in a file, with the values of its variables in them. Raises Unfit."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Unfit("it is not UTF-8") from error
    text, remarks = _without_remarks(text)
    if text.lstrip().startswith("<?xml"):
        text = text.partition("?>")[2]
    root = _parsed(_ESCAPED.sub(r"\\&lt;", text.replace("&", "&amp;")))
    variables: dict[str, str] = {}
    rules: list[tuple[str, Element]] = []
    for one in root.children:
        if one.name == "var":
            variables[one.attributes.get("name", "")] = one.text.strip()
        elif one.name == "group":
            rules += [(one.attributes.get("name", ""), rule) for rule in one.all("rule")]
        elif one.name == "rule":
            rules.append(("", one))
        else:
            raise Unfit(f"it is no file of Wazuh's rules: it has <{one.name[:40]}>")
    if not rules:
        raise Unfit("it is no file of Wazuh's rules: there is none in it")
    for _, rule in rules:
        for inner in rule.children:
            inner.text = _VARIABLE.sub(lambda found: variables.get(found[1], found[0]), inner.text)
    lines = [line.strip(" \t-") for remark in remarks for line in remark.splitlines() if _ABOUT.search(line)]
    return RuleFile(rules, list(dict.fromkeys(lines))[:8])


def _without_remarks(text: str) -> tuple[str, list[str]]:
    """The text without its remarks, and these: Wazuh's have --, which others' may not have. Raises Unfit."""
    kept: list[str] = []
    remarks: list[str] = []
    while True:
        before, begin, rest = text.partition("<!--")
        kept.append(before)
        if not begin:
            return "".join(kept), remarks
        remark, end, text = rest.partition("-->")
        if not end:
            raise Unfit("it has a remark (<!--) that never ends")
        remarks.append(remark)


def _parsed(text: str) -> Element:
    # No reference to an entity gets here; and a document type, which could declare some, is an error within an element.
    root = Element("", {})
    within = [root]
    count = 0

    def begins(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > _ELEMENTS_MAX or len(within) > _DEPTH_MAX:
            raise Unfit(f"it has more than {_ELEMENTS_MAX} elements, or more than {_DEPTH_MAX} inside of each other")
        within[-1].children.append(Element(name.lower(), dict(attributes)))
        within.append(within[-1].children[-1])

    def ends(_: str) -> None:
        within.pop()

    def says(data: str) -> None:
        within[-1].text += data

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = begins
    parser.EndElementHandler = ends
    parser.CharacterDataHandler = says
    try:
        # Wazuh's files have several elements at their top.
        parser.Parse(f"<rules>{text}</rules>", True)
    except expat.ExpatError as error:
        raise Unfit(f"it is no XML: {error}") from error
    return root.children[0]
