"""The Grafana dashboards, one module each: a panel is a row there. deploy/grafana/README.md says how to add one."""

from __future__ import annotations

from dashboards import alerter, emitters, flow, ingest, workers
from dashboards.build import text_of

ALL = (flow.DASHBOARD, emitters.DASHBOARD, workers.DASHBOARD, ingest.DASHBOARD, alerter.DASHBOARD)


def pages() -> dict[str, str]:
    """The text of every dashboard by its file's name."""
    return {f"{dashboard.uid}.json": text_of(dashboard, ALL) for dashboard in ALL}
