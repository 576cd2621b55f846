"""Rules as Python files: what an importer has made of a source, written so that people can read and change it.

Everything that comes from outside stands in the file as a literal that Python itself has quoted, or in a remark without
its control characters. None of it can become code.
"""

from __future__ import annotations

import hashlib
import keyword
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from logweir.text import printable
from logweir_workers.alerts.importers.conditions import Tree, detection_of

_NAME_LENGTH_MAX = 64
_TEXT_LENGTH_MAX = 2_000
_WIDTH = 110
_FIRST = "# Made by `logweir rules import`, and yours to change: an import never overwrites what you have changed."
_SECOND = re.compile(r"# As imported: ([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Value:
    """In what a rule says: the values of a field, or of the next one where it has none."""

    path: str
    otherwise: str = ""


@dataclass(slots=True)
class MadeRule:
    """One rule, as it is to be written."""

    name: str
    source: str
    """What it was called where it comes from, in words."""
    steps: Sequence[tuple[Tree, int]]
    """Its condition; or several, each with how many matches it needs."""
    severity: str
    says: Sequence[str | Value]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of ``@rule``: ``group``, ``at_least`` and the like."""
    tags: Sequence[str] = ()
    runbook: str = ""
    changes: Sequence[str] = ()
    """In what it differs from its source."""


@dataclass(slots=True)
class Converted:
    """What became of one file of a source."""

    file: PurePosixPath
    name: str
    """What the file of its rules is to be called, without its suffix."""
    heading: list[str]
    """Remarks about where it comes from."""
    rules: list[MadeRule] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """By rule, why it cannot be taken; the empty name is the file itself."""
    silent: int = 0
    """How many of its rules make no alerts of their own: only others ask for them."""


def name_of(prefix: str, text: str) -> str:
    """A rule's name, and a file's, of whatever it is called elsewhere."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    name = f"{prefix}_{name or 'rule'}"
    if len(name) <= _NAME_LENGTH_MAX and not keyword.iskeyword(name):
        return name
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=3).hexdigest()
    return f"{name[: _NAME_LENGTH_MAX - len(digest) - 1]}_{digest}"


def time_of(seconds: int) -> str:
    """A time as arguments of rules have it: ``90s``, ``2m``, ``7d``."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def written(heading: Sequence[str], rules: Sequence[MadeRule]) -> bytes:
    """The file with these rules. ``heading``: what its remark says of where they come from. Raises Unfit."""
    parts = [one for line in heading for one in _remark(line)]
    # What holds for each of them is said once.
    common = [one for one in rules[0].changes if all(one in rule.changes for rule in rules)] if rules else []
    if common:
        parts += ["#", "# What is different here:", *(line for one in common for line in _remark(f"* {one}"))]
    has_steps = any(len(rule.steps) > 1 for rule in rules)
    parts += ["", f"from logweir.alerts import rule{', step' if has_steps else ''}", ""]
    for rule in rules:
        parts += ["", *_lines_of(rule, [one for one in rule.changes if one not in common]), ""]
    body = "\n".join(parts).rstrip("\n") + "\n"
    # The first two lines are ours alone: in these a remark may name the encoding of a file.
    return f"{_FIRST}\n# As imported: {_digest(body)}\n{body}".encode()


def is_changed(path: Path) -> bool:
    """Whether a file is another than ``written`` has made it, or cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return True
    first, _, rest = content.decode(errors="replace").partition("\n")
    second, _, body = rest.partition("\n")
    found = _SECOND.fullmatch(second)
    return first != _FIRST or found is None or found[1] != _digest(body)


def _digest(body: str) -> str:
    return hashlib.blake2b(body.encode(errors="replace"), digest_size=16).hexdigest()


def _lines_of(rule: MadeRule, changes: Sequence[str]) -> list[str]:
    arguments: dict[str, Any] = {**rule.arguments, "severity": rule.severity}
    if rule.tags:
        arguments["tags"] = list(rule.tags)
    if rule.runbook:
        arguments["runbook"] = rule.runbook
    lines = [line for one in changes for line in _remark(f"Different here: {one}")]
    lines.append("@rule(")
    if len(rule.steps) == 1:
        lines += _argument("where", detection_of(rule.steps[0][0]))
    else:
        lines.append("    steps=[")
        for tree, at_least in rule.steps:
            lines += ["        step(", *_indented(_literal(detection_of(tree)), 12)]
            lines[-1] += ","
            lines += [f"            at_least={at_least},", "        ),"]
        lines.append("    ],")
    for name, value in arguments.items():
        lines += _argument(name, value)
    lines += [")", f"def {rule.name}(found):", f"    {_quoted(_plain(rule.source))}"]
    return [*lines, *_indented(_said(rule.says or [rule.name]), 4)]


def _argument(name: str, value: Any) -> list[str]:
    first, *rest = _literal(value)
    lines = _indented([f"{name}={first}", *rest], 4)
    lines[-1] += ","
    return lines


def _literal(value: Any) -> list[str]:
    """Python's own spelling of a value."""
    if isinstance(value, dict):
        inner: list[str] = []
        for name, one in value.items():
            lines = _literal(one)
            inner += [f"    {_quoted(name)}: {lines[0]}", *_indented(lines[1:], 4)]
            inner[-1] += ","
        return ["{", *inner, "}"]
    if isinstance(value, str):
        lines = textwrap.wrap(value, _WIDTH, break_long_words=False, break_on_hyphens=False)
        if len(lines) < 2 or "\\" in value or " ".join(lines) != value:
            return [_quoted(value)]
        return ["(", *(f"    {_quoted(f' {line}' if at else line)}" for at, line in enumerate(lines)), ")"]
    if not isinstance(value, list):
        return [repr(value)]
    each = [_literal(one) for one in value]
    short = f"[{', '.join(lines[0] for lines in each)}]"
    if len(short) <= _WIDTH and all(len(lines) == 1 for lines in each):
        return [short]
    return ["[", *_indented([line for lines in each for line in (*lines[:-1], f"{lines[-1]},")], 4), "]"]


def _said(says: Sequence[str | Value]) -> list[str]:
    """What the rule's function returns."""
    parts: list[str] = []
    text = ""
    for one in (*says, ""):
        if isinstance(one, str) and one:
            text = (text + one)[:_TEXT_LENGTH_MAX]
            continue
        if text:
            parts.append(_quoted(text))
            text = ""
        if isinstance(one, Value):
            otherwise = f" or found.some({_quoted(one.otherwise)})" if one.otherwise else ""
            parts.append(f'", ".join(found.some({_quoted(one.path)}){otherwise})')
    short = f"return {' + '.join(parts)}"
    if len(short) <= _WIDTH:
        return [short]
    return ["return (", *(f"    {'+ ' if at else ''}{one}" for at, one in enumerate(parts)), ")"]


def _quoted(text: str) -> str:
    """A text's literal, in the spelling that people read best of those that mean it."""
    if '"' in text or not text.isprintable() or text.endswith("\\"):
        return repr(text)
    return f'r"{text}"' if "\\" in text else f'"{text}"'


def _indented(lines: Sequence[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]


def _remark(text: str) -> list[str]:
    lines = textwrap.wrap(_plain(text), _WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"# {line}" if at == 0 else f"#   {line}" for at, line in enumerate(lines)]


def _plain(text: str) -> str:
    return printable(" ".join(text.split()))[:_TEXT_LENGTH_MAX]
