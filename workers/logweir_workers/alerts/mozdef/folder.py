"""A folder of MozDef's alert scripts: its ``ALERTS`` as rules. Nothing of it is run to be read."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from logweir.alerts.rules import QUIET_DEFAULT, Rule, Schedule, Window, WindowKind, bad_rule, duration_of, require_name
from logweir.alerts.schedules import schedule_of
from logweir.errors import RULES_UNREADABLE, LogweirError
from logweir.process.files import fingerprint_of
from logweir_workers.alerts.mozdef.constants import Unreadable, constants_of
from logweir_workers.alerts.mozdef.modules import MODULES, crontab, folders_of
from logweir_workers.alerts.mozdef.scripts import PYES, SEVERITIES, Script, wayout_of

log = logging.getLogger(__name__)

SIZE_BYTES_MAX = 1024 * 1024
FILES_MAX = 5_000
TIMEOUT_US = 60_000_000
"""How long a run may take."""
_CONFIGS = ("config.py", "lib/config.py", "files/config.py")
"""Where ``ALERTS`` is looked for first."""
_OLD_NAMES = ("searchEventsAggreg", "walkAggregs", "onAggreg")
"""What only the first generation of alerts has."""


class MozdefFolder:
    """The rules of a folder, read again when any of its files has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._versions: object = None
        self.rules: list[Rule] = []
        self.problems: list[LogweirError] = []
        """What is wrong with its files; alerts of the others are evaluated all the same."""

    def reload(self) -> bool:
        """Read again what has changed; whether anything has."""
        versions = {path: fingerprint_of(path) for path in _files(self._folder)}
        if versions == self._versions:
            return False
        self._versions = versions
        self.rules, self.problems = [], []
        try:
            config = _Config(self._folder)
        except LogweirError as error:
            self.problems.append(error)
            return True
        for name in config.plugins or ():
            path = self._folder / "plugins" / f"{name}.py"
            try:
                _require_fit(_syntax_of(path), path, self._folder)
            except LogweirError as error:
                self.problems.append(error)
        for name, entry in config.alerts.items():
            try:
                if isinstance(entry, Unreadable):
                    raise _bad(config.path, f"line {entry.line}: {name}: {entry}")
                self.rules.append(self._rule(config, name, entry))
            except LogweirError as error:
                self.problems.append(error)
        return True

    def _rule(self, config: _Config, name: str, entry: Any) -> Rule:
        stem, dot, class_name = name.rpartition(".")
        if not dot or not isinstance(entry, dict) or "schedule" not in entry:
            raise _bad(config.path, f"{name!r} is not of the form 'file.Class': {{'schedule': crontab(…)}}")
        path = self._folder / f"{stem.replace('.', '/')}.py"
        made = _rule_of(path, class_name, self._folder, config, entry)
        try:
            made.schedule = _schedule(made.name, entry["schedule"])
        except LogweirError as error:
            raise _bad(config.path, error.numbers["reason"]) from error
        return made


def rule_by_hand(path: Path, class_name: str, folder: Path | None) -> Rule | None:
    """The rule of a class in a file, whether it is in any ALERTS or not; None where there is no such class in it.

    ``folder``: of alerts, where it is one of its files. Raises LogweirError(RULES_UNREADABLE).
    """
    path = path.absolute()
    if not any(isinstance(one, ast.ClassDef) and one.name == class_name for one in _syntax_of(path).body):
        return None
    inside = folder is not None and path.is_relative_to(folder.absolute())
    home = folder.absolute() if folder is not None and inside else path.parent
    config = None
    with suppress(LogweirError):
        config = _Config(home)
    entry = config.alerts.get(f"{path.stem}.{class_name}") if config is not None else None
    return _rule_of(path, class_name, home, config, entry if isinstance(entry, dict) else {}, is_by_hand=True)


def _rule_of(
    path: Path,
    class_name: str,
    folder: Path,
    config: _Config | None,
    entry: dict[str, Any],
    *,
    is_by_hand: bool = False,
) -> Rule:
    syntax = _syntax_of(path)
    made = next((one for one in syntax.body if isinstance(one, ast.ClassDef) and one.name == class_name), None)
    if made is None:
        raise _bad(path, f"there is no class {class_name} in it")
    _require_fit(syntax, path, folder)
    script = Script(
        rule=_rule_name(path, class_name),
        path=path,
        class_name=class_name,
        folder=folder,
        args=tuple(entry.get("args") or ()),
        kwargs=dict(entry.get("kwargs") or {}),
        plugins=config.plugins if config is not None else None,
        is_by_hand=is_by_hand,
    )
    return Rule(
        name=script.rule,
        say=script,
        window=Window(WindowKind.SCHEDULED),
        severity=SEVERITIES[_severity(made)],
        conditions=(),
        schedule=Schedule(every_us=60_000_000, timeout_us=TIMEOUT_US),
        quiet_us=duration_of(script.rule, "quiet", QUIET_DEFAULT),
        description=(ast.get_docstring(made) or "").strip(),
        revision=_revision(path, entry),
        path=str(path),
    )


class _Config:
    """The file with ``ALERTS``. Raises LogweirError(RULES_UNREADABLE) where there is none."""

    def __init__(self, folder: Path) -> None:
        self.path, found = _with_alerts(folder)
        alerts, plugins = found["ALERTS"], found.get("ALERT_PLUGINS")
        if not isinstance(alerts, dict):
            raise _bad(self.path, f"ALERTS is no dictionary that can be read: {alerts}")
        self.alerts = {str(name): entry for name, entry in alerts.items()}
        self.plugins: tuple[str, ...] | None = None
        """The names of the plug-ins in use; None: all that there are."""
        if isinstance(plugins, list | tuple):
            self.plugins = tuple(str(one).removeprefix("plugins.").removesuffix(".py") for one in plugins)


