"""The Sigma files of a folder, at any depth: read again when they change, compiled once."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import orjson

from logweir.alerts.rules import Detection, Rule, SigmaFile
from logweir.errors import RULES_UNREADABLE, LogweirError
from logweir_workers.alerts.sigma.condition import SigmaCondition
from logweir_workers.alerts.sigma.linking import Linker, condition_of, origin_of
from logweir_workers.alerts.sigma.parsing import SIZE_BYTES_MAX, ExtraMissing, Unfit, parse, parse_detection
from logweir_workers.alerts.sigma.plans import Plan, PlanCache, content_hash

FILES_MAX = 20_000
SUFFIXES = (".yml", ".yaml")
_NEEDED = ("sigma", "re2", "ahocorasick")
_AS_READ = "Correct the file. Until then its rules are evaluated as they were read last."
_NOT_AT_ALL = "Correct the file. Until then it is not evaluated."

Version = tuple[int, int, int]


class SigmaFiles:
    """The rules in the Sigma files of a folder.

    A file that cannot be read leaves its rules as they were read last; ``cache`` knows that after a restart, too.
    """

    def __init__(self, folder: Path, cache: PlanCache) -> None:
        self._folder = folder
        self._cache = cache
        self._linker = Linker()
        self._versions: dict[str, Version] = {}
        self._apart: frozenset[Path] = frozenset()
        self._plans: dict[Path, tuple[str, list[Plan]]] = {}
        self._unfit: dict[Path, LogweirError] = {}
        self._unlinked: dict[Path, LogweirError] = {}
        self.rules: dict[Path, list[Rule]] = {}
        """By file."""

    @property
    def problems(self) -> dict[Path, LogweirError]:
        """By file, what is wrong with it now."""
        return {**self._unlinked, **self._unfit}

    def reload(self, apart: frozenset[Path] = frozenset()) -> bool:
        """Read again what has changed; whether anything has. ``apart``: files that are parts of other rules."""
        versions = dict(islice(_versions_in(str(self._folder)), FILES_MAX + 1))
        has_too_many = len(versions) > FILES_MAX
        if has_too_many:
            versions.popitem()
        if versions == self._versions and apart == self._apart:
            return False
        self._cache.refresh()
        plans: dict[Path, tuple[str, list[Plan]]] = {}
        unfit: dict[Path, LogweirError] = {}
        for name, version in versions.items():
            path = Path(name)
            if path in apart:
                continue
            if version == self._versions.get(name) and path not in self._apart:
                if path in self._plans:
                    plans[path] = self._plans[path]
                if path in self._unfit:
                    unfit[path] = self._unfit[path]
                continue
            try:
                plans[path] = read_plans(path, self._cache)
            except Unfit as error:
                known = self._plans.get(path) or _turned(self._cache.as_read_last(path))
                if isinstance(error, ExtraMissing):
                    known = None  # What was compiled elsewhere needs it, too.
                if known is not None:
                    plans[path] = known
                advice = _NOT_AT_ALL if known is None else _AS_READ
                unfit[path] = LogweirError(RULES_UNREADABLE, path=path, reason=error, advice=advice)
        self._versions, self._apart, self._plans, self._unfit = versions, apart, plans, unfit
        if has_too_many:
            reason, advice = f"it has more than {FILES_MAX} Sigma files", "Those behind them are not evaluated."
            unfit[self._folder] = LogweirError(RULES_UNREADABLE, path=self._folder, reason=reason, advice=advice)
        linked = self._linker.link(plans)
        self._unlinked = {
            path: LogweirError(RULES_UNREADABLE, path=path, reason=reason, advice=_NOT_AT_ALL)
            for path, reason in linked.problems.items()
        }
        self.rules = linked.rules
        return True

    def keep(self) -> None:
        """Keep what is compiled: after a restart nothing is parsed, and broken files go on as they were read last."""
        self._cache.keep({path: digest for path, (digest, _) in self._plans.items()})


def _turned(known: tuple[list[Plan], str] | None) -> tuple[str, list[Plan]] | None:
    return None if known is None else (known[1], known[0])


def _versions_in(folder: str) -> Iterator[tuple[str, Version]]:
    """The paths of the folder's files, each with what differs after a change of it."""
    # Every two seconds, of thousands of files: so without Path.
    try:
        with os.scandir(folder) as found:
            entries = sorted((one for one in found if one.name[0] not in "._"), key=lambda one: one.name)
    except OSError:
        return
    for one in entries:
        if one.name.endswith(SUFFIXES):
            try:
                stat = one.stat()
            except OSError:
                continue
            yield one.path, (stat.st_ctime_ns, stat.st_ino, stat.st_size)
        elif one.is_dir(follow_symlinks=False):
            yield from _versions_in(one.path)


