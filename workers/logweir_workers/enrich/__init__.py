"""What a worker adds to a normalised event: one enrichment a file, each with examples that are its tests.

README.md says how to add one. They run in the order of ``_MODULES``, so a later one sees what an earlier one added.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import orjson

from logweir.config import WorkerSettings
from logweir.event import FIELD_BY_NAME
from logweir_workers import parsers, plugins, redaction
from logweir_workers.normalise.fields import Context, details_of

_MODULES = ("hostname", "category", "address", "country", "useragent", "lookups")
"""The files of this folder, in the order in which they run."""

Event = dict[str, Any]
Enrich = Callable[[Event, Context], None]
Example = tuple[Mapping[str, Any], Mapping[str, Any]]
"""An event, and the fields that the enrichment adds to it or changes (with built-in settings)."""


@dataclass(frozen=True, slots=True)
class Enrichment:
    """One file's enrichment. ``prepare`` gives the function to run, made once from the settings.

    ``adds``: the only fields that it may add or change. ``package``: the module that it does nothing without, of a
    package that is not installed everywhere.
    """

    name: str
    adds: tuple[str, ...]
    examples: tuple[Example, ...]
    prepare: Callable[[WorkerSettings], Enrich]
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its package is there, or it needs none."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


def enrichment(*, adds: tuple[str, ...], examples: tuple[Example, ...]) -> Callable[[Enrich], Enrichment]:
    """Make an Enrichment of a function ``(event, context) -> None`` that changes ``event`` in place.

    The function must not raise, wait, or look at the clock: a record indexed again must give the same document.
    """

    def decorate(function: Enrich) -> Enrichment:
        return Enrichment(function.__name__, adds, examples, lambda _settings: function)

    return decorate


def configured_enrichment(
    *, adds: tuple[str, ...], examples: tuple[Example, ...], package: str | None = None
) -> Callable[[Callable[[WorkerSettings], Enrich]], Enrichment]:
    """As ``enrichment``, for a function ``(settings) -> function`` that reads its settings once, at the start."""

    def decorate(prepare: Callable[[WorkerSettings], Enrich]) -> Enrichment:
        return Enrichment(prepare.__name__, adds, examples, prepare, package)

    return decorate


@dataclass(frozen=True, slots=True)
class Enricher:
    """All that is done to a normalised event, ready to run: the parsers, the enrichments, redaction."""

    steps: tuple[Enrich, ...]

    def __call__(self, event: Event, context: Context) -> None:
        """Enrich ``event`` in place."""
        for step in self.steps:
            step(event, context)

    def reload(self) -> None:
        """Read the operator's tables again that have changed."""
        for step in self.steps:
            if isinstance(step, Reloadable):
                step.reload()


@runtime_checkable
class Reloadable(Protocol):
    """A step with a table that may change while the worker runs."""

    def reload(self) -> None: ...


def enrichments() -> tuple[Enrichment, ...]:
    """All of them, in the order in which they run."""
    modules = (importlib.import_module(f"{__name__}.{name}") for name in _MODULES)
    return tuple(getattr(module, name) for name, module in zip(_MODULES, modules, strict=True))


def load(settings: WorkerSettings) -> Enricher:
    """Parsers and enrichments as ``settings`` want them.

    Raises LogweirError: SETTING_BAD for a bad file of rules, PLUGIN_BAD for a bad file of ``worker.enrich_dir``.
    """
    steps = [each.prepare(settings) for each in (*enrichments(), *own_enrichments(settings))]
    redact = redaction.load(settings)
    # Last: what parsers decode, and what the operator's own code adds, is looked at, too.
    return Enricher((load_parsers(settings), *steps, *([redact] if redact else [])))


def load_parsers(settings: WorkerSettings) -> parsers.Parsers:
    """The parsers: the operator's own are asked first. Raises LogweirError(PLUGIN_BAD)."""
    return parsers.Parsers((*own_parsers(settings), *parsers.built_in()))


def own_parsers(settings: WorkerSettings) -> tuple[parsers.Parser, ...]:
    """The parsers in ``worker.enrich_dir``, by file and name. Raises LogweirError(PLUGIN_BAD)."""
    return tuple(parsers.checked(parser) for parser in plugins.load(settings.enrich_dir, parsers.Parser, KINDS))


def own_enrichments(settings: WorkerSettings) -> tuple[Enrichment, ...]:
    """The enrichments in ``worker.enrich_dir``, by file and name. Raises LogweirError(PLUGIN_BAD)."""
    return tuple(_checked(each) for each in plugins.load(settings.enrich_dir, Enrichment, KINDS))


KINDS = (parsers.Parser, Enrichment)
"""What a file of ``worker.enrich_dir`` may have."""


def _checked(enrichment: Enrichment) -> Enrichment:
    """The enrichment with a look at what it leaves: an event that no store takes is a dead letter, with its name."""

    def prepare(settings: WorkerSettings) -> Enrich:
        enrich = enrichment.prepare(settings)

        def run(event: Event, context: Context) -> None:
            enrich(event, context)
            for name, value in event.items():
                if name not in FIELD_BY_NAME or type(value) is not _TYPES.get(name, str):
                    raise TypeError(f"{enrichment.name} left {name} of the event as {value!r}")
            if "details" in event:
                event["details"] = details_of(orjson.loads(orjson.dumps(event["details"])))

        return run

    return replace(enrichment, prepare=prepare)


_TYPES = {"tags": list, "details": dict}
