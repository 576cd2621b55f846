"""Parsers and enrichments of the operator's own: what the Python files of a folder define.

They are programs of whoever runs the worker, with all its rights; a file that others may write is not read.
"""

from __future__ import annotations

import importlib.util
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from logweir.errors import PLUGIN_BAD, LogweirError

FILES_MAX = 1000
"""Most files in the folder."""

_PREFIX = "logweir_own_"
_Kind = TypeVar("_Kind")


def load(folder: Path | None, kind: type[_Kind], kinds: tuple[type, ...]) -> tuple[_Kind, ...]:
    """What the files of ``folder`` define of ``kind``, in the order of files and of lines; nothing without a folder.

    Files whose names begin with "_" are for the others to import. Raises LogweirError(PLUGIN_BAD) for a file that
    cannot be run, and for one that defines nothing of ``kinds``.
    """
    found: list[_Kind] = []
    for path in _files(folder) if folder else ():
        defined = [value for value in vars(_module(path)).values() if isinstance(value, kinds)]
        if not defined:
            raise LogweirError(PLUGIN_BAD, path=path, reason="it defines neither a parser nor an enrichment")
        found += [value for value in defined if isinstance(value, kind)]
    return tuple(found)


def _files(folder: Path) -> list[Path]:
    try:
        _check_writers(folder)
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".py" and not path.name.startswith("_"))
    except OSError as error:
        raise LogweirError(PLUGIN_BAD, path=folder, reason=error.strerror or str(error)) from error
    if len(paths) > FILES_MAX:
        raise LogweirError(PLUGIN_BAD, path=folder, reason=f"it has {len(paths)} files; it may have {FILES_MAX}")
    return paths


def _check_writers(path: Path) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        raise LogweirError(PLUGIN_BAD, path=path, reason="everybody may write it; take that right away (chmod o-w)")


def _module(path: Path) -> ModuleType:
    """The module of the file, run once in this process."""
    name = _PREFIX + str(path.absolute())
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(spec)
    # Beside the file, so that it can import its neighbours.
    sys.path.insert(0, str(path.parent))
    try:
        _check_writers(path)
        spec.loader.exec_module(module)
    except LogweirError:
        raise
    except Exception as error:  # whatever the file does
        raise LogweirError(PLUGIN_BAD, path=path, reason=f"{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    sys.modules[name] = module
    return module
