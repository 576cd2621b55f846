"""address: of which version and scope the addresses of an event are, and at which of the operator's sites."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path

from logweir.config import WorkerSettings
from logweir_workers.enrich import Enrich, Event, configured_enrichment
from logweir_workers.enrich._tables import Networks, Table, rows_of
from logweir_workers.normalise.details import ADDRESS_LENGTH_MAX
from logweir_workers.normalise.fields import Context

SCOPES = {
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link_local": ("169.254.0.0/16", "fe80::/10"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": (
        "0.0.0.0/8",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "::/128",
        "100::/64",
        "2001:db8::/32",
    ),
}
"""From IANA's registries of special-purpose addresses; all others are public."""

_SIDES = (("sourceipaddress", "sourceip", "sourcesite"), ("destinationipaddress", "destinationip", "destinationsite"))


@configured_enrichment(
    adds=("details",),
    examples=(
        (
            {"details": {"sourceipaddress": "10.1.2.3"}},
            {"details": {"sourceipaddress": "10.1.2.3", "sourceipversion": 4, "sourceipscope": "private"}},
        ),
        (
            {"details": {"sourceipaddress": "2a00::7", "destinationipaddress": "127.0.0.1"}},
            {
                "details": {
                    "sourceipaddress": "2a00::7",
                    "destinationipaddress": "127.0.0.1",
                    "sourceipversion": 6,
                    "sourceipscope": "public",
                    "destinationipversion": 4,
                    "destinationipscope": "loopback",
                }
            },
        ),
        (
            {"details": {"sourceipaddress": "192.0.2.7", "sourceipscope": "ours"}},
            {"details": {"sourceipaddress": "192.0.2.7", "sourceipscope": "ours", "sourceipversion": 4}},
        ),
        ({"details": {"sourceipaddress": "a host"}}, {}),
        ({"details": {"sourceipaddress": ["10.1.2.3"]}}, {}),
        ({"summary": "10.1.2.3"}, {}),
    ),
)
def address(settings: WorkerSettings) -> Enrich:
    """For source and destination; the site is that of its smallest network in ``worker.networks_file``."""
    return _Addresses(settings.networks_file)


class _Addresses:
    def __init__(self, path: Path | None) -> None:
        self._sites = None if path is None else Table("worker.networks_file", path, _sites_of)
        self._about = lru_cache(maxsize=16_384)(self._look_up)

    def __call__(self, event: Event, _context: Context) -> None:
        details = event.get("details")
        if details is None:
            return
        for side, prefix, site_name in _SIDES:
            text = details.get(side)
            if type(text) is not str or len(text) > ADDRESS_LENGTH_MAX or (about := self._about(text)) is None:
                continue
            version, scope, site = about
            details.setdefault(f"{prefix}version", version)
            details.setdefault(f"{prefix}scope", scope)
            if site is not None:
                details.setdefault(site_name, site)

    def reload(self) -> None:
        """Read the networks again if their file has changed."""
        if self._sites is not None and self._sites.reload():
            self._about.cache_clear()

    def _look_up(self, text: str) -> tuple[int, str, str | None] | None:
        try:
            parsed = ipaddress.ip_address(text)
        except ValueError:
            return None
        site = None if self._sites is None else self._sites.content.find(parsed)
        return parsed.version, _scopes.find(parsed) or "public", site


def _sites_of(path: Path) -> Networks:
    sites = Networks()
    for line, cells in rows_of(path):
        if len(cells) != 2 or not cells[1]:
            raise ValueError(f"line {line} is not a network and the name of its site: {','.join(cells)[:80]!r}")
        try:
            sites.add(*cells)
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from error
    return sites


_scopes = Networks()
for _scope, _networks in SCOPES.items():
    for _network in _networks:
        _scopes.add(_network, _scope)
