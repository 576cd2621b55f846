"""A run of one alert script: loaded, asked of the stored events, its alerts as ours."""

from __future__ import annotations

import builtins
import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson

from logweir.alerts.rules import bad_rule
from logweir.alerts.schedules import FoundAlert
from logweir.errors import LogweirError
from logweir.query.match import milliseconds_of
from logweir.query.tree import All, And, Node, Not, Range
from logweir_workers.alerts.evidence import frozen
from logweir_workers.alerts.found import one_line
from logweir_workers.alerts.guard import RuleTooSlow
from logweir_workers.alerts.mozdef import tasks
from logweir_workers.alerts.mozdef.modules import EXTRA, installed
from logweir_workers.alerts.mozdef.queries import SearchQuery, searching
from logweir_workers.alerts.mozdef.tasks import Alert, Found, Hits, Plugin, Stored, with_plugins
from logweir_workers.alerts.mozdef.views import at_path, event_of
from logweir_workers.alerts.scheduled.events import StoredEvents
from logweir_workers.normalise.times import iso_of

log = logging.getLogger(__name__)

ALERTS_MAX = 10_000
"""Of one run; the events of more are left for the next."""
SHOWN_MAX = 20
"""Events that an alert's own list has; its evidence is beside it."""
SIZE_BYTES_MAX = 256 * 1024
"""MozDef's part of an alert; of a larger one, its texts and the ids of its events are kept."""
SEVERITIES = {
    "EMERGENCY": "critical",
    "ALERT": "critical",
    "CRITICAL": "critical",
    "ERROR": "high",
    "WARNING": "medium",
    "NOTICE": "low",
    "INFO": "info",
    "DEBUG": "info",
}
"""By MozDef's, what they are here."""


@dataclass(frozen=True, slots=True)
class Script:
    """A class in a file of alerts, and how it is called."""

    rule: str
    path: Path
    class_name: str
    folder: Path
    """Where its settings, plug-ins and other files are."""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[str] | None = None
    """The names of the plug-ins in use; None: all that there are."""
    is_by_hand: bool = False
    """It is asked about a time, whatever was received when."""

    def __call__(self, events: StoredEvents) -> list[FoundAlert]:
        """What it finds. Raises LogweirError: RULE_BAD, naming file and line, and what the store raises."""
        run = _Run(self, events)
        tokens = tasks.asking.set(run), searching.set(run.execute)
        try:
            # What scripts print is no part of a command's output.
            with installed(self.folder), contextlib.redirect_stdout(sys.stderr):
                run.plugins = list(_plugins(self.folder, self.plugins))
                task = self._task()
                task.run(*self.args, **self.kwargs)
            if run.failed is not None:  # a script may catch whatever it likes
                raise run.failed
            if task.error_thrown:
                log.error("%s goes on after an error of its own: %s", self.rule, task.error_thrown)
        except (LogweirError, RuleTooSlow, TimeoutError, KeyboardInterrupt, MemoryError):
            raise
        except _Full:
            log.warning("%s: more than %d alerts; the rest is found in the next run", self.rule, ALERTS_MAX)
        except BaseException as error:  # a script may call sys.exit, too
            raise bad_rule(self.rule, reason_of(error, self.folder)) from error
        finally:
            tasks.asking.reset(tokens[0])
            searching.reset(tokens[1])
        return run.alerts

    def _task(self) -> Any:
        module = _loaded(self.path, f"logweir_mozdef_{self.path.stem}")
        made = getattr(module, self.class_name, None)
        if not isinstance(made, type) or not issubclass(made, tasks.AlertTask):
            raise TypeError(f"{self.path}: {self.class_name} is no AlertTask")
        return made()


class _Full(BaseException):
    """There are ALERTS_MAX alerts."""


