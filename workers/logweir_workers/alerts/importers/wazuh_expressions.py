"""The three kinds of expressions in Wazuh's rules, as what a detection asks of a field: sregex, osregex and PCRE2.

Written from Wazuh's documentation of them. Upper and lower case do not count in the first two.
"""

from __future__ import annotations

import re

from logweir_workers.alerts.importers.conditions import ALWAYS, Tree, Unfit, literal, one_of
from logweir_workers.alerts.importers.fields import Place

SREGEX, OSREGEX, PCRE2, STRING = "osmatch", "osregex", "pcre2", "string"
_KINDS = {"sregex": SREGEX, "osmatch": SREGEX, "osregex": OSREGEX, "regex": OSREGEX, "pcre2": PCRE2, "string": STRING}
_LENGTH_MAX = 10_000
_ENTITY = re.compile("&(?:lt|gt|amp|quot|apos|#[0-9a-fA-Fx]+);")

_CLASSES = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": "[A-Za-z0-9@_-]",
    "W": "[^A-Za-z0-9@_-]",
    "s": "[ ]",
    "S": "[^ ]",
    "t": r"\t",
    "p": r"""[()*+,\-.:;<=>?\[\]!"'#$%&|{}]""",
    ".": ".",
}
_ESCAPED = "()\\$|<"


def kind_of(name: str, default: str) -> str:
    """The kind that an element's ``type`` names. Raises Unfit."""
    if not name:
        return default
    if name.lower() not in _KINDS:
        raise Unfit(f"it has an expression of the type {name[:30]!r}")
    return _KINDS[name.lower()]


def asked_of(place: Place, text: str, kind: str) -> Tree:
    """The field fits the expression. Raises Unfit where that cannot be said exactly."""
    if len(text) > _LENGTH_MAX:
        raise Unfit(f"its expression has more than {_LENGTH_MAX} characters")
    if _ENTITY.search(text):
        raise Unfit(
            f"its expression {text[:60]!r} has an entity of XML, which Wazuh does not read as other programs do"
        )
    if kind == STRING:
        return place.asked("cased", (literal(text),))
    if kind == SREGEX:
        return _sregex(place, text)
    pattern = _osregex(text) if kind == OSREGEX else text
    _require_possible(text, pattern)
    # It finds anything: Wazuh asks then whether the field is there.
    return place.asked("re", (pattern,)) if pattern else ALWAYS


def _sregex(place: Place, text: str) -> Tree:
    """Texts, one of which is there, at the beginning (^) or the end ($) where it says so."""
    if text.startswith("!"):
        raise Unfit(f'its expression {text[:60]!r} begins with !: write negate="yes" if that is meant')
    parts: list[Tree] = []
    for one in text.split("|"):
        begins, ends = one.startswith("^"), one.endswith("$") and one != "^"
        plain = one[begins : len(one) - ends]
        if not one or not plain:
            return ALWAYS if not (begins and ends) else place.asked("", ("",))
        how = {(True, True): "", (True, False): "startswith", (False, True): "endswith"}.get((begins, ends), "contains")
        parts.append(place.asked(how, (literal(plain),)))
    return one_of(parts)


def _osregex(text: str) -> str:
    """The same in RE2's syntax."""
    return "(?is)" + "|".join(_branch(one) for one in _branches(text))


def _branches(text: str) -> list[str]:
    """What | separates; \\| is none."""
    pieces = re.findall(r"\\.|[^\\]|\\$", text, re.DOTALL)
    branches = [""]
    for one in pieces:
        if one == "|":
            branches.append("")
        else:
            branches[-1] += one
    return branches


def _branch(text: str) -> str:
    begins = text.startswith("^")
    text = text[begins:]
    pieces = re.findall(r"\\.|[^\\]|\\$", text, re.DOTALL)
    ends = bool(pieces) and pieces[-1] == "$"
    pieces = pieces[: len(pieces) - ends]
    if ends and not begins and not pieces:
        raise Unfit("its expression has a $ and nothing before it")
    made: list[str] = []
    at = 0
    while at < len(pieces):
        one = pieces[at]
        at += 1
        if one in ("(", ")"):
            continue  # They only mark what a decoder takes out.
        if one in ("$", "^"):
            raise Unfit(f"its expression {text[:60]!r} has a {one} inside")
        if one[0] != "\\":
            made.append(_plain(one))  # A + or * behind a plain character is that character.
            continue
        name = one[1:]
        if name not in _CLASSES and (not name or name not in _ESCAPED):
            raise Unfit(f"its expression {text[:60]!r} has {one}, which osregex does not know")
        made.append(_CLASSES.get(name) or _plain(name))
        if at < len(pieces) and pieces[at] in ("+", "*"):
            made.append(pieces[at])
            at += 1
    return f"{'^' if begins else ''}{''.join(made)}{'$' if ends else ''}"


def _plain(character: str) -> str:
    return f"\\{character}" if character in r"\.+*?()|[]{}^$" else character


def _require_possible(text: str, pattern: str) -> None:
    try:
        import re2
    except ModuleNotFoundError:
        return  # Reading the rule says so.
    quiet = re2.Options()
    quiet.log_errors = False
    try:
        re2.compile(pattern, quiet)
    except re2.error as error:
        why = "look-around, back references and the like are not there" if re.search(r"\(\?[=!<]|\\\d", text) else error
        raise Unfit(f"its expression {text[:60]!r} is none of RE2's: {str(why)[:120]}") from error


def is_greedy(text: str, kind: str) -> bool:
    """Whether it is one that Wazuh's own matcher, which tries only a few ways, may miss."""
    return kind == OSREGEX and re.search(r"\\.[+*]", text) is not None