def read_plans(path: Path, cache: PlanCache) -> tuple[str, list[Plan]]:
    """A hash of what is in the file, and its plans. Raises Unfit."""
    try:
        if path.stat().st_size > SIZE_BYTES_MAX:
            raise Unfit(f"it has more than {SIZE_BYTES_MAX} bytes")
        source = path.read_bytes()
    except OSError as error:
        raise Unfit(str(error)) from error
    return plans_of(source, cache)


def plans_of(source: bytes, cache: PlanCache) -> tuple[str, list[Plan]]:
    """A hash of what was read, and its plans. Raises Unfit."""
    require_extra()
    digest = content_hash(source)
    plans = cache.get(digest)
    if plans is None:
        plans = parse(source)
        cache.put(digest, plans)
    return digest, plans


def require_extra() -> None:
    """Raises ExtraMissing where the extra ``sigma`` is not installed: plans from a cache need parts of it, too."""
    name = missing()
    if name is not None:
        raise ExtraMissing(name)


@lru_cache(maxsize=1)
def missing() -> str | None:
    """What of the extra is not there."""
    return next((name for name in _NEEDED if importlib.util.find_spec(name) is None), None)


def resolve(rule: Rule, path: Path, cache: PlanCache) -> set[Path]:
    """Compile a rule's conditions that are Sigma files, or detections; the files.

    ``path``: the rule's own file. Raises LogweirError(RULES_UNREADABLE).
    """
    conditions, files = list(rule.conditions), set[Path]()
    for step, one in enumerate(rule.conditions):
        if isinstance(one, SigmaFile):
            file = path.parent / one.path
            try:
                plan = _only_rule(read_plans(file, cache)[1])
            except Unfit as error:
                reason = f"the Sigma rule {one.path} of {rule.name} cannot be read: {error}"
                raise LogweirError(
                    RULES_UNREADABLE, path=path, reason=reason, advice=_NOT_AT_ALL, sigma=file
                ) from error
            conditions[step] = condition_of(plan, ())
            rule.origin = rule.origin or origin_of(plan)
            files.add(file)
        elif isinstance(one, Detection):
            try:
                tree = _detection_plan(one, cache)["condition"]
            except Unfit as error:
                reason = f"the detection of {rule.name} cannot be read: {error}"
                raise LogweirError(RULES_UNREADABLE, path=path, reason=reason, advice=_NOT_AT_ALL) from error
            conditions[step] = SigmaCondition(one.text, ("", "", ""), tree)
    rule.conditions = tuple(conditions)
    return files


def _detection_plan(detection: Detection, cache: PlanCache) -> Plan:
    """Raises Unfit."""
    require_extra()
    try:
        digest = content_hash(orjson.dumps(detection.given))
    except TypeError as error:
        raise Unfit(str(error)) from error
    plans = cache.get(digest)
    if plans is None:
        plans = [parse_detection(detection.given)]
        cache.put(digest, plans)
    return plans[0]


def _only_rule(plans: list[Plan]) -> Plan:
    if len(plans) != 1 or plans[0]["kind"] != "rule":
        raise Unfit("it is not one rule: correlations, filters and several documents are read in a file of their own")
    return plans[0]
