"""What several parsers need to take a line apart. All of it takes time in proportion to the length of the text."""

from __future__ import annotations

import re
from typing import Any

from logweir_workers.normalise.details import address_of

# Nothing here gives back what it took ("++"), so no text takes long. A value that begins with a quote ends with it.
_KEY = r"[A-Za-z_][A-Za-z0-9_.@/-]{0,63}+"
_VALUE = r"""(?:[^\s"']\S*+|"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+'|(?=\s|\Z))"""
_PAIRS = re.compile(f"({_KEY})=({_VALUE})", re.DOTALL)
_ONLY_PAIRS = re.compile(f"(?:{_KEY}={_VALUE}(?:,?[ \t]++|\\Z))++", re.DOTALL)
_ENDS_OF_LISTED = (",", '"', "'")

PORT_MAX = 65_535

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def pairs_of(text: str) -> dict[str, str] | None:
    """The pairs of a text that is nothing but ``key=value``, ``key="quoted value"`` and blanks; None for another.

    Commas may stand between them. Of a key that stands twice with two values, nobody can say which one is true: it is
    left out.
    """
    if _ONLY_PAIRS.fullmatch(text) is None:
        return None
    found: list[tuple[str, str]] = _PAIRS.findall(text)
    if ", " in text and all(value[-1:] in _ENDS_OF_LISTED for _, value in found[:-1]):
        found = [(name, value.removesuffix(",")) for name, value in found]
    pairs = dict(found)
    if len(pairs) != len(found):
        several = {name for name, value in found if pairs[name] != value}
        pairs = {name: value for name, value in pairs.items() if name not in several}
    if '"' in text or "'" in text:
        for name, value in pairs.items():
            if value[:1] in ('"', "'"):
                pairs[name] = _unescaped(value[1:-1])
    return pairs


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: _UNESCAPED.get(match[1], match[1]), text) if "\\" in text else text


def value_of(text: str, key: str) -> str:
    """What stands behind ``key`` (such as ``" rhost="``) up to the next blank; nothing where it is not there."""
    return text.partition(key)[2].partition(" ")[0]


def peer_of(text: str) -> dict[str, Any] | None:
    """Address and port of ``192.0.2.7 port 4242``, whatever stands behind; None where it is not that.

    A host's name is no address: then there is the port alone. OpenSSH's ``UNKNOWN port 65535`` says nothing at all.
    """
    name, port, rest = text.partition(" port ")
    if not port or " " in name:
        return None
    digits = rest if rest.isdigit() else rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not digits or len(digits) > 5 or not digits.isascii() or int(digits) > PORT_MAX:
        return None
    if name == "UNKNOWN":
        return {}
    address = address_of(name)
    return {"sourceport": int(digits)} if address is None else {"sourceipaddress": address, "sourceport": int(digits)}


def quoted(text: str) -> str | None:
    """What stands between ' and ' at the beginning of ``text``."""
    return text[1:end] if text[:1] == "'" and (end := text.find("'", 1)) > 0 else None
