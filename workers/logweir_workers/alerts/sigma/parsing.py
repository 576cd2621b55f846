"""YAML -> plans, by pySigma's parser: detections, modifiers and conditions are read as Sigma says.

No backend of it is used. It (LGPL) is in the extra ``sigma``, and imported when something is parsed that no cache has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from logweir.query import lists
from logweir_workers.alerts.sigma.plans import Plan, Tree

if TYPE_CHECKING:
    from sigma.correlations import SigmaCorrelationRule
    from sigma.filters import SigmaFilter
    from sigma.rule import SigmaRule

SIZE_BYTES_MAX = 1024 * 1024
_DOCUMENTS_MAX = 1_000
_LEAVES_MAX = 50_000
_TEXT_LENGTH_MAX = 20_000
_STATUSES_LEFT = ("deprecated", "unsupported")


class Unfit(Exception):
    """The document cannot be a rule here; it says why."""


class ExtraMissing(Unfit):
    """The extra ``sigma`` is not installed; it says how to."""

    def __init__(self, name: str | None) -> None:
        super().__init__(f"Sigma rules need the extra sigma: pip install 'logweir[sigma]' ({name} is not there)")


def parse(source: bytes) -> list[Plan]:
    """The plans of a file's documents. Raises Unfit, with a reason that its author can go by."""
    return _plans(lambda: _documents_in(source))


def parse_detection(detection: Mapping[str, Any]) -> Plan:
    """The plan of a detection without a rule around it. Raises Unfit."""
    # pySigma takes no rule without a log source.
    rule = {"title": "detection", "logsource": {"category": "any"}, "detection": dict(detection)}
    (plan,) = _plans(lambda: [rule])
    return plan


def _plans(documents_of: Callable[[], list[Any]]) -> list[Plan]:
    """Raises Unfit."""
    try:
        from sigma.collection import SigmaCollection
        from sigma.exceptions import SigmaError
    except ModuleNotFoundError as error:
        raise ExtraMissing(error.name) from error
    try:
        # What refers to what is found out with all files at hand, so not here.
        documents = documents_of()
        collection = SigmaCollection.from_dicts(documents, collect_filters=True, resolve_references=False)
        return [_plan(one) for one in (*collection.rules, *collection.filters)]
    except SigmaError as error:
        raise Unfit(_one_line(error)) from error
    except RecursionError as error:
        raise Unfit("it is nested too deeply") from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        # pySigma's checks do not cover every malformed value.
        raise Unfit(f"it is no valid Sigma rule: {type(error).__name__}: {_one_line(error)}") from error