class _Run:
    """What a script finds, and what it has found (see ``tasks.Asking``)."""

    def __init__(self, script: Script, events: StoredEvents) -> None:
        self._script = script
        self._events = events
        self._end_us = events.slot.end_us
        self._alerted = set(events.alerted())
        self.folder = script.folder
        self.time = iso_of(self._end_us)
        self.plugins: list[Plugin] = []
        self.alerts: list[FoundAlert] = []
        self.failed: Exception | None = None
        """What the store has said, or that it took too long."""

    def find(self, query: SearchQuery, name: str) -> Iterator[Stored]:
        for one in self._matching(query):
            if self._mark(name, one["_id"]) not in self._alerted:
                yield one

    def execute(self, query: SearchQuery) -> list[dict[str, Any]]:
        return [event_of(one) for one in self._matching(query)]

    def _matching(self, query: SearchQuery) -> Iterator[Stored]:
        try:
            yield from self._stored(query)
        except (LogweirError, TimeoutError) as error:
            self.failed = error
            raise

    def _stored(self, query: SearchQuery) -> Iterator[Stored]:
        """Those that were received in the query's time, and those that happened in it."""
        node = query.superset() or All()
        end_us, begin_us = self._end_us, self._events.since_us
        if begin_us is None:
            begin_us = 0 if query.window_us is None else end_us - query.window_us
        self._events.looked_back_us = max(self._events.looked_back_us, end_us - begin_us)
        low, high = begin_us // 1000, end_us // 1000
        received = self._events.stored(node, begin_us, end_us + 1000)
        elsewhen: Node = And((node, Not(Range("receivedtimestamp", low, high + 1))))
        happened = self._events.stored(elsewhen, begin_us, end_us + 1000, time_field="utctimestamp")
        is_meant = self._is_meant_by_hand if self._script.is_by_hand else self._is_meant
        for one in chain(received, happened):
            if is_meant(one, low, high) and query.matches(one):
                yield one

    def _is_meant(self, stored: Stored, low: int, high: int) -> bool:
        """Whether it belongs to a slot. What is received at its end, or behind it, belongs to a later one."""
        received = milliseconds_of(stored["receivedtimestamp"]) or 0
        happened = milliseconds_of(stored.get("utctimestamp")) or 0
        return received < high and (received >= low or low <= happened <= high)

    def _is_meant_by_hand(self, stored: Stored, low: int, high: int) -> bool:
        """Whether MozDef would have looked at it then; a receipt of MozDef's own, which it brings along, counts."""
        own = at_path(stored, "details.receivedtimestamp")
        received = milliseconds_of(own) or milliseconds_of(stored["receivedtimestamp"]) or 0
        happened = milliseconds_of(stored.get("utctimestamp")) or 0
        return low <= received <= high or low <= happened <= high

    def take(self, alert: Alert, name: str, found: Found) -> None:
        if len(self.alerts) == ALERTS_MAX:
            raise _Full
        if not isinstance(alert, dict) or not {"summary", "severity", "category"} <= alert.keys():
            raise TypeError(f"it returned {alert!r}, where what createAlertDict makes should be")
        if found.ids:  # as in MozDef: an alert about nothing is told as it is
            alert = with_plugins(alert, self.plugins)
        marks = [self._mark(name, one) for one in found.ids]
        self._alerted.update(marks)
        self.alerts.append(_found_alert(alert, found, marks))

    def _mark(self, name: str, id: str) -> str:
        return id if name == self._script.class_name else f"{name}:{id}"


def _found_alert(alert: Alert, found: Found, marks: list[str]) -> FoundAlert:
    events = alert.get("events") or []
    plain = _plain({**alert, "events": [_short(one) for one in events[:SHOWN_MAX]]})
    if len(events) > SHOWN_MAX:
        plain["events_left_out"] = len(events) - SHOWN_MAX
    if len(orjson.dumps(plain)) > SIZE_BYTES_MAX:
        texts = {name: value[:2_000] for name, value in plain.items() if isinstance(value, str)}
        plain = {**texts, "events": [{**one, "documentsource": None} for one in plain["events"]], "is_cut": True}
    summary = one_line(str(plain["summary"]))
    tags = alert.get("tags") or ()
    return FoundAlert(
        summary,
        {"summary": summary},
        len(found.ids),
        found.events,
        SEVERITIES.get(str(plain["severity"]).upper()),
        tags=[str(one) for one in ([tags] if isinstance(tags, str) else tags)],
        category=str(plain["category"]),
        more={"mozdef": plain},
        marks=marks,
    )


