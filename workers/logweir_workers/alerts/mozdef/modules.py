"""The modules that MozDef's scripts import, there only while a script runs."""

from __future__ import annotations

import configparser
import optparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from logweir.clock import now_us
from logweir_workers.alerts.mozdef import queries, tasks
from logweir_workers.alerts.mozdef.query_strings import QueryStringMatch
from logweir_workers.alerts.mozdef.views import DotDict
from logweir_workers.normalise.times import iso_of, time_of

EXTRA = ("hjson", "netaddr")
"""What comes with `pip install 'logweir[mozdef]'`."""


@dataclass(frozen=True, slots=True)
class crontab:
    """The times at which an alert is run, as cron has them."""

    minute: Any = "*"
    hour: Any = "*"
    day_of_week: Any = "*"
    day_of_month: Any = "*"
    month_of_year: Any = "*"

    @property
    def expression(self) -> str:
        fields = (self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week)
        return " ".join(_cron(one) for one in fields)


def _cron(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(sorted(map(str, value), key=lambda one: (len(one), one)))
    return "".join(str(value).split())


def schedule(run_every: timedelta | float = timedelta(minutes=1), **_: Any) -> timedelta:
    """An alert is run so often."""
    return run_every if isinstance(run_every, timedelta) else timedelta(seconds=run_every)


def toUTC(suspectedDate: Any, localTimeZone: Any = None) -> datetime:
    """The time that a text, a number of seconds or a datetime says, in UTC. Raises ValueError for what says none."""
    if isinstance(suspectedDate, datetime):
        return (suspectedDate if suspectedDate.tzinfo else suspectedDate.replace(tzinfo=UTC)).astimezone(UTC)
    read = time_of(suspectedDate, now_us())
    if read is None:
        raise ValueError(f"{suspectedDate!r} is no time")
    return datetime.fromisoformat(iso_of(read[0]))


def getConfig(optionname: str, thedefault: Any, configfile: str) -> Any:
    """What the file says under [options]; an environment variable OPTIONS_<NAME> wins."""
    read = configparser.RawConfigParser(strict=False)
    read.read([tasks.asking.get().folder / configfile, configfile], encoding="utf-8")
    value = os.environ.get(f"OPTIONS_{optionname.upper()}")
    return value if value is not None else read.get("options", optionname, fallback=thedefault)


_TASKS = {"AlertTask": tasks.AlertTask}
_DEADMAN = {"DeadmanAlertTask": tasks.DeadmanAlertTask}
_QUERIES = {
    one.__name__: one
    for one in (
        queries.Aggregation,
        queries.BooleanMatch,
        queries.ExistsMatch,
        queries.LessThanMatch,
        queries.MissingMatch,
        queries.PhraseMatch,
        QueryStringMatch,
        queries.RangeMatch,
        queries.SearchQuery,
        queries.SubnetMatch,
        queries.TermMatch,
        queries.TermsMatch,
        queries.WildcardMatch,
    )
}
MODULES: Mapping[str, Mapping[str, Any]] = {
    "lib": {},
    "lib.alerttask": _TASKS,
    "lib.deadman_alerttask": _DEADMAN,
    "alerts": {},
    "alerts.lib": {},
    "alerts.lib.alerttask": _TASKS,
    "alerts.lib.deadman_alerttask": _DEADMAN,
    "mozdef_util": {},
    "mozdef_util.query_models": _QUERIES,
    "query_models": _QUERIES,
    "mozdef_util.utilities": {},
    "mozdef_util.utilities.toUTC": {"toUTC": toUTC},
    "mozdef_util.utilities.logger": {"logger": tasks.log, "initLogger": lambda *_, **__: None},
    "mozdef_util.utilities.dot_dict": {"DotDict": DotDict},
    "celery": {},
    "celery.schedules": {"crontab": crontab, "schedule": schedule, "timedelta": timedelta},
    "configlib": {"getConfig": getConfig, "OptionParser": optparse.OptionParser},
}
"""What each offers, by its name."""


def folders_of(package: str, folder: Path) -> list[Path]:
    """Where a package of that name has files of the scripts' own."""
    return {"lib": [folder / "lib", folder], "alerts": [folder], "alerts.lib": [folder / "lib", folder]}.get(
        package, []
    )


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """In the block, scripts' imports find MozDef's modules, and files in ``folder``; nothing of it is left behind."""
    made = {name: _module(name, attributes, folder) for name, attributes in MODULES.items()}
    for name, module in made.items():
        package, _, last = name.rpartition(".")
        if package:
            setattr(made[package], last, module)
    before = {name: sys.modules.get(name) for name in made}
    known = set(sys.modules)
    path, arguments, writes_no_code = list(sys.path), list(sys.argv), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.modules.update(made)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:], sys.argv[:], sys.dont_write_bytecode = path, arguments, writes_no_code
        for name, hidden in before.items():
            sys.modules.pop(name, None)
            if hidden is not None:
                sys.modules[name] = hidden
        for name in set(sys.modules) - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[name]


def _module(name: str, attributes: Mapping[str, Any], folder: Path) -> ModuleType:
    module = ModuleType(name)
    if any(other.startswith(f"{name}.") for other in MODULES):
        module.__path__ = [str(one) for one in folders_of(name, folder)]
    vars(module).update(attributes)
    return module