def _documents_in(source: bytes) -> list[Any]:
    import yaml

    if len(source) > SIZE_BYTES_MAX:
        raise Unfit(f"it has more than {SIZE_BYTES_MAX} bytes")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = [one for one in yaml.load_all(source.decode(), Loader=loader) if one is not None]
    except UnicodeDecodeError as error:
        raise Unfit("it is not UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Unfit(f"it is no YAML: {_one_line(error)}") from error
    if not documents or len(documents) > _DOCUMENTS_MAX:
        raise Unfit("there is nothing in it" if not documents else f"it has more than {_DOCUMENTS_MAX} documents")
    if not all(isinstance(one, dict) for one in documents):
        raise Unfit("it is no Sigma rule: a document of it is no mapping")
    if not any({"detection", "correlation", "filter"} & one.keys() for one in documents):
        raise Unfit("it is no Sigma rule: it has neither detection nor correlation nor filter")
    return documents


def _plan(one: object) -> Plan:
    from sigma.correlations import SigmaCorrelationRule
    from sigma.filters import SigmaFilter
    from sigma.rule import SigmaRule

    if isinstance(one, SigmaCorrelationRule):
        return _correlation(one)
    if isinstance(one, SigmaFilter):
        return _filter(one)
    assert isinstance(one, SigmaRule), "there is nothing else"
    return _rule(one)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# --- documents ------------------------------------------------------------------------------------------------------
def _common(rule: SigmaRule | SigmaCorrelationRule | SigmaFilter) -> Plan:
    """What people want to know of it: authors stay named, as the Detection Rule License has it."""
    status = rule.status.name.lower() if rule.status is not None else ""
    if status in _STATUSES_LEFT:
        raise Unfit(f"its status is {status}")
    level = rule.level.name.lower() if rule.level is not None else ""
    return {
        "title": _text(rule.title),
        "id": str(rule.id or ""),
        "name": _text(rule.name),
        "status": status,
        "level": level,
        "description": _text(rule.description),
        "author": _text(rule.author),
        "references": _texts(rule.references),
        "falsepositives": _texts(rule.falsepositives),
        "tags": [f"{tag.namespace}.{tag.name}" for tag in rule.tags or ()],
        "date": str(rule.date or ""),
        "modified": str(rule.modified or ""),
        "license": _text(rule.license),
    }


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()[:_TEXT_LENGTH_MAX]


def _texts(values: Iterable[object] | None) -> list[str]:
    return [_text(one) for one in values or ()][:200]


def _logsource(rule: SigmaRule | SigmaFilter) -> list[str]:
    source = rule.logsource
    return [(part or "").strip().lower() for part in (source.category, source.product, source.service)]


def _rule(rule: SigmaRule) -> Plan:
    trees = [_condition(one.parsed) for one in rule.detection.parsed_condition]
    return {
        "kind": "rule",
        **_common(rule),
        "logsource": _logsource(rule),
        "condition": trees[0] if len(trees) == 1 else ["or", trees],
    }


def _filter(rule: SigmaFilter) -> Plan:
    rules = rule.filter.rules
    return {
        "kind": "filter",
        **_common(rule),
        "logsource": _logsource(rule),
        "rules": None if isinstance(rules, str) else [str(one.reference) for one in rules],
        "condition": _condition(rule.filter.parsed_condition[0].parsed),
    }


def _correlation(rule: SigmaCorrelationRule) -> Plan:
    from sigma.correlations import SigmaCorrelationCondition

    condition = rule.condition
    asked: dict[str, Any]
    if isinstance(condition, SigmaCorrelationCondition):
        asked = {
            "op": condition.op.name.lower(),
            "count": condition.count,
            "field": condition.fieldref,
            "percentile": condition.percentile,
        }
        names = [str(one.reference) for one in rule.rules or ()]
    else:
        asked = {"expression": condition.expression, "is_every": _is_every(condition.parsed)}
        names = condition.get_referenced_rules()
    return {
        "kind": "correlation",
        **_common(rule),
        "type": rule.type.name.lower(),
        "rules": names,
        "within_s": rule.timespan.seconds,
        "group_by": list(rule.group_by or ()),
        "aliases": {
            one.alias: {reference.reference: field for reference, field in one.mapping.items()} for one in rule.aliases
        },
        "asked": asked,
        "generate": rule.generate,
    }


def _is_every(parsed: object) -> bool:
    """Whether an expression over rules asks for each of them, and nothing else."""
    from sigma.correlations import CorrelationConditionAND, SigmaRuleReference

    if isinstance(parsed, CorrelationConditionAND):
        return all(_is_every(one) for one in parsed.args)
    return isinstance(parsed, SigmaRuleReference)


# --- conditions -----------------------------------------------------------------------------------------------------
def _condition(parsed: Any) -> Tree:
    """The tree of one of pySigma's conditions, with leaves that look at the same put together."""
    from sigma.conditions import (
        ConditionAND,
        ConditionFieldEqualsValueExpression,
        ConditionNOT,
        ConditionOR,
        ConditionValueExpression,
    )

    leaves = 0

    def tree_of(node: Any) -> Tree:
        nonlocal leaves
        if isinstance(node, ConditionAND):
            return _joined("and", [tree_of(one) for one in node.args])
        if isinstance(node, ConditionOR):
            return _joined("or", _put_together([tree_of(one) for one in node.args]))
        if isinstance(node, ConditionNOT):
            return ["not", tree_of(node.args[0])]
        leaves += 1
        if leaves > _LEAVES_MAX:
            raise Unfit(f"it has more than {_LEAVES_MAX} values")
        if isinstance(node, ConditionFieldEqualsValueExpression):
            return _leaf(node.field, node.value)
        if isinstance(node, ConditionValueExpression):
            return _leaf(None, node.value)
        raise Unfit("its condition is empty")

    return tree_of(parsed)


def _joined(word: str, parts: list[Tree]) -> Tree:
    flat = [inner for one in parts for inner in (one[1] if one[0] == word else [one])]
    return flat[0] if len(flat) == 1 else [word, flat]


def _put_together(parts: list[Tree]) -> list[Tree]:
    """Leaves of one kind and field become one leaf with all their values."""
    made: list[Tree] = []
    by_place: dict[tuple[str, str | None], Tree] = {}
    for one in parts:
        if one[0] in ("and", "or", "not", "null", "exists", "field"):
            made.append(one)
        elif (known := by_place.get((one[0], one[1]))) is not None:
            known[2] += [value for value in one[2] if value not in known[2]]
        else:
            by_place[one[0], one[1]] = one
            made.append(one)
    return made


def _leaf(field: str | None, value: Any) -> Tree:
    from sigma import types

    if isinstance(value, types.SigmaExpansion):
        return _joined("or", _put_together([_leaf(field, one) for one in value.values]))
    if isinstance(value, types.SigmaCasedString):
        return _of_text(field, value.s, is_cased=True)
    if isinstance(value, types.SigmaString):
        return _of_text(field, value.s, is_cased=False)
    if isinstance(value, types.SigmaRegularExpression):
        return ["re", field, [_expression(value)]]
    if isinstance(value, types.SigmaBool):
        return _of_text(field, [str(value.boolean)], is_cased=False)
    if isinstance(value, types.SigmaNumber) and not isinstance(value, types.SigmaTimestampPart):
        if field is None:
            return ["has", None, [str(value.number)]]
        return ["eq", field, sorted({str(value.number), str(float(value.number))})]
    if field is None:
        raise Unfit(f"{type(value).__name__.removeprefix('Sigma')} needs a field to be asked of")
    return _of_field(field, value)


def _of_field(field: str, value: Any) -> Tree:
    from sigma import types

    if isinstance(value, types.SigmaTimestampPart):
        return [value.timestamp_part.name.lower(), field, [value.number]]
    if isinstance(value, types.SigmaNull):
        return ["null", field]
    if isinstance(value, types.SigmaExists):
        return ["exists", field] if value.exists else ["not", ["exists", field]]
    if isinstance(value, types.SigmaCIDRExpression):
        return ["cidr", field, [str(value.network)]]
    if isinstance(value, types.SigmaCompareExpression):
        return [value.op.name.lower(), field, [value.number.number]]
    if isinstance(value, types.SigmaFieldReference):
        how = {(True, True): "has", (True, False): "begins", (False, True): "ends"}
        return ["field", field, [how.get((value.starts_with, value.ends_with), "eq"), value.field]]
    raise Unfit(f"it has a value of a kind that is not known here: {type(value).__name__}")


def _expression(value: Any) -> str:
    from sigma.types import Placeholder

    for part in value.regexp.s:
        if isinstance(part, Placeholder):
            raise Unfit(_no_part(part.name))
    flags = "".join(sorted(value.sigma_to_re_flag[flag] for flag in value.flags))
    return (f"(?{flags})" if flags else "") + str(value.regexp)


def list_of(placeholder: str) -> str:
    """The list that a placeholder stands for: ``%Known-DCs%`` is ``known_dcs``. Raises Unfit."""
    name = re.sub(r"[^a-z0-9]+", "_", placeholder.lower()).strip("_")
    if not lists.NAME.fullmatch(name):
        raise Unfit(f"its placeholder %{placeholder}% (expand) can be no list's name")
    return name


def _no_part(name: str) -> str:
    return f"its placeholder %{name}% (expand) is a part of a value, and a list has whole ones"


def _of_text(field: str | None, parts: Sequence[Any], *, is_cased: bool) -> Tree:
    """The leaf of a text with wildcards: the plainest kind that says the same."""
    from sigma.types import Placeholder, SpecialChars

    many, single = SpecialChars.WILDCARD_MULTI, SpecialChars.WILDCARD_SINGLE
    whole = [one for one in parts if one is not many]
    if len(whole) == 1 and isinstance(whole[0], Placeholder):
        return ["list", field, [[list_of(whole[0].name), parts[0] is many, parts[-1] is many]]]
    pieces: list[Any] = []
    for part in parts:
        if isinstance(part, Placeholder):
            raise Unfit(_no_part(part.name))
        one = part if part in (many, single) or is_cased else part.lower()
        if isinstance(one, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += one
        elif one is not many or not pieces or pieces[-1] is not many:
            pieces.append(one)
    # Words are looked for anywhere.
    begins_open = field is None or (bool(pieces) and pieces[0] is many)
    ends_open = field is None or (bool(pieces) and pieces[-1] is many)
    inner = [one for at, one in enumerate(pieces) if one is not many or 0 < at < len(pieces) - 1]
    cased = "_cased" if is_cased else ""
    if len(inner) <= 1 and all(isinstance(one, str) for one in inner):
        text = inner[0] if inner else ""
        kind = {(False, False): "eq", (True, False): "ends", (False, True): "begins", (True, True): "has"}
        return [kind[begins_open, ends_open] + cased, field, [text]]
    # A * becomes .* and a ? becomes . in RE2, which does not backtrack.
    words = {many: ".*", single: "."}
    middle = "".join(re.escape(one) if isinstance(one, str) else words[one] for one in inner)
    longest = max((one for one in inner if isinstance(one, str)), key=len, default="")
    pattern = f"(?s){'' if begins_open else '^'}{middle}{'' if ends_open else '$'}"
    return ["like" + cased, field, [[pattern, longest]]]
