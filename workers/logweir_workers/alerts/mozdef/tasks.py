"""``AlertTask`` and ``DeadmanAlertTask``: what MozDef's alert scripts are classes of.

A script says in ``main`` which events it wants, and in ``onEvent``, ``onAggregation`` or ``onNoEvent`` what alert they
make. The names are MozDef's.
"""

from __future__ import annotations

import configparser
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from logweir_workers.alerts.mozdef.queries import SearchQuery
from logweir_workers.alerts.mozdef.views import at_path, event_of, value_of

log = logging.getLogger("logweir.mozdef")

Alert = dict[str, Any]
Stored = Mapping[str, Any]


class Asking(Protocol):
    """A run of a script, as its task sees it."""

    folder: Path
    """Where its files of settings are."""
    time: str
    """When it is, as ISO 8601."""

    def find(self, query: SearchQuery, name: str) -> Iterator[Stored]:
        """The stored events that match, the newest first; without those that an alert of that name has already."""

    def take(self, alert: Alert, name: str, found: Found) -> None:
        """Take an alert of that name."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an alert was made of."""

    events: list[Stored]
    """As many of them as are held in memory."""
    ids: list[str]
    """Of all of them."""


class Hits(Sequence[dict[str, Any]]):
    """Stored events as scripts know them, each made when it is looked at."""

    def __init__(self, stored: Sequence[Stored]) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, at: Any) -> Any:
        return [event_of(one) for one in self.stored[at]] if isinstance(at, slice) else event_of(self.stored[at])


asking: ContextVar[Asking] = ContextVar("asking")
EVENTS_MAX = 100_000
"""Events of one search that are held in memory; of an aggregation, all are counted."""


class Name(str):
    """An alert's name, for scripts that write ``self.classname`` and for those that write ``self.classname()``."""

    __slots__ = ()

    def __call__(self) -> str:
        return str(self)


class Options:
    """A script's settings: ``self.config.NAME``, each a text."""


