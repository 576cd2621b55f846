"""The rules in force: those that come with logweir, and the operator's own, read again when their files change."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

from logweir.alerts.rules import Condition, Rule
from logweir.config import AlertsSettings
from logweir.errors import RULE_UNKNOWN, RULES_UNREADABLE, LogweirError
from logweir.process.files import fingerprint_of, make_folder, write_whole
from logweir_workers.alerts.found import learn_fields
from logweir_workers.alerts.guard import RuleEnds, RuleTooSlow, in_time
from logweir_workers.alerts.mozdef.folder import MozdefFolder
from logweir_workers.alerts.sigma.condition import SigmaCondition
from logweir_workers.alerts.sigma.files import SUFFIXES, SigmaFiles, read_plans, resolve
from logweir_workers.alerts.sigma.linking import Linker
from logweir_workers.alerts.sigma.parsing import Unfit
from logweir_workers.alerts.sigma.plans import FILE_NAME, PlanCache

log = logging.getLogger(__name__)

PACK = Path(__file__).parent / "rules"
"""The rules that come with logweir."""
RUNBOOKS = "docs/how-to/rules"
"""Where their runbooks are."""
SIZE_BYTES_MAX = 1024 * 1024
FILES_MAX = 5_000


_AS_READ = "Correct the file. Until then its rules are evaluated as they were read last."
_NOT_AT_ALL = "Correct the file. Until then its rules are not evaluated."


@dataclass(slots=True)
class _File:
    version: object
    rules: list[Rule] = field(default_factory=list)
    source: bytes | None = None
    """What they were read from; None for a file that never could be read."""
    problem: LogweirError | None = None
    sigma: dict[Path, object] = field(default_factory=dict)
    """The Sigma files that are conditions of its rules, with their versions."""

    def is_of(self, version: object) -> bool:
        """Whether it was read from this version, and nothing that its rules are made of has changed since."""
        return self.version == version and all(fingerprint_of(path) == one for path, one in self.sigma.items())


class RuleFiles:
    """The files of rules, in Python and of Sigma's. A file that cannot be read leaves its rules as they were read last.

    ``last_read``: a folder with copies of own files as they were read last, for the time after a restart (``keep``);
    of Sigma's, with their plans. Where there is none, of a broken file that this process never could read
    no rule is evaluated.
    """

    def __init__(self, settings: AlertsSettings, own: Path, *, last_read: Path | None = None) -> None:
        self._folders = [*([PACK] if settings.pack else []), own]
        self._own = own
        self._last_read = last_read
        self._plans = PlanCache(last_read / FILE_NAME if last_read is not None else None)
        self._sigma = SigmaFiles(own, self._plans)
        self._files: dict[Path, _File] = {}
        self._mozdef = MozdefFolder(settings.mozdef_dir) if settings.mozdef_dir is not None else None
        self._doubles: list[LogweirError] = []
        self.rules: dict[str, Rule] = {}
        """All of them, by name."""
        self.read_anew: dict[Path, list[Rule]] = {}
        """Of the own files that ``reload`` has read the last time, the rules."""
        self.reload()

    @property
    def problems(self) -> list[LogweirError]:
        """What is wrong with files, as they are now."""
        own = (one.problem for one in self._files.values() if one.problem is not None)
        of_mozdef = self._mozdef.problems if self._mozdef is not None else []
        return [*own, *self._sigma.problems.values(), *of_mozdef, *self._doubles]

    @property
    def broken(self) -> set[str]:
        """The paths of files that cannot be read now."""
        own = (path for path, one in self._files.items() if one.problem is not None)
        return {str(path) for path in (*own, *self._sigma.problems)}

    def reload(self) -> bool:
        """Read again what has changed; whether anything has."""
        paths = [
            path for folder in self._folders for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")
        ][:FILES_MAX]
        versions = {path: fingerprint_of(path) for path in paths}
        has_changed = versions.keys() != self._files.keys() or not all(
            one.is_of(versions[path]) for path, one in self._files.items()
        )
        if has_changed:
            self._read(versions)
        apart = frozenset(path for one in self._files.values() for path in one.sigma)
        # Each of them is asked: none may keep another from being read.
        others = [self._sigma.reload(apart), self._mozdef is not None and self._mozdef.reload()]
        if not has_changed and not any(others):
            return False
        if not has_changed:
            self.read_anew = {}
        self._take_over()
        return True

    def _read(self, versions: dict[Path, tuple[int, int, int] | None]) -> None:
        """Read the files in Python again that have changed, or whose Sigma files have."""
        self._plans.refresh()  # An import has compiled what it has written.
        before, self._files = self._files, {}
        self.read_anew = {}
        for path, version in versions.items():
            known = before.get(path)
            if known is not None and known.is_of(version):
                self._files[path] = known
                continue
            file = self._files[path] = _File(version)
            try:
                file.source = _source(path)
                file.rules, sigma = _rules_of(path, file.source, self._plans)
                if path.parent == self._own:
                    self.read_anew[path] = file.rules
            except LogweirError as error:
                file.rules, file.source = (known.rules, known.source) if known is not None else ([], None)
                sigma = {*(known.sigma if known is not None else ()), *_named_in(error)}
                if file.source is None:
                    file.rules, file.source = self._as_read_last(path)
                reason = error.numbers["reason"] if "path" in error.numbers else error.detail.rstrip(".")
                advice = _NOT_AT_ALL if file.source is None else _AS_READ
                file.problem = LogweirError(RULES_UNREADABLE, path=path, reason=reason, advice=advice)
            file.sigma = {one: fingerprint_of(one) for one in sigma}

    def _take_over(self) -> None:
        self.rules, self._doubles = {}, []
        for path, rules in self._sigma.rules.items():
            for rule in rules:
                if not rule.revision:
                    rule.revision, rule.path = _revision(rule, ""), str(path)
        by_file = {path: list(file.rules) for path, file in self._files.items()}
        for rule in self._mozdef.rules if self._mozdef is not None else ():
            by_file.setdefault(Path(rule.path), []).append(rule)
        for path, rules in {**by_file, **self._sigma.rules}.items():
            for rule in rules:
                other = self.rules.setdefault(rule.name, rule)
                if other is not rule:
                    reason = f"there is another rule {rule.name} in {other.path}"
                    advice = "Give one of them another name. Until then the other one is evaluated, and not this one."
                    self._doubles.append(LogweirError(RULES_UNREADABLE, path=path, reason=reason, advice=advice))

    def keep(self) -> None:
        """Keep copies of own files as they were read last: after a restart, a broken file's rules go on by them."""
        if self._last_read is None:
            return
        self._sigma.keep()
        copies = {self._copy_of(path): one.source for path, one in self._files.items() if path.parent == self._own}
        try:
            make_folder(self._last_read)
            for copy, source in copies.items():
                if source is not None and (not copy.exists() or copy.read_bytes() != source):
                    write_whole(copy, source.decode())
            for copy in self._last_read.glob("*.py"):
                if copy not in copies:
                    copy.unlink(missing_ok=True)
        except (OSError, UnicodeDecodeError) as error:
            log.warning("Rules are not kept for a restart with a broken file, in %s: %s", self._last_read, error)

    def _copy_of(self, path: Path) -> Path:
        digest = hashlib.blake2b(str(path).encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        return (self._last_read or path.parent) / f"{path.stem}-{digest}.py"

    def _as_read_last(self, path: Path) -> tuple[list[Rule], bytes | None]:
        """The rules of the copy of a broken file, and what they were read from; nothing where there is none."""
        if self._last_read is None or path.parent != self._own:
            return [], None
        try:
            source = _source(self._copy_of(path))
            return _rules_of(path, source, self._plans)[0], source
        except LogweirError:
            return [], None


def _named_in(error: LogweirError) -> list[Path]:
    """The Sigma file that a rule is not without."""
    return [error.numbers["sigma"]] if "sigma" in error.numbers else []


def named_rule(name: str, rules: Iterable[Rule]) -> Rule:
    """The rule of that name. Raises LogweirError(RULE_UNKNOWN) with the nearest."""
    known = {rule.name: rule for rule in rules}
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        raise LogweirError(RULE_UNKNOWN, name=name, nearest=f" Did you mean {nearest[0]!r}?" if nearest else "")
    return known[name]


def read_rules(path: Path, plans: PlanCache | None = None) -> list[Rule]:
    """The rules in a file, in Python or of Sigma's. ``plans``: where what is compiled is put.

    Raises LogweirError: RULE_BAD, RULES_UNREADABLE.
    """
    plans = plans or PlanCache(None)
    if path.suffix in SUFFIXES:
        return _sigma_rules_of(path, plans)
    return _rules_of(path, _source(path), plans)[0]


def _sigma_rules_of(path: Path, cache: PlanCache) -> list[Rule]:
    try:
        plans = read_plans(path, cache)
    except Unfit as error:
        raise LogweirError(RULES_UNREADABLE, path=path, reason=error, advice="Correct the file.") from error
    linked = Linker().link({path: plans})
    if path in linked.problems:
        raise LogweirError(RULES_UNREADABLE, path=path, reason=linked.problems[path], advice="Correct the file.")
    rules = linked.rules.get(path, [])
    for rule in rules:
        rule.revision, rule.path = _revision(rule, ""), str(path)
    return rules


def _source(path: Path) -> bytes:
    """What is in the file. Raises LogweirError(RULES_UNREADABLE)."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise LogweirError(RULES_UNREADABLE, path=path, reason=error) from error
    if len(source) > SIZE_BYTES_MAX:
        raise LogweirError(RULES_UNREADABLE, path=path, reason=f"it has more than {SIZE_BYTES_MAX} bytes")
    return source


def _rules_of(path: Path, source: bytes, plans: PlanCache) -> tuple[list[Rule], set[Path]]:
    """The rules that were read from the file, and the Sigma files that they have as conditions.

    Raises LogweirError: RULE_BAD, RULES_UNREADABLE.
    """
    digest = hashlib.blake2b(source, digest_size=6).hexdigest()
    sigma: set[Path] = set()
    try:
        with in_time():
            rules = [value for value in vars(_module(path, source, digest)).values() if isinstance(value, Rule)]
            for rule in rules:
                sigma |= resolve(rule, path, plans)
                rule.revision, rule.path = _revision(rule, digest), str(path)
                if path.parent == PACK:
                    rule.runbook = f"{RUNBOOKS}/{rule.runbook}"
                learn_fields(rule)
    except (RuleTooSlow, RuleEnds) as error:
        raise LogweirError(RULES_UNREADABLE, path=path, reason=error) from error
    return rules, sigma


def _revision(rule: Rule, file_digest: str) -> str:
    """A hash of what the rule counts. Of a condition that is a function, nothing is known but the file it is in."""
    counted = {
        "of": rule.of,
        "conditions": [_counted(one, file_digest) for one in rule.conditions],
        "window": asdict(rule.window),
        "group": rule.group,
        "quiet_us": rule.quiet_us,
    }
    return hashlib.blake2b(json.dumps(counted, sort_keys=True).encode(), digest_size=6).hexdigest()


def _counted(condition: Condition, file_digest: str) -> object:
    if isinstance(condition, SigmaCondition):
        return {"sigma": condition.digest}
    return condition if isinstance(condition, str) else {"function in": file_digest}


def _module(path: Path, source: bytes, digest: str) -> ModuleType:
    """The file, run: from what was read, not from what is there now."""
    name = f"logweir_rules.{path.stem}_{digest}"
    module = ModuleType(name)
    module.__file__ = str(path)
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    sys.modules[name] = module  # Data classes and the like look their own module up.
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - rules are the operator's own code
    except (LogweirError, RuleTooSlow):
        raise
    except (Exception, SystemExit) as error:
        lines = _lines(error, path)
        # A syntax error says its file and line itself.
        what = error.msg if isinstance(error, SyntaxError) else error
        reason = f"{type(error).__name__}: {what}" + (f" (line {lines[-1]})" if lines else "")
        raise LogweirError(RULES_UNREADABLE, path=path, reason=reason) from error
    finally:
        sys.modules.pop(name, None)
    return module


def _lines(error: BaseException, path: Path) -> list[int]:
    """The lines of the file that the error passed through, the innermost last."""
    found: list[int] = []
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return [error.lineno]
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            found.append(trace.tb_lineno)
        trace = trace.tb_next
    return found
