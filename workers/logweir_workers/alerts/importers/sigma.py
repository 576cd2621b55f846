"""Sigma rules are taken as they are: the files that can be used are copied, under their paths."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath

from logweir_workers.alerts.importers.conditions import Unfit
from logweir_workers.alerts.importers.report import Imported, put
from logweir_workers.alerts.importers.source import Source
from logweir_workers.alerts.sigma import parsing
from logweir_workers.alerts.sigma.files import SUFFIXES, plans_of
from logweir_workers.alerts.sigma.linking import Linker
from logweir_workers.alerts.sigma.plans import Plan, PlanCache


def take(contents: Mapping[PurePosixPath, bytes], made: Imported, cache: PlanCache) -> None:
    """Write those that can be used below ``made.to``, and say what became of each.

    A rule that a correlation refers to may be there already. Raises LogweirError(RULES_UNREADABLE).
    """
    read: dict[PurePosixPath, tuple[bytes, tuple[str, list[Plan]]]] = {}
    for name, content in contents.items():
        made.progressed()
        try:
            read[name] = content, plans_of(content, cache)
        except parsing.Unfit as unfit:
            made.left[str(name)] = str(unfit)
    linked = Linker().link(
        {**_known_in(made.to, cache), **{made.to / name: plans for name, (_, plans) in read.items()}}
    )
    cache.keep()  # First: an alerter that finds the files need not parse them.
    for name, (content, (_, plans)) in read.items():
        path = made.to / name
        if path in linked.problems:
            made.left[str(name)] = linked.problems[path]
            continue
        made.rules += len(linked.rules.get(path, ()))
        made.silent += len(linked.silent.get(path, ()))
        made.filters += sum(one["kind"] == "filter" for one in plans)
        made.taken[str(name)] = put(path, content)


def _known_in(folder: Path, cache: PlanCache) -> dict[Path, tuple[str, list[Plan]]]:
    """The plans of what is in the folder already, as far as it can be read."""
    known: dict[Path, tuple[str, list[Plan]]] = {}
    if folder.is_dir():
        with closing(Source(folder, SUFFIXES)) as files:
            for name in files.names:
                try:
                    known[folder / name] = plans_of(files.read(name), cache)
                except (Unfit, parsing.Unfit):
                    continue
    return known