class AlertTask:
    """What an alert is a class of."""

    custom_alert_name: str | None = None
    deadman = False
    error_thrown: BaseException | None = None
    event_indices: Sequence[str] = ("events", "events-previous")
    es: Any = None
    log = log
    main_query: SearchQuery | None = None
    config: Any = None

    events: Sequence[dict[str, Any]] = ()
    """What searchEventsSimple has found."""
    aggregations: Sequence[dict[str, Any]] = ()
    """What searchEventsAggregated has found, the most frequent value first."""
    _counted: Mapping[Any, Found] = {}

    # --- what scripts define ------------------------------------------------------------------------------------------
    def main(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no main")

    def run(self, *args: Any, **kwargs: Any) -> None:
        self.main(*args, **kwargs)

    def onEvent(self, event: dict[str, Any], *args: Any, **kwargs: Any) -> Alert | None:
        if self.deadman:
            return None
        raise NotImplementedError(f"{type(self).__name__} calls walkEvents, and has no onEvent")

    def onNoEvent(self, *args: Any, **kwargs: Any) -> Alert | None:
        return None

    def onAggregation(self, aggregation: dict[str, Any]) -> Alert | None:
        raise NotImplementedError(f"{type(self).__name__} calls walkAggregations, and has no onAggregation")

    # --- searches -----------------------------------------------------------------------------------------------------
    @property
    def classname(self) -> Name:
        """The alert's name: its class's, or ``custom_alert_name``."""
        return Name(self.custom_alert_name or type(self).__name__)

    def filtersManual(self, query: SearchQuery) -> None:
        """Search by this query."""
        if not isinstance(query, SearchQuery):
            raise TypeError(f"filtersManual takes a SearchQuery, and not {query!r}")
        self.main_query = query

    def filtersFromKibanaDash(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(
            "filtersFromKibanaDash: dashboards of Kibana are not read; write the query: filtersManual(SearchQuery(…))"
        )

    def searchEventsSimple(self) -> None:
        """Look for the events, for ``walkEvents``."""
        stored: list[Stored] = []
        for one in self._found():
            if len(stored) == EVENTS_MAX:
                log.warning("%s: more than %d events match; the newest are walked now", self.classname, EVENTS_MAX)
                break
            stored.append(one)
        self.events = Hits(stored)

    def searchEventsAggregated(self, aggregationPath: str, samplesLimit: int = 5) -> None:
        """Look for the events and count them by a field's values, for ``walkAggregations``."""
        counts: Counter[Any] = Counter()
        counted: dict[Any, Found] = {}
        room = EVENTS_MAX
        for one in self._found():
            for value in dict.fromkeys(value_of(one, aggregationPath)):
                counts[value] += 1
                found = counted.setdefault(value, Found([], []))
                found.ids.append(one["_id"])
                if room > 0 or len(found.events) < samplesLimit:
                    room -= 1
                    found.events.append(one)
        self._counted = counted
        self.aggregations = [
            {
                "value": value,
                "count": count,
                "config": None,
                "events": Hits(counted[value].events)[:samplesLimit],
                "allevents": Hits(counted[value].events),
            }
            for value, count in counts.most_common()
        ]

    def _found(self) -> Iterator[Stored]:
        if self.main_query is None:
            raise ValueError("there is nothing to search for yet: call filtersManual(…) before")
        return asking.get().find(self.main_query, self.classname())

    # --- alerts -------------------------------------------------------------------------------------------------------
    def walkEvents(self, **kwargs: Any) -> None:
        """Call onEvent with each event that was found, or onNoEvent where there was none."""
        if not self.events:
            self._take(self.onNoEvent(**kwargs), Found([], []))
        for at, event in enumerate(self.events):
            stored = self.events.stored[at] if isinstance(self.events, Hits) else {**event, **event["_source"]}
            self._take(self.onEvent(event, **kwargs), Found([stored], [stored["_id"]]))

    def walkAggregations(self, threshold: float, config: Any = None) -> None:
        """Call onAggregation with each value that has so many events, or more."""
        for one in self.aggregations:
            if one["count"] >= threshold:
                one["config"] = config
                self._take(self.onAggregation(one), self._counted[one["value"]])

    def _take(self, alert: Alert | None, found: Found) -> None:
        if alert:
            asking.get().take(alert, self.classname(), found)

    def createAlertDict(
        self,
        summary: str,
        category: str,
        tags: Iterable[str],
        events: Iterable[Mapping[str, Any]],
        severity: str = "NOTICE",
        url: str | None = None,
        channel: str | None = None,
        notify_mozdefbot: bool | None = None,
        ircchannel: str | None = None,
    ) -> Alert:
        """The alert, for onEvent and the others to return."""
        alert: Alert = {
            "utctimestamp": asking.get().time,
            "severity": severity,
            "summary": summary,
            "category": category,
            "tags": list(tags),
            "events": [
                {
                    "documentindex": one.get("_index"),
                    "documentid": one.get("_id"),
                    "documentsource": one.get("_source"),
                }
                for one in events
            ],
            "channel": channel or ircchannel,
            # What is merely informative goes into no chat.
            "notify_mozdefbot": severity != "INFO" if notify_mozdefbot is None else notify_mozdefbot,
            "status": "manual",
            "classname": self.classname(),
        }
        if url:
            alert["url"] = url
        return alert

    # --- settings -----------------------------------------------------------------------------------------------------
    def parse_config(self, config_filename: str, config_keys: Iterable[str]) -> None:
        """Have ``self.config`` say what the file has under [options]; an environment variable OPTIONS_<KEY> wins."""
        path = asking.get().folder / config_filename
        read = configparser.RawConfigParser(strict=False)
        try:
            read.read_string(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"its settings cannot be read: {error}; write {path}") from error
        except configparser.Error as error:
            raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        self.config = Options()
        for key in config_keys:
            value = os.environ.get(f"OPTIONS_{key.upper()}")
            if value is None and read.has_option("options", key):
                value = read.get("options", key)
            if value is None:
                raise ValueError(f"{path} has no {key} under [options]: add a line {key} = … there")
            setattr(self.config, key, value.strip())

    def parse_json_alert_config(self, config_file: str) -> Any:
        """What is in the JSON file."""
        path = asking.get().folder / config_file
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"its settings cannot be read: {error}; write {path}") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error

    def mostCommon(self, listofdicts: Iterable[Any], dictkeypath: str) -> list[tuple[Any, int]]:
        """The values at the path, each with how many have it, the most frequent first."""
        found = (at_path(one, dictkeypath) for one in listofdicts)
        return Counter(one for one in found if one is not None).most_common()


class DeadmanAlertTask(AlertTask):
    """An alert for what is missing: onNoEvent is called when the search finds nothing."""

    deadman = True


Plugin = tuple[str, Sequence[str], float, Callable[[Alert], Any]]
"""Of an alert plug-in: its name, what it is registered for, its priority, and its onMessage."""


def with_plugins(alert: Alert, plugins: Iterable[Plugin]) -> Alert:
    """The alert after each plug-in that is registered for a key or a value that it has."""
    for name, registration, _, on_message in plugins:
        if "*" not in registration and _words(alert).isdisjoint(registration):
            continue
        try:
            changed = on_message(alert)
        except Exception as error:  # noqa: BLE001 - as in MozDef, the alert goes on without it
            log.error("The alert plug-in %s failed: %s: %s", name, type(error).__name__, error)
            continue
        if isinstance(changed, dict):
            alert = changed
    return alert


def _words(value: Any) -> set[str]:
    """Every key and every text in it, in lower case."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            found.update(str(name).lower() for name in one)
            waiting += one.values()
        elif isinstance(one, list | tuple | set):
            waiting += one
        elif isinstance(one, str):
            found.add(one.lower())
    return found
