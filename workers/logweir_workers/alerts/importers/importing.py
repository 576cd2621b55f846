"""A folder or ZIP file of other products' rules -> the operator's own rules: what was taken, what was left, and why.

A format that is converted is a module with ``NAME``, ``SUFFIXES``, ``is_of`` and ``convert``; its row in ``CONVERTED``
is all that makes it known.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from logweir.errors import LogweirError
from logweir_workers.alerts.importers import elastalert, sigma, wazuh
from logweir_workers.alerts.importers.conditions import Unfit
from logweir_workers.alerts.importers.report import Imported, Progressed, put
from logweir_workers.alerts.importers.source import Source
from logweir_workers.alerts.importers.written import Converted, MadeRule, is_changed, name_of, written
from logweir_workers.alerts.loading import SIZE_BYTES_MAX, read_rules
from logweir_workers.alerts.sigma import files as sigma_files
from logweir_workers.alerts.sigma.plans import PlanCache


class Format(Protocol):
    """The rules of one product, converted."""

    @property
    def NAME(self) -> str: ...

    @property
    def SUFFIXES(self) -> tuple[str, ...]: ...

    def is_of(self, content: bytes) -> bool:
        """Whether a file with one of its suffixes has its rules."""

    def convert(self, files: Mapping[PurePosixPath, bytes], parents: Sequence[bytes]) -> Iterable[Converted]:
        """What becomes of each file. ``parents``: files whose rules others refer to, and that are not taken."""


CONVERTED: tuple[Format, ...] = (elastalert, wazuh)
FORMATS = ("sigma", *(one.NAME for one in CONVERTED))
SUFFIXES = tuple(dict.fromkeys((*sigma_files.SUFFIXES, *(name for one in CONVERTED for name in one.SUFFIXES))))


def import_rules(
    source: Path,
    to: Path,
    cache: PlanCache,
    *,
    format: str = "",
    parents: Path | None = None,
    tell: Progressed = lambda *_: None,
) -> Imported:
    """Write what can be used to the folder ``to``, each file by what it is, or as one of ``FORMATS``.

    ``parents``: a folder, ZIP file or file of rules that others refer to, and that are not taken themselves. Raises
    LogweirError(RULES_UNREADABLE) where nothing can be read, or written.
    """
    made = Imported(to, tell)
    contents: dict[str, dict[PurePosixPath, bytes]] = {name: {} for name in FORMATS}
    with closing(Source(source, _suffixes_of(format))) as files:
        made.of = len(files.names)
        for name in files.names:
            try:
                content = files.read(name)
                contents[format or _format_of(name, content)][name] = content
            except Unfit as unfit:
                made.left[str(name)] = str(unfit)
                made.progressed()
    sigma.take(contents["sigma"], made, cache)
    for one in CONVERTED:
        if contents[one.NAME]:
            taking = _Taking(made, cache)
            for converted in one.convert(contents[one.NAME], _read_all(parents, one.SUFFIXES)):
                taking.take(converted)
                made.progressed()
            taking.write()
    return made


def _suffixes_of(format: str) -> Sequence[str]:
    by_name = {one.NAME: one.SUFFIXES for one in CONVERTED} | {"sigma": sigma_files.SUFFIXES, "": SUFFIXES}
    return by_name[format]


def _format_of(name: PurePosixPath, content: bytes) -> str:
    found = (one.NAME for one in CONVERTED if name.suffix in one.SUFFIXES and one.is_of(content))
    return next(found, "sigma" if name.suffix in sigma_files.SUFFIXES else "wazuh")


def _read_all(parents: Path | None, suffixes: Sequence[str]) -> list[bytes]:
    """Of what cannot be read, the rules that refer to it say that it is missing."""
    found: list[bytes] = []
    if parents is not None:
        with closing(Source(parents, SUFFIXES)) as files:
            for name in files.names:
                with suppress(Unfit):
                    if name.suffix in suffixes:
                        found.append(files.read(name))
    return found


class _Taking:
    """Writes converted files, and notes what became of each."""

    def __init__(self, made: Imported, cache: PlanCache) -> None:
        self._made = made
        self._cache = cache
        self._names: dict[str, str] = {}
        """By rule, the file that it comes from."""
        self._ready: dict[Path, tuple[Converted, list[MadeRule]]] = {}
        """By the file that is to be written, what goes into it."""

    def take(self, converted: Converted) -> None:
        """Note what cannot be used of a file, and keep the rest for ``write``."""
        file = str(converted.file)
        for rule, reason in converted.left.items():
            self._leave(file, rule, reason)
        self._made.silent += converted.silent
        rules = [rule for rule in converted.rules if self._is_usable(converted, rule)]
        if rules:
            path = self._made.to / f"{converted.name}.py"
            if path in self._ready:
                path = path.with_stem(name_of(converted.name[:20], file))
            self._ready[path] = converted, rules
        elif not any(one == file or one.startswith(f"{file}: ") for one in self._made.left):
            self._made.left[file] = "none of its rules makes an alert of its own"

    def write(self) -> None:
        """Raises LogweirError(RULES_UNREADABLE) where it cannot be written."""
        self._cache.keep()  # First: an alerter that finds the files need not compile their detections.
        for path, (converted, rules) in self._ready.items():
            file, content = str(converted.file), written(converted.heading, rules)
            if len(content) > SIZE_BYTES_MAX:
                reason = f"its rules would make a file of more than {SIZE_BYTES_MAX} bytes: import parts of it"
            elif path.is_file() and is_changed(path):
                reason = f"{path.name} is not as an import has written it: remove it, or name another folder with --to"
            else:
                self._made.taken[file] = put(path, content)
                self._made.written[file] = path.name
                self._made.rules += len(rules)
                self._made.changes |= {rule.name: list(rule.changes) for rule in rules if rule.changes}
                continue
            self._made.left[file] = reason

    def _is_usable(self, converted: Converted, rule: MadeRule) -> bool:
        """Whether the rule can be read as it will be: whatever the engine refuses is left, with its reason."""
        file = str(converted.file)
        other = self._names.get(rule.name)
        if other is not None:
            self._leave(file, rule.source, f"there is another rule that would be called {rule.name}, in {other}")
            return False
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "rule.py")
                path.write_bytes(written(converted.heading, [rule]))
                read_rules(path, self._cache)
        except Unfit as unfit:
            self._leave(file, rule.source, str(unfit))
            return False
        except LogweirError as error:
            self._leave(file, rule.source, str(error.numbers.get("reason", error.detail)))
            return False
        self._names[rule.name] = file
        return True

    def _leave(self, file: str, rule: str, reason: str) -> None:
        self._made.left[f"{file}: {rule}" if rule else file] = reason