def _short(event: Mapping[str, Any]) -> dict[str, Any]:
    """One of an alert's events, as long as alerts keep them."""
    source = event.get("documentsource")
    kept = frozen("", "", source)["event"] if isinstance(source, dict) else source
    return {**event, "documentsource": kept}


def _plain(alert: Alert) -> dict[str, Any]:
    """The alert as JSON has it: scripts and plug-ins put whatever they like into it."""

    def other(value: object) -> object:
        return list(value) if isinstance(value, set | Hits) else str(value)

    text = json.dumps(alert, default=other, ensure_ascii=False)
    made: dict[str, Any] = json.loads(text.encode("utf-8", "replace"))
    return made


# --- files --------------------------------------------------------------------------------------------------------
def _loaded(path: Path, name: str) -> ModuleType:
    """The file, run. A relative file that it opens is looked for beside it, too."""
    module = ModuleType(name)
    module.__file__ = str(path)

    def opened(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, str) and not Path(file).is_absolute() and not Path(file).exists():
            file = path.parent / file
        return builtins.open(file, *args, **kwargs)  # noqa: PTH123

    module.__dict__["open"] = opened
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102 - the operator's own code
    finally:
        sys.modules.pop(name, None)
    return module


def _plugins(folder: Path, names: Sequence[str] | None) -> Iterator[Plugin]:
    """The alert plug-ins in use, those of the lowest priority first."""
    found: list[Plugin] = []
    files = sorted((folder / "plugins").glob("*.py"))
    for path in files:
        if path.name.startswith("_") or (names is not None and path.stem not in names):
            continue
        try:
            made = getattr(_loaded(path, f"logweir_mozdef_plugin_{path.stem}"), "message", None)
            if made is None:
                continue
            plugin = made()
            wanted = plugin.registration
            words = [str(one).lower() for one in ([wanted] if isinstance(wanted, str) else wanted)]
            found.append((path.stem, words, float(getattr(plugin, "priority", 100)), plugin.onMessage))
        except RuleTooSlow:
            raise
        except Exception as error:  # noqa: BLE001 - alerts go on without it
            _say_once(f"The alert plug-in {path} is not used: {reason_of(error, folder)}")
    yield from sorted(found, key=lambda plugin: plugin[2])


def _say_once(text: str) -> None:
    """In the log of a process that runs it each minute."""
    if text not in _said and len(_said) < _SAID_MAX:
        _said.add(text)
        log.error("%s", text)


_said: set[str] = set()
_SAID_MAX = 1_000


def reason_of(error: BaseException, folder: Path) -> str:
    """What went wrong, with the file and line of the script's where it did."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if Path(file).is_relative_to(folder):
            place = f"{Path(file).relative_to(folder)}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(folder):
        return f"{Path(error.filename).name}, line {error.lineno}: {error.msg}"
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing:
        return f"{place}{wayout_of(missing)}"
    if isinstance(error, ValueError | NotImplementedError) and "_workers" in _innermost(error):
        return f"{place}{error}"  # It is a sentence of ours.
    return f"{place}{type(error).__name__}: {error}"


def _innermost(error: BaseException) -> str:
    trace, file = error.__traceback__, ""
    while trace is not None:
        file, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return file


PYES = (
    "this alert is of MozDef's first generation (pyes): write its query as search_query = SearchQuery(minutes=…);"
    " search_query.add_must([TermMatch(…)]); self.filtersManual(search_query), and call searchEventsSimple, or"
    " searchEventsAggregated with walkAggregations and onAggregation, instead of searchEventsAggreg, walkAggregs and"
    " onAggreg"
)


def wayout_of(module: str) -> str:
    """What to do about a module that is not there."""
    first = module.partition(".")[0]
    if first == "pyes":
        return PYES
    if first in EXTRA:
        return f"import {module}: it is not installed; pip install 'logweir[mozdef]'"
    if first == "mozdef_util":
        return (
            f"import {module}: of MozDef's own modules there are mozdef_util.query_models and utilities.toUTC, logger"
            " and dot_dict; ask for events by a SearchQuery, and take the import out"
        )
    return f"import {module}: there is no such module; install it beside logweir, or take the import out"
