"""The metrics of this process, and of all that share its port: made from the rows of ``table.py``, and from no others.

The registry is prometheus-client's.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from functools import cache
from pathlib import Path
from typing import Any

import prometheus_client
import prometheus_client.values
from prometheus_client import multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict

from logweir import __version__
from logweir.metrics.counts import CountsFile
from logweir.metrics.table import METRICS, Kind
from logweir.process.files import locked

# A second series for every counter and histogram that says when it began tells operators nothing, and doubles a scrape.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_LOCK = "lock"
_BY_NAME = {metric.name: metric for metric in METRICS}


def share(folder: Path) -> None:
    """Count, in this process and those that it forks, in files of that folder: ``exposition`` gives their sums.

    To be called before the first metric is made.
    """
    assert get.cache_info().currsize == 0, "a metric that is made already would be counted for this process alone"
    os.environ[_FOLDER] = str(folder)
    # The library looks for the folder once, when it is imported; but at these two names whenever it makes a metric or
    # opens a file.
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue()  # type: ignore[no-untyped-call]
    prometheus_client.values.MmapedDict = CountsFile  # type: ignore[attr-defined,assignment]


@cache
def get(name: str) -> Any:
    """The prometheus-client metric of that name; KeyError when the table does not have it."""
    row = _BY_NAME[name]
    made: Any
    if row.kind is Kind.COUNTER:
        made = prometheus_client.Counter(name, row.help, row.labels)
    elif row.kind is Kind.GAUGE:
        made = prometheus_client.Gauge(name, row.help, row.labels, multiprocess_mode=row.merge)
    else:
        made = prometheus_client.Histogram(name, row.help, row.labels, buckets=row.buckets)
    for values in row.initial:
        made.labels(*values)
    if name == "logweir_build_info":
        made.labels(__version__).set(1)
    return made


def family(name: str) -> CounterMetricFamily | GaugeMetricFamily:
    """An empty family of that metric, for a collector that knows its figures; KeyError as ``get``."""
    row = _BY_NAME[name]
    if row.kind is Kind.COUNTER:
        return CounterMetricFamily(name, row.help, labels=row.labels)
    return GaugeMetricFamily(name, row.help, labels=row.labels)


class Observations:
    """Observations of one series of a histogram, to be handed over together, once: much cheaper than each by itself."""

    def __init__(self, name: str, *labels: str) -> None:
        self._histogram = get(name).labels(*labels)
        self._bounds = _BY_NAME[name].buckets
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """``count`` observations of that value."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def hand_over(self) -> None:
        # prometheus-client has no call for many observations at once; these two are what its ``observe`` writes to.
        for bucket, count in zip(self._histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(self._sum)


def prepare(prefixes: tuple[str, ...]) -> None:
    """Make all metrics whose names begin with one of ``prefixes``, so that they are there before the first event."""
    for metric in METRICS:
        if metric.name.startswith(("logweir_build_info", *prefixes)):
            get(metric.name)


def exposition() -> tuple[bytes, str]:
    """The text of ``/metrics`` and its content type, over all processes that share the port."""
    folder = os.environ.get(_FOLDER)
    if not folder:
        return prometheus_client.generate_latest(prometheus_client.REGISTRY), prometheus_client.CONTENT_TYPE_LATEST
    registry = prometheus_client.CollectorRegistry()
    with locked(Path(folder) / _LOCK):
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST


def process_gone(number: int) -> None:
    """Take over what a process of the port has left: its gauges end, its counts stay, in one file with others' counts.

    A file of its own for each would grow in number with every reload, and every scrape reads them all.
    """
    folder = Path(os.environ[_FOLDER])
    with locked(folder / _LOCK):
        multiprocess.mark_process_dead(number)  # type: ignore[no-untyped-call]
        for kind in ("counter", "histogram"):
            left = folder / f"{kind}_{number}.db"
            if not left.exists():
                continue
            # No process has this number.
            if _is_added(left, folder / f"{kind}_0.db"):
                left.unlink()


def _is_added(left: Path, kept: Path) -> bool:
    """Whether the one file's counts are in the other now. On a full disk they are not, and the file counts as it is."""
    counted = list(MmapedDict.read_all_values_from_file(str(left)))  # type: ignore[no-untyped-call]
    with contextlib.closing(CountsFile(str(kept))) as sums:
        before = [sums.read_value(key)[0] for key, _, _, _ in counted]
        # What is new has found its room: writing over it needs none.
        if not sums.is_behind:
            for (key, value, _, _), sum_before in zip(counted, before, strict=True):
                sums.write_value(key, sum_before + value, 0.0)
        return not sums.is_behind
