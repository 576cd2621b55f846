"""Sigma's conditions asked of an event as the specification words them, without any of what makes the product fast.

It goes by pySigma's tree and looks at plain dictionaries; Python's ``re`` in the place of RE2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from sigma import types
from sigma.collection import SigmaCollection
from sigma.conditions import ConditionAND, ConditionFieldEqualsValueExpression, ConditionNOT, ConditionOR

Fields = Mapping[str, list[str]]
"""The values of each field as text."""


def holds(text: str, fields: Fields) -> bool:
    """Whether the rule's detection holds for an event with these fields and no others."""
    (rule,) = SigmaCollection.from_yaml(text).rules
    return any(_node(one.parsed, fields) for one in rule.detection.parsed_condition)


def _node(node: Any, fields: Fields) -> bool:
    if isinstance(node, ConditionAND):
        return all(_node(one, fields) for one in node.args)
    if isinstance(node, ConditionOR):
        return any(_node(one, fields) for one in node.args)
    if isinstance(node, ConditionNOT):
        return not _node(node.args[0], fields)
    if isinstance(node, ConditionFieldEqualsValueExpression):
        return _value(node.value, fields.get(node.field, []), fields, is_word=False)
    return _value(node.value, [text for texts in fields.values() for text in texts], fields, is_word=True)


def _value(value: Any, texts: list[str], fields: Fields, *, is_word: bool) -> bool:
    if isinstance(value, types.SigmaExpansion):
        return any(_value(one, texts, fields, is_word=is_word) for one in value.values)
    if isinstance(value, types.SigmaNull):
        return not texts
    if isinstance(value, types.SigmaExists):
        return bool(texts) is value.exists
    if isinstance(value, types.SigmaFieldReference):
        return any(_same(one, other, value) for one in texts for other in fields.get(value.field, []))
    return any(_fits(value, text, is_word=is_word) for text in texts)


def _same(one: str, other: str, value: Any) -> bool:
    one, other = one.lower(), other.lower()
    if value.starts_with and value.ends_with:
        return other in one
    if value.starts_with:
        return one.startswith(other)
    return one.endswith(other) if value.ends_with else one == other


def _fits(value: Any, text: str, *, is_word: bool) -> bool:
    if isinstance(value, types.SigmaString):
        flags = re.DOTALL if isinstance(value, types.SigmaCasedString) else re.DOTALL | re.IGNORECASE
        many, single = types.SpecialChars.WILDCARD_MULTI, types.SpecialChars.WILDCARD_SINGLE
        pattern = "".join(".*" if one is many else "." if one is single else re.escape(one) for one in value.s)
        return (re.search if is_word else re.fullmatch)(pattern, text, flags) is not None
    if isinstance(value, types.SigmaRegularExpression):
        flags = 0
        for flag in value.flags:
            flags |= value.sigma_to_python_flags[flag]
        # RE2's $ is the very end; that of re also stands before a last line feed.
        pattern = str(value.regexp) if flags & re.MULTILINE else str(value.regexp).replace("$", r"\Z")
        return re.search(pattern, text, flags) is not None
    if isinstance(value, types.SigmaCIDRExpression):
        try:
            return ipaddress.ip_address(text) in value.network
        except ValueError:
            return False
    if isinstance(value, types.SigmaCompareExpression):
        return _compares(value, text)
    if isinstance(value, types.SigmaNumber):
        return text == str(value.number)
    assert isinstance(value, types.SigmaBool)
    return text.lower() == str(value.boolean).lower()


def _compares(value: Any, text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    wanted = value.number.number
    op = value.op.name
    return {
        "LT": number < wanted,
        "LTE": number <= wanted,
        "GT": number > wanted,
        "GTE": number >= wanted,
        "NEQ": number != wanted,
    }[op]
