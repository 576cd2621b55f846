"""Rules of ElastAlert 2, one of YAML a file, as rules in Python."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

import orjson

from logweir.text import counted
from logweir_workers.alerts.importers.conditions import (
    Leaf,
    Tree,
    Unfit,
    all_of,
    detection_of,
    literal,
    named,
    none_of,
    one_of,
)
from logweir_workers.alerts.importers.elastic_query import filter_of
from logweir_workers.alerts.importers.fields import Place, place_of
from logweir_workers.alerts.importers.written import Converted, MadeRule, Value, name_of, time_of
from logweir_workers.alerts.sigma.parsing import ExtraMissing, list_of
from logweir_workers.alerts.sigma.parsing import Unfit as NoList

NAME = "elastalert"
SUFFIXES = (".yml", ".yaml")
_ALIASES_MAX = 20
_DEPTH_MAX = 100
_VALUES_MAX = 100_000
_HAS_TYPE = re.compile(rb"^type\s*:\s*\S", re.MULTILINE)
_IS_SIGMA = re.compile(rb"^(detection|correlation|logsource)\s*:", re.MULTILINE)
_SEVERITIES = {
    "pagerduty_v2_payload_severity": {"critical": "critical", "error": "high", "warning": "medium", "info": "info"},
    "opsgenie_priority": {"P1": "critical", "P2": "high", "P3": "medium", "P4": "low", "P5": "info"},
}
_REALERT_DEFAULT_S = 60


def is_of(content: bytes) -> bool:
    """Whether a file of YAML has a rule of ElastAlert's: it has a type, and none of what Sigma's have."""
    return _HAS_TYPE.search(content) is not None and _IS_SIGMA.search(content) is None


def convert(files: Mapping[PurePosixPath, bytes], parents: Sequence[bytes]) -> Iterator[Converted]:  # noqa: ARG001
    """What becomes of each file. ``parents``: none; its rules do not refer to others."""
    for path, content in files.items():
        made = Converted(path, name_of(NAME, path.stem), [f"From {path}, a rule of ElastAlert 2."])
        try:
            given = _read(content)
            rule = _Rule(given, str(given.get("name") or path.stem))
            made.heading += rule.heading
            made.rules = rule.made()
        except Unfit as unfit:
            made.left[""] = str(unfit)
        except RecursionError:
            made.left[""] = "it is nested too deeply"
        yield made


# --- YAML -----------------------------------------------------------------------------------------------------------
def _read(content: bytes) -> dict[str, Any]:
    """The rule in a file. Raises Unfit."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise Unfit(str(ExtraMissing(error.name))) from error
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = content.decode()
        _require_small(text, loader)
        given = yaml.load(text, Loader=loader)  # noqa: S506 - it is a safe one
    except UnicodeDecodeError as error:
        raise Unfit("it is not UTF-8") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise Unfit(f"it is no YAML of one rule: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise Unfit("it is no rule of ElastAlert 2: it has no type")
    if _size(given, {}) > _VALUES_MAX:
        raise Unfit(f"it has more than {_VALUES_MAX} values, with what its aliases stand for")
    try:
        orjson.dumps(given, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise Unfit(f"it has a value that cannot be written down: {error}") from error
    return {str(name): value for name, value in given.items()}


def _require_small(text: str, loader: Any) -> None:
    """What few bytes can stand for is bounded before it is built. Raises Unfit."""
    import yaml

    depth = aliases = 0
    for one in yaml.parse(text, Loader=loader):
        if isinstance(one, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(one, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(one, yaml.AliasEvent):
            aliases += 1
        if depth > _DEPTH_MAX or aliases > _ALIASES_MAX:
            raise Unfit(f"it has more than {_ALIASES_MAX} aliases, or is nested more than {_DEPTH_MAX} levels deep")


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are, those behind aliases as often as they are named; very many where it holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = _VALUES_MAX + 1  # Until it is known: whoever comes here again is inside of it.
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(one, known) for one in inner)
    return known[id(value)]


# --- rules ----------------------------------------------------------------------------------------------------------
_CODE = {
    "match_enhancements": "its match_enhancements are Python code, which may drop and change matches",
    "import": "it imports another file: put what is in that into the rule",
    "limit_execution": "it is asked at some times only (limit_execution), and here rules are always asked",
    "query_timezone": "it reads times in a zone of its own (query_timezone)",
}
_LEFT = {
    "spike": "how much more there is than before is no count of matches",
    "spike_aggregation": "how much more there is than before is no count of matches",
    "percentage_match": "a share of all events is no count of matches",
    "change": "that a value is another than the one before is no count of matches; nearest is a rule with new=…, "
    "which fires for a value that its group never had",
}
_SCHEDULED = "; write it as a rule on a schedule (docs/how-to/write-a-rule.md)"


@dataclass(slots=True)
class _Rule:
    """One rule of ElastAlert's."""

    given: Mapping[str, Any]
    name: str
    changes: list[str] = field(default_factory=list)

    @property
    def heading(self) -> list[str]:
        made = [f"Its name there: {self.name}"]
        made += [
            f"{word}: {self.given[word.lower()]}" for word in ("Owner", "Description") if self.given.get(word.lower())
        ]
        return made

    def made(self) -> list[MadeRule]:
        """Raises Unfit."""
        if self.given.get("is_enabled") is False:
            raise Unfit("it is switched off (is_enabled: false)")
        for option, reason in _CODE.items():
            if self.given.get(option):
                raise Unfit(reason)
        if str(self.given.get("index", "")).startswith("elastalert"):
            raise Unfit("it is about alerts that ElastAlert has made, which it looks for in an index of its own")
        kind = self.given["type"]
        if kind in _LEFT:
            raise Unfit(f"its type is {kind}: {_LEFT[kind]}{'' if kind == 'change' else _SCHEDULED}")
        make = _TYPES.get(kind)
        if make is None:
            raise Unfit(f"its type {kind[:60]!r} is none of ElastAlert's own that are known here")
        filters = self.given.get("filter") or []
        condition = named("filter", filter_of(filters if isinstance(filters, list) else [filters]))
        made = make(self, condition)
        self._say_what_differs()
        for one in made:
            detection_of(one.steps[0][0])
            one.changes = [*self.changes, *one.changes]
        return made

    def rule(self, condition: Tree, *, suffix: str = "", changes: Sequence[str] = (), **arguments: Any) -> MadeRule:
        group = [] if "new" in arguments else self.group
        quiet = self._quiet()
        about = [Value(path) for path in ([arguments["new"]] if "new" in arguments else group)]
        says: list[str | Value] = [self.name]
        for at, one in enumerate(about):
            says += [": " if at == 0 else ", ", one]
        return MadeRule(
            name=name_of(NAME, f"{self.name} {suffix}".strip()),
            source=f"{self.name}{f' ({suffix})' if suffix else ''}",
            steps=[(condition, 1)],
            severity=self._severity(),
            says=says,
            arguments={**({"group": group} if group else {}), **arguments, "quiet": quiet},
            changes=list(changes),
        )

    # --- options
    @property
    def group(self) -> list[str]:
        """The fields of ``query_key``."""
        keys = self.given.get("query_key") or []
        return [self.place(one).path for one in (keys if isinstance(keys, list) else [keys])]

    def place(self, name: Any) -> Place:
        text = str(name)
        for end in (".keyword", ".raw"):
            text = text.removesuffix(end)
        return place_of(text)

    def number(self, option: str) -> float:
        """Raises Unfit."""
        value = self.given.get(option)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Unfit(f"its {option} is {str(value)[:40]!r}, which is no number")
        return value

    def text(self, option: str) -> str:
        """Raises Unfit."""
        value = self.given.get(option)
        if not isinstance(value, str) or not value:
            raise Unfit(f"it has no {option}")
        return value

    def time(self, option: str, default_s: int | None = None) -> str:
        """A time as rules have it here. Raises Unfit."""
        value = self.given.get(option)
        if value is None and default_s is not None:
            return time_of(default_s)
        if not isinstance(value, dict):
            raise Unfit(f"its {option} is {str(value)[:60]!r}, which is no time such as minutes: 5")
        try:
            seconds = timedelta(**value).total_seconds()
        except (TypeError, OverflowError) as error:
            raise Unfit(f"its {option} is {str(value)[:60]!r}, which is no time such as minutes: 5") from error
        if seconds != int(seconds) or seconds < 0:
            raise Unfit(f"its {option} is no time of whole seconds")
        return time_of(int(seconds) or 1)

    def _quiet(self) -> str:
        return self.time("realert", _REALERT_DEFAULT_S)

    def _severity(self) -> str:
        for option, known in _SEVERITIES.items():
            found = known.get(str(self.given.get(option, "")))
            if found is not None:
                return found
        return "medium"

    def _say_what_differs(self) -> None:
        """What goes for rules of all types."""
        if index := self.given.get("index"):
            self.changes.append(f"It looked into the index {str(index)[:200]}: here it is asked of every event.")
        self.changes.append(
            "How Elasticsearch compares a field, its index says and not the rule: here the message is looked for by"
            " words (by a pattern of several words as a whole), and each other field is compared whole, in any case (in"
            " its own where .keyword or .raw follows)."
        )
        self.changes.append(
            f"realert: matches of one group less than {self._quiet()} apart go on in one alert, which counts them."
        )
        if self.group:
            self.changes.append(f"An event without {' or '.join(self.group)} is not counted.")
        if not any(option in self.given for option in _SEVERITIES):
            self.changes.append("ElastAlert knows no severity: medium is a guess.")
        channels = self.given.get("alert")
        if channels:
            names = [
                str(next(iter(one), "")) if isinstance(one, dict) else str(one)
                for one in (channels if isinstance(channels, list) else [channels])
            ]
            told = ", ".join(names)[:200]
            self.changes.append(f"It told by {told}: here channels say who is told (docs/how-to/notifications.md).")
        if self.given.get("aggregation"):
            self.changes.append("aggregation: a channel puts alerts together by a wait of its own (group_wait_s).")
        if str(self.given.get("timestamp_field", "@timestamp")) != "@timestamp":
            self.changes.append(f"It went by the time in {self.given['timestamp_field']}: here by the event's own.")


def _any(rule: _Rule, condition: Tree) -> list[MadeRule]:
    return [rule.rule(condition)]


def _frequency(rule: _Rule, condition: Tree) -> list[MadeRule]:
    return [rule.rule(condition, at_least=_whole(rule.number("num_events")), within=rule.time("timeframe"))]


def _cardinality(rule: _Rule, condition: Tree) -> list[MadeRule]:
    if rule.given.get("max_cardinality") is None:
        raise Unfit("it is for fewer values than min_cardinality, which is so before the first event has come")
    distinct = rule.place(rule.text("cardinality_field")).path
    changes = []
    if rule.given.get("min_cardinality") is not None:
        changes = ["Its min_cardinality is left: fewer values is so before the first event has come."]
    at_least = _whole(rule.number("max_cardinality")) + 1
    return [rule.rule(condition, distinct=distinct, at_least=at_least, within=rule.time("timeframe"), changes=changes)]


def _flatline(rule: _Rule, condition: Tree) -> list[MadeRule]:
    threshold = _whole(rule.number("threshold"))
    if threshold != 1:
        events = counted(threshold, "event")
        raise Unfit(f"it is for fewer than {events}, and here absent is for none{_SCHEDULED}")
    changes = ["Only what had events before can be absent: without a single one it never fires."]
    if rule.given.get("forget_keys"):
        changes.append(
            "forget_keys: what is absent is expected for 30 days, and its alert is quiet when it comes again."
        )
    return [rule.rule(condition, absent=rule.time("timeframe"), changes=changes)]


def _new_term(rule: _Rule, condition: Tree) -> list[MadeRule]:
    fields = rule.given.get("fields") or rule.given.get("query_key") or []
    fields = fields if isinstance(fields, list) else [fields]
    if not fields or any(isinstance(one, list) for one in fields):
        raise Unfit("it is for new pairs of several fields" if fields else "it has no fields")
    if rule.given.get("alert_on_missing_field"):
        raise Unfit("it alerts on events without the field, too (alert_on_missing_field)")
    learn = rule.time("terms_window_size", 30 * 86_400)
    changes = [f"It learns for {learn} from its first match on, and makes no alerts then: it does not look back."]
    made = []
    for one in fields:
        path = rule.place(one).path
        # Without the field, there is nothing that could be new.
        suffix = str(one) if len(fields) > 1 else ""
        there = rule.place(one).asked("exists", (True,))
        both = all_of([condition, named("there", there)])
        made.append(rule.rule(both, suffix=suffix, changes=changes, new=path, learn=learn))
    return made


def _blacklist(rule: _Rule, condition: Tree) -> list[MadeRule]:
    listed, changes = _listed(rule, "blacklist")
    return [rule.rule(all_of([condition, named("blacklist", listed)]), changes=changes)]


def _whitelist(rule: _Rule, condition: Tree) -> list[MadeRule]:
    listed, changes = _listed(rule, "whitelist")
    parts = [condition, none_of(named("whitelist", listed))]
    if rule.given.get("ignore_null"):
        parts.append(named("there", rule.place(rule.text("compare_key")).asked("exists", (True,))))
    return [rule.rule(all_of(parts), changes=changes)]


def _listed(rule: _Rule, option: str) -> tuple[Tree, list[str]]:
    """The field that is compared has one of the values; what differs. Raises Unfit."""
    place = rule.place(rule.text("compare_key"))
    given = rule.given.get(option)
    values = given if isinstance(given, list) else [given]
    if not values or any(isinstance(one, dict | list) or one is None for one in values):
        raise Unfit(f"it has no {option} of values")
    changes: list[str] = []
    plain: list[str] = []
    trees: list[Tree] = []
    for one in values:
        found = re.fullmatch(r"!file\s+(.+)", str(one))
        if found is None:
            value = place.value(one)
            plain.append(literal(str(value).lower() if isinstance(value, bool) else str(value)))
            continue
        try:
            name = list_of(PurePosixPath(found[1].strip()).stem)
        except NoList as error:
            raise Unfit(f"its file of values {found[1][:60]!r} can be no list's name") from error
        trees.append(Leaf(place.name, "expand", (f"%{name}%",)))
        effect = "matches nothing" if option == "blacklist" else "does not keep anything from matching"
        changes.append(
            f"The values in {found[1].strip()} have to become the list {name} (docs/how-to/lists.md);"
            f" without it, it {effect}."
        )
    if plain:
        trees.insert(0, place.asked("cased", tuple(plain)))
    return one_of(trees), changes


_AGGREGATIONS = {"avg": "average", "sum": "total"}


def _metric_aggregation(rule: _Rule, condition: Tree) -> list[MadeRule]:
    if rule.given.get("bucket_interval") or rule.given.get("metric_agg_script"):
        raise Unfit("it has a bucket_interval or a metric_agg_script")
    kind, key = rule.text("metric_agg_type"), rule.place(rule.text("metric_agg_key"))
    made = []
    for option in ("max_threshold", "min_threshold"):
        if rule.given.get(option) is not None:
            suffix = option.partition("_")[0] if rule.given.get("max_threshold") is not None else ""
            suffix = suffix if rule.given.get("min_threshold") is not None else ""
            made.append(_of_metric(rule, condition, kind, key, is_above=option == "max_threshold", suffix=suffix))
    if not made:
        raise Unfit("it has neither max_threshold nor min_threshold")
    return made


def _of_metric(rule: _Rule, condition: Tree, kind: str, key: Place, *, is_above: bool, suffix: str) -> MadeRule:
    limit = rule.number("max_threshold" if is_above else "min_threshold")
    if kind in ("max", "min"):
        if is_above != (kind == "max"):
            raise Unfit(
                f"that the {kind} of all values is {'above' if is_above else 'below'} a limit is no match of one event"
            )
        # The largest is above it as soon as one is.
        one = Leaf(key.name, "gt" if is_above else "lt", (limit,))
        return rule.rule(all_of([condition, named("metric", one)]), suffix=suffix)
    if rule.given.get("buffer_time") is None:
        raise Unfit("how far it looks back is the buffer_time of ElastAlert's config.yaml: put it into the rule")
    within = rule.time("buffer_time")
    changes = [f"ElastAlert looked at the last {within} at each run: here at any {within} that end with a match."]
    if kind in ("cardinality", "value_count"):
        if not is_above:
            raise Unfit("it is for fewer than some, which is so before the first event has come")
        at_least = math.floor(limit) + 1
        more = {"distinct": key.path} if kind == "cardinality" else {}
        there = named("there", key.asked("exists", (True,)))
        return rule.rule(
            all_of([condition, there]), suffix=suffix, changes=changes, **more, at_least=at_least, within=within
        )
    if kind not in _AGGREGATIONS or (kind == "sum" and not is_above):
        raise Unfit(
            f"its metric_agg_type {kind[:40]!r} {'above' if is_above else 'below'} a limit has nothing like it here"
        )
    # Above, and not from it on: the next number that there is.
    edge = math.nextafter(float(limit), math.inf if is_above else -math.inf)
    return rule.rule(
        condition,
        suffix=suffix,
        changes=changes,
        **{_AGGREGATIONS[kind]: key.path, "at_least" if is_above else "at_most": edge},
        within=within,
    )


def _whole(number: float) -> int:
    if number != int(number):
        raise Unfit(f"{number} is no whole number")
    return int(number)


_TYPES = {
    "any": _any,
    "frequency": _frequency,
    "cardinality": _cardinality,
    "flatline": _flatline,
    "new_term": _new_term,
    "blacklist": _blacklist,
    "whitelist": _whitelist,
    "metric_aggregation": _metric_aggregation,
}
"""By ElastAlert's type, what makes rules of it."""
