"""lookups: what the operator's own tables say of a host, a user, an address: its owner, its team."""

from __future__ import annotations

from pathlib import Path

from logweir.config import WorkerSettings
from logweir.errors import SETTING_BAD, LogweirError
from logweir.event import FIELD_BY_NAME
from logweir_workers.enrich import Enrich, Event, configured_enrichment
from logweir_workers.enrich._tables import Table, rows_of
from logweir_workers.normalise.fields import Context

FILES_MAX = 100
"""Most tables."""

COLUMNS_MAX = 20
"""Most columns of a table."""

_DETAILS = "details."


@configured_enrichment(
    adds=("details",),
    examples=(({"hostname": "web1"}, {}), ({"details": {"username": "alice"}}, {}), ({}, {})),
)
def lookups(settings: WorkerSettings) -> Enrich:
    """The tables of ``worker.lookups_dir``, in the order of their names."""
    return _Lookups(settings.lookups_dir)


class _Lookups:
    def __init__(self, folder: Path | None) -> None:
        self._tables = [Table("worker.lookups_dir", path, _Lookup.of_file) for path in _files(folder)]

    def __call__(self, event: Event, _context: Context) -> None:
        for table in self._tables:
            lookup = table.content
            holder = event.get("details", {}) if lookup.is_detail else event
            value = holder.get(lookup.key)
            if type(value) is not str or (row := lookup.rows.get(value.casefold())) is None:
                continue
            details = event.setdefault("details", {})
            for name, text in zip(lookup.adds, row, strict=True):
                if text:
                    details.setdefault(name, text)

    def reload(self) -> None:
        """Read the tables again that have changed; a file that is new is read when the worker starts."""
        for table in self._tables:
            table.reload()


class _Lookup:
    """One table: by the value of a field or detail, the details to add."""

    def __init__(self, key: str, adds: list[str], rows: dict[str, list[str]]) -> None:
        self.is_detail = key.startswith(_DETAILS)
        self.key = key.removeprefix(_DETAILS)
        self.adds = adds
        self.rows = rows

    @classmethod
    def of_file(cls, path: Path) -> _Lookup:
        """Raises ValueError, OSError."""
        rows = rows_of(path)
        if not rows:
            raise ValueError("it has no first row with the names of its columns")
        head = rows[0][1]
        key, adds = head[0], [name.removeprefix(_DETAILS) for name in head[1:]]
        if key not in FIELD_BY_NAME and not (key.startswith(_DETAILS) and len(key) > len(_DETAILS)):
            raise ValueError(f"its first column, {key!r}, is neither a field nor a detail (details.username)")
        if not adds or len(head) > COLUMNS_MAX or not all(name and len(name) <= 100 for name in adds):
            raise ValueError(f"it needs 2 to {COLUMNS_MAX} columns, each with a name")
        values: dict[str, list[str]] = {}
        for line, cells in rows[1:]:
            if len(cells) != len(head):
                raise ValueError(f"line {line} has {len(cells)} values, the first row {len(head)}")
            values.setdefault(cells[0].casefold(), cells[1:])
        return cls(key, adds, values)


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".csv")
        reason = f"it has {len(paths)} tables; it may have {FILES_MAX}" if len(paths) > FILES_MAX else None
    except OSError as error:
        paths, reason = [], error.strerror or str(error)
    if reason is not None:
        name, where = "worker.lookups_dir", "The configuration"
        raise LogweirError(SETTING_BAD, where=where, name=name, value=str(folder), reason=reason)
    return paths
