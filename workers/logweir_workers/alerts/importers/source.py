"""A folder, a ZIP file or one file to import from: its files, each read up to a limit, none from elsewhere."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from logweir.errors import RULES_UNREADABLE, LogweirError
from logweir_workers.alerts.importers.conditions import Unfit

FILES_MAX = 20_000
SIZE_BYTES_MAX = 1024 * 1024


class Source:
    """The files of a folder or ZIP file that end in one of ``suffixes``, or one file.

    Names that begin with ``.`` or ``_`` are passed over. Raises LogweirError(RULES_UNREADABLE).
    """

    def __init__(self, path: Path, suffixes: Sequence[str]) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        kinds = " or ".join(sorted({{"yaml": "yml"}.get(one[1:], one[1:]).upper() for one in suffixes}))
        kinds = kinds.replace("YML", "YAML")
        try:
            if path.is_dir():
                self.names = list(_names_in(path, tuple(suffixes)))
            elif path.suffix in suffixes:
                self._path, self.names = path.parent, [PurePosixPath(path.name)]
                path.stat()
            else:
                self._zip = zipfile.ZipFile(path)
                self.names = list(_names_in_zip(self._zip, suffixes))
        except (OSError, zipfile.BadZipFile) as error:
            reason = f"it is neither a folder nor a ZIP file nor a file of {kinds}: {error}"
            raise LogweirError(RULES_UNREADABLE, path=path, reason=reason, advice="Name one of these.") from error
        if len(self.names) > FILES_MAX:
            self.close()
            reason = f"it has more than {FILES_MAX} files of {kinds}"
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


def _names_in(folder: Path, suffixes: tuple[str, ...]) -> Iterator[PurePosixPath]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith((".", "_")))
        for name in sorted(names):
            if name.endswith(suffixes) and not name.startswith((".", "_")):
                yield PurePosixPath(Path(where, name).relative_to(folder).as_posix())


def _names_in_zip(archive: zipfile.ZipFile, suffixes: Sequence[str]) -> Iterator[PurePosixPath]:
    """None that leads out of where it is unpacked to."""
    for one in archive.infolist():
        name = PurePosixPath(one.filename)
        is_within = not name.is_absolute() and ".." not in name.parts and "\\" not in one.filename
        is_hidden = any(part.startswith((".", "_")) for part in name.parts)
        if not one.is_dir() and is_within and not is_hidden and name.suffix in suffixes:
            yield name
