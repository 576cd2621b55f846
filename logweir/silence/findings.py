"""Those who fell silent together are one finding: behind one network, one door or one key, or on one host."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from logweir.config import SilenceSettings
from logweir.ledger.expectations import EMITTER, SOURCE
from logweir.silence.watched import Watched


@dataclass(frozen=True, slots=True)
class Finding:
    """``members`` of one ``kind`` (network, door, key, hostname) and name are silent since ``since_us``.

    ``of``: emitter or source. A single one is of the kind ``emitter`` or ``source``, and has its own name.
    """

    of: str
    kind: str
    name: str
    since_us: int
    members: tuple[Watched, ...]

    def as_json(self) -> dict[str, Any]:
        members = [one.name for one in self.members]
        return {"of": self.of, "kind": self.kind, "name": self.name, "since_us": self.since_us, "members": members}


def findings_of(watched: Sequence[Watched], settings: SilenceSettings) -> Iterator[Finding]:
    """The silent among them (emitters, or sources), each in one finding: the larger groups first, then single ones."""
    silent = {one.subject: one for one in watched if one.state == "silent"}
    if not silent:
        return
    together = [
        (kind, name, cluster)
        for kind, named in _KINDS[next(iter(silent))[0]].items()
        for name, members in _groups(watched, named)
        if (cluster := _together(members, settings.together_min))
    ]
    # The sort is stable: of equal size the kind that stands first is the better explanation.
    for kind, name, cluster in sorted(together, key=lambda found: -len(found[2])):
        left = [one for one in cluster if one.subject in silent]
        if len(left) >= settings.together_min:
            yield _finding(kind, name, left)
            for one in left:
                del silent[one.subject]
    for one in sorted(silent.values(), key=lambda one: one.last.received_us):
        yield _finding(one.subject[0], one.name, [one])


def _finding(kind: str, name: str, members: Sequence[Watched]) -> Finding:
    since_us = max(one.last.received_us for one in members)
    return Finding(members[0].subject[0], kind, name, since_us, tuple(members))


def _groups(watched: Iterable[Watched], named: Callable[[Watched], str]) -> Iterator[tuple[str, list[Watched]]]:
    groups: dict[str, list[Watched]] = defaultdict(list)
    for one in watched:
        if one.state in ("ok", "silent") and (name := named(one)):
            groups[name].append(one)
    yield from groups.items()


def _together(members: Sequence[Watched], least: int) -> list[Watched]:
    """The most of them that one moment explains: last heard of before it, and due since. None unless they are most.

    Who has been silent for longer is no witness against that; who speaks, is.
    """
    silent = [one for one in members if one.state == "silent"]
    if len(silent) < least:
        return []
    spans = [(one.last.received_us, _due_us(one), one) for one in silent]
    edges = sorted([(begin, 0, 1) for begin, _, _ in spans] + [(end, 1, -1) for _, end, _ in spans])
    most, open_now, moment = 0, 0, 0
    for at_us, _, step in edges:
        open_now += step
        if open_now > most:
            most, moment = open_now, at_us
    speaking = len(members) - len(silent)
    if most < least or most <= speaking:
        return []
    return [one for begin, end, one in spans if begin <= moment <= end]


def _due_us(one: Watched) -> int:
    """When it would have been late, had it stopped by itself."""
    return one.last.received_us + int((one.late_after_s + one.unobserved_s) * 1e6)


@lru_cache(maxsize=10_000)
def network_of(address: str) -> str:
    """The /24 of an IPv4 address, the /64 of an IPv6 address; empty for anything else."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    length = 24 if parsed.version == 4 else 64
    return str(ipaddress.ip_network((parsed, length), strict=False))


_PLACES: dict[str, Callable[[Watched], str]] = {
    "network": lambda one: network_of(one.last.source_address),
    "door": lambda one: one.last.door,
    "key": lambda one: one.last.key,
}
_KINDS: dict[str, dict[str, Callable[[Watched], str]]] = {
    EMITTER: _PLACES,
    SOURCE: {"hostname": lambda one: one.subject[2] or "", **_PLACES},
}