def _with_alerts(folder: Path) -> tuple[Path, dict[str, Any]]:
    named = [path for name in _CONFIGS if (path := folder / name).exists()]
    for path in [*named, *(one for one in _files(folder) if one not in named)]:
        if path.suffix == ".py" and b"ALERTS" in _read(path):
            found = constants_of(_syntax_of(path))
            if "ALERTS" in found:
                return path, found
    raise _bad(folder, "no file in it has ALERTS = {'file.Class': {'schedule': crontab(…)}}")


def _schedule(name: str, value: Any) -> Schedule:
    """The schedule of an entry of ALERTS. Raises LogweirError(RULE_BAD)."""
    timeout = f"{TIMEOUT_US // 1_000_000}s"
    if isinstance(value, crontab):
        return schedule_of(name, every=None, cron=value.expression, window=None, timeout=timeout)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = timedelta(seconds=value)
    if isinstance(value, timedelta):
        return schedule_of(name, every=f"{int(value.total_seconds())}s", cron=None, window=None, timeout=timeout)
    raise bad_rule(name, f"its schedule is {value}, and neither crontab(…) nor timedelta(…)")


def _rule_name(path: Path, class_name: str) -> str:
    """AlertBruteforceSsh: alert_bruteforce_ssh."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name)
    name = re.sub(r"\W+", "_", parts).lower().strip("_")[:64]

    def named(_: object) -> None: ...

    named.__name__ = name
    try:
        return require_name(named)
    except LogweirError as error:
        raise _bad(path, f"of the class {class_name} no rule's name can be made") from error


def _severity(made: ast.ClassDef) -> str:
    """The first severity that the class writes down: its alerts say their own."""
    for node in ast.walk(made):
        value: ast.expr | None = None
        match node:
            case ast.Assign(targets=[ast.Name(id="severity")]) | ast.keyword(arg="severity"):
                value = node.value
            case ast.Call(func=ast.Attribute(attr="createAlertDict"), args=[_, _, _, _, fifth, *_]):
                value = fifth
        if isinstance(value, ast.Constant) and str(value.value).upper() in SEVERITIES:
            return str(value.value).upper()
    return "NOTICE"


def _revision(path: Path, entry: dict[str, Any]) -> str:
    called = repr((entry.get("args"), entry.get("kwargs"))).encode()
    return hashlib.blake2b(_read(path) + called, digest_size=6).hexdigest()


# --- files --------------------------------------------------------------------------------------------------------
def _files(folder: Path) -> list[Path]:
    """All that alerts are made of: scripts and their settings, beside them and one folder below."""
    found = [
        path
        for pattern in ("*", "*/*")
        for path in sorted(folder.glob(pattern))
        if path.suffix in (".py", ".conf", ".json", ".hjson") and not path.name.startswith(".")
    ]
    return found[:FILES_MAX]


def _read(path: Path) -> bytes:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise _bad(path, str(error)) from error
    if len(source) > SIZE_BYTES_MAX:
        raise _bad(path, f"it has more than {SIZE_BYTES_MAX} bytes")
    return source


def _syntax_of(path: Path) -> ast.Module:
    try:
        return ast.parse(_read(path), str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error)
        if isinstance(error, SyntaxError):
            reason = f"line {error.lineno}: {error.msg}"
            if any(word in str(error.msg) for word in ("call to 'print'", "multiple exception types")):
                reason += "; it is for Python 2, and has to be written for Python 3 first"
        raise _bad(path, reason) from error


def _bad(path: Path, reason: str) -> LogweirError:
    return LogweirError(RULES_UNREADABLE, path=path, reason=reason)


# --- what is not taken ----------------------------------------------------------------------------------------------
def _require_fit(syntax: ast.Module, path: Path, folder: Path) -> None:
    for line, problem in _problems_of(syntax, folder):
        raise _bad(path, f"line {line}: {problem}")


def _problems_of(syntax: ast.Module, folder: Path) -> Iterator[tuple[int, str]]:
    """By line, what a script asks for that there is not."""
    for node in ast.walk(syntax):
        if _is_of_pyes(node):
            yield getattr(node, "lineno", 0), PYES
    for statement in syntax.body:
        if isinstance(statement, ast.Import):
            for one in statement.names:
                if not _is_there(one.name, folder):
                    yield statement.lineno, wayout_of(one.name)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            yield from _of_import_from(statement, statement.module, folder)


def _is_of_pyes(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(one.name.partition(".")[0] == "pyes" for one in names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] == "pyes"
        case ast.Attribute(attr=name) | ast.FunctionDef(name=name):
            return name in _OLD_NAMES
        case ast.Call(func=ast.Attribute(attr="filtersManual"), args=args, keywords=keywords):
            return len(args) > 1 or any(one.arg in ("must", "should", "must_not") for one in keywords)
    return False


def _of_import_from(statement: ast.ImportFrom, module: str, folder: Path) -> Iterator[tuple[int, str]]:
    if not _is_there(module, folder):
        yield statement.lineno, wayout_of(module)
    elif offered := MODULES.get(module):
        for one in statement.names:
            if one.name not in offered and one.name != "*":
                yield statement.lineno, f"from {module} import {one.name}: there are {', '.join(sorted(offered))}"


def _is_there(module: str, folder: Path) -> bool:
    if module in MODULES:
        return True
    first = module.partition(".")[0]
    if first in MODULES:
        package, _, last = module.rpartition(".")
        return any((one / f"{last}.py").exists() or (one / last).is_dir() for one in folders_of(package, folder))
    if (folder / f"{first}.py").exists() or (folder / first).is_dir() or first in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(first) is not None
    except (ImportError, ValueError):
        return False
