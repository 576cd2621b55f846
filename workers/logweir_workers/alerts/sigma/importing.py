"""A folder or ZIP file of Sigma rules -> the operator's own rules: what was taken, what was left, and why."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from logweir.errors import RULES_UNREADABLE, LogweirError
from logweir.process.files import make_folder
from logweir_workers.alerts.sigma.files import FILES_MAX, SUFFIXES, plans_of
from logweir_workers.alerts.sigma.linking import Linker
from logweir_workers.alerts.sigma.parsing import SIZE_BYTES_MAX, Unfit
from logweir_workers.alerts.sigma.plans import Plan, PlanCache

Progressed = Callable[[int, int], object]
"""Told now and then how many files are read, and of how many."""


@dataclass(slots=True)
class Imported:
    """What became of each file, by its path within the folder or ZIP file."""

    to: Path
    taken: dict[str, str] = field(default_factory=dict)
    """``added``, ``updated`` or ``unchanged``."""
    left: dict[str, str] = field(default_factory=dict)
    """Why."""
    rules: int = 0
    """How many rules there are in what was taken."""
    filters: int = 0
    silent: int = 0
    """How many rules only correlations ask for."""

    def as_json(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self.__slots__}, "to": str(self.to)}


def import_rules(source: Path, to: Path, cache: PlanCache, progressed: Progressed = lambda *_: None) -> Imported:
    """Copy the Sigma files that can be used to the folder ``to``, under their paths.

    A rule that a correlation refers to may be there already. Raises LogweirError(RULES_UNREADABLE) where nothing can be
    read, or written.
    """
    made = Imported(to)
    read: dict[PurePosixPath, tuple[bytes, tuple[str, list[Plan]]]] = {}
    with closing(_Source(source)) as files:
        names = files.names
        for number, name in enumerate(names):
            progressed(number, len(names))
            try:
                content = files.read(name)
                read[name] = content, plans_of(content, cache)
            except Unfit as unfit:
                made.left[str(name)] = str(unfit)
    progressed(len(names), len(names))
    linked = Linker().link({**_known_in(to, cache), **{to / name: plans for name, (_, plans) in read.items()}})
    cache.keep()  # First: an alerter that finds the files need not parse them.
    for name, (content, (_, plans)) in read.items():
        path = to / name
        if path in linked.problems:
            made.left[str(name)] = linked.problems[path]
            continue
        made.rules += len(linked.rules.get(path, ()))
        made.silent += len(linked.silent.get(path, ()))
        made.filters += sum(one["kind"] == "filter" for one in plans)
        made.taken[str(name)] = _write(path, content)
    return made


def _known_in(folder: Path, cache: PlanCache) -> dict[Path, tuple[str, list[Plan]]]:
    """The plans of what is in the folder already, as far as it can be read."""
    known: dict[Path, tuple[str, list[Plan]]] = {}
    if folder.is_dir():
        with closing(_Source(folder)) as files:
            for name in files.names:
                try:
                    known[folder / name] = plans_of(files.read(name), cache)
                except Unfit:
                    continue
    return known


def _write(path: Path, content: bytes) -> str:
    try:
        before = path.read_bytes() if path.is_file() else None
        if before == content:
            return "unchanged"
        make_folder(path.parent)
        # A step of its own for each: an alerter that reads meanwhile must not find half a rule.
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise LogweirError(
            RULES_UNREADABLE, path=path, reason=f"it cannot be written: {error}", advice="See who may write there."
        ) from error
    return "added" if before is None else "updated"


class _Source:
    """The Sigma files of a folder or ZIP file, or one file. Raises LogweirError(RULES_UNREADABLE)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        try:
            if path.is_dir():
                self.names = list(_names_in(path))
            elif path.suffix in SUFFIXES:
                self._path, self.names = path.parent, [PurePosixPath(path.name)]
                path.stat()
            else:
                self._zip = zipfile.ZipFile(path)
                self.names = list(_names_in_zip(self._zip))
        except (OSError, zipfile.BadZipFile) as error:
            reason = f"it is neither a folder nor a ZIP file nor a file of YAML: {error}"
            raise LogweirError(RULES_UNREADABLE, path=path, reason=reason, advice="Name one of these.") from error
        if len(self.names) > FILES_MAX:
            self.close()
            reason = f"it has more than {FILES_MAX} files of YAML"
            raise LogweirError(RULES_UNREADABLE, path=path, reason=reason, advice="Import parts of it.")

    def read(self, name: PurePosixPath) -> bytes:
        """Raises Unfit."""
        try:
            if self._zip is None:
                with (self._path / name).open("rb") as file:
                    return _bounded(file.read(SIZE_BYTES_MAX + 1))
            # No more is unpacked than that, whatever the archive says of its sizes.
            with self._zip.open(str(name)) as packed:
                return _bounded(packed.read(SIZE_BYTES_MAX + 1))
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise Unfit(f"it cannot be read: {error}") from error

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()


def _bounded(content: bytes) -> bytes:
    if len(content) > SIZE_BYTES_MAX:
        raise Unfit(f"it has more than {SIZE_BYTES_MAX} bytes")
    return content


def _names_in(folder: Path) -> Iterator[PurePosixPath]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith((".", "_")))
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith((".", "_")):
                yield PurePosixPath(Path(where, name).relative_to(folder).as_posix())


def _names_in_zip(archive: zipfile.ZipFile) -> Iterator[PurePosixPath]:
    """None that leads out of where it is unpacked to."""
    for one in archive.infolist():
        name = PurePosixPath(one.filename)
        is_within = not name.is_absolute() and ".." not in name.parts and "\\" not in one.filename
        is_hidden = any(part.startswith((".", "_")) for part in name.parts)
        if not one.is_dir() and is_within and not is_hidden and name.suffix in SUFFIXES:
            yield name
