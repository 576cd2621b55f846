"""country: the country of a public source address, by a MaxMind file of the operator's or by the registries' lists."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from logweir.config import WorkerSettings
from logweir.errors import SETTING_NEEDS_EXTRA, LogweirError
from logweir_workers.enrich import Enrich, Event, configured_enrichment
from logweir_workers.enrich._tables import Table
from logweir_workers.normalise.details import ADDRESS_LENGTH_MAX
from logweir_workers.normalise.fields import Context

Look = Callable[[str], str | None]


_PACKAGE = "iptocc"


@configured_enrichment(
    package=_PACKAGE,
    adds=("details",),
    examples=(
        # Addresses of registries, in their own countries for good.
        (
            {"details": {"sourceipaddress": "193.0.6.139", "sourceipscope": "public"}},
            {"details": {"sourceipaddress": "193.0.6.139", "sourceipscope": "public", "country": "NL"}},
        ),
        ({"details": {"sourceipaddress": "193.0.6.139", "sourceipscope": "public", "country": "XX"}}, {}),
        ({"details": {"sourceipaddress": "10.1.2.3", "sourceipscope": "private"}}, {}),
        ({"details": {"sourceipaddress": "193.0.6.139"}}, {}),
        ({}, {}),
    ),
)
def country(settings: WorkerSettings) -> Enrich:
    """As two letters. Without a file and without the package iptocc (``logweir[geo]``), events stay without."""
    if settings.geoip_file is not None:
        return _Countries(settings.geoip_file)
    if importlib.util.find_spec(_PACKAGE) is None:
        return _nothing
    from iptocc import country_code

    return _Countries(country_code)


def _nothing(_event: Event, _context: Context) -> None:
    """The registries' lists are not installed."""


class _Countries:
    def __init__(self, source: Path | Look) -> None:
        self._file: Table[Look] | None = None
        if isinstance(source, Path):
            self._file = Table("worker.geoip_file", source, _reader_of)
            source = self._file.content
        self._look = lru_cache(maxsize=16_384)(source)

    def __call__(self, event: Event, _context: Context) -> None:
        details = event.get("details")
        # The enrichment "address" has said which are public.
        if details is None or details.get("sourceipscope") != "public" or "country" in details:
            return
        address = details.get("sourceipaddress")
        if type(address) is not str or len(address) > ADDRESS_LENGTH_MAX:
            return
        if (code := self._look(address)) is not None:
            details["country"] = code

    def reload(self) -> None:
        """Read the file again if it has changed."""
        if self._file is not None and self._file.reload():
            self._look = lru_cache(maxsize=16_384)(self._file.content)


def _reader_of(path: Path) -> Look:
    try:
        import maxminddb
    except ModuleNotFoundError as error:
        raise LogweirError(SETTING_NEEDS_EXTRA, name="worker.geoip_file", module="maxminddb", extra="geo") from error
    try:
        reader: Any = maxminddb.open_database(path, maxminddb.MODE_MEMORY)
    except maxminddb.InvalidDatabaseError as error:
        raise ValueError(str(error)) from error

    def look(address: str) -> str | None:
        try:
            found = reader.get(address)
        except ValueError:
            return None
        place = found.get("country") or found.get("registered_country") if type(found) is dict else None
        code = place.get("iso_code") if type(place) is dict else None
        return code if type(code) is str else None

    return look
