"""The dashboards, linted: the rules for Prometheus of Grafana's dashboard-linter, and some of our own.

That one is a Go program which is not to be had from a package index. Each rule here is a function that yields what it
finds; RULES is all of them, and each has a dashboard on which it speaks.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.compose import ROOT, load
from tests.deploy.promql import LEDGER_COUNTERS, ROWS, filled, metric_of, selectors
from tests.deploy.rules import alerts, recorded

FOLDER = ROOT / "deploy/grafana/dashboards"
FILES = sorted(FOLDER.glob("*.json"))
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Of Grafana's list of units, those that mean something here.
UNITS = {"bytes", "percentunit", "short", "s", "Bps", "cps", "cpm", "reqps", "dateTimeAsIso"}
# A rule that does not hold for a panel, and why.
EXCEPTIONS = {
    ("target-job-rule", "Alerts, and since when"): "alerts are of rules, not of processes",
    ("target-instance-rule", "Alerts, and since when"): "alerts are of rules, not of processes",
    ("target-counter-agg-rule", "The first equation"): "sums of the ledger, which never restart: shown to the event",
    ("target-counter-agg-rule", "The second equation"): "sums of the ledger, which never restart: shown to the event",
}
Finding = tuple[str, str]
"""The panel's title, or an empty string; and what is wrong."""
Rule = Callable[[dict[str, Any]], Iterator[Finding]]


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """The title of the panel, and the expression."""
    return [(panel["title"], target["expr"]) for panel in panels(dashboard) for target in panel["targets"]]


def variables(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def template_datasource(dashboard: dict[str, Any]) -> Iterator[Finding]:
    variable = variables(dashboard).get("datasource", {})
    if (variable.get("type"), variable.get("query"), variable.get("label")) != (
        "datasource",
        "prometheus",
        "Data source",
    ):
        yield "", f"no variable datasource of Prometheus: {variable}"


def template_job(dashboard: dict[str, Any]) -> Iterator[Finding]:
    yield from _chooses_several(dashboard, "job")


def template_instance(dashboard: dict[str, Any]) -> Iterator[Finding]:
    yield from _chooses_several(dashboard, "instance")


def _chooses_several(dashboard: dict[str, Any], name: str) -> Iterator[Finding]:
    wanted = {
        "type": "query",
        "label": name.capitalize(),
        "datasource": SOURCE,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
    }
    variable = variables(dashboard).get(name, {})
    if wrong := {key: variable.get(key) for key, value in wanted.items() if variable.get(key) != value}:
        yield "", f"the variable {name} has {wrong}"


def template_label_promql(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for variable in variables(dashboard).values():
        if variable["type"] != "query":
            continue
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        try:
            assert asked
            selectors(asked[1])
        except (AssertionError, ValueError):
            yield "", f"the variable {variable['name']} asks for {variable['query']}"


def template_on_time_change_reload(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for variable in variables(dashboard).values():
        if variable["type"] == "query" and variable.get("refresh") != 2:
            yield "", f"the variable {variable['name']} is not asked again when the range of time changes"


def uneditable_dashboard(dashboard: dict[str, Any]) -> Iterator[Finding]:
    if dashboard["editable"] is not False:
        yield "", "it can be changed in Grafana, where the change would be lost"


def panel_datasource(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for panel in panels(dashboard):
        for asked in (panel, *panel["targets"]):
            if asked.get("datasource") != SOURCE:
                yield panel["title"], f"asks {asked.get('datasource')}"


def panel_title_description(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for panel in panels(dashboard):
        if not panel.get("title") or not panel.get("description"):
            yield panel.get("title", ""), "lacks a title or a description"


def panel_units(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for panel in panels(dashboard):
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield panel["title"], f"has the unit {panel['fieldConfig']['defaults'].get('unit')}"


def panel_no_targets(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for panel in panels(dashboard):
        if not panel.get("targets"):
            yield panel["title"], "asks nothing"


def target_promql(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for title, expression in targets(dashboard):
        try:
            selectors(expression)
        except ValueError as error:
            yield title, f"{error}: {expression}"


def target_rate_interval(dashboard: dict[str, Any]) -> Iterator[Finding]:
    """What is drawn over time is over the step of the graph; deriv wants a range of its own."""
    for title, expression in targets(dashboard):
        for range_ in re.findall(r"\b(?:rate|irate)\([^\[]*\[([^\]]*)\]", expression):
            if range_ != "$__rate_interval":
                yield title, f"takes a rate over {range_}"


def target_job(dashboard: dict[str, Any]) -> Iterator[Finding]:
    yield from _matches(dashboard, "job")


def target_instance(dashboard: dict[str, Any]) -> Iterator[Finding]:
    yield from _matches(dashboard, "instance")


def _matches(dashboard: dict[str, Any], label: str) -> Iterator[Finding]:
    for title, expression in targets(dashboard):
        for braces in re.findall(r"\b(?:logweir_\w+|ALERTS\w*)(\{[^}]*\}|)", expression):
            if f'{label}=~"${label}"' not in braces:
                yield title, f"does not look at the chosen {label}: {expression}"


def target_counter_agg(dashboard: dict[str, Any]) -> Iterator[Finding]:
    for title, expression in _readable(dashboard):
        for selector in selectors(expression):
            if selector.name.endswith("_total") and selector.function not in ("rate", "irate", "increase"):
                yield title, f"shows the counter {selector.name} as it stands"


def target_histogram(dashboard: dict[str, Any]) -> Iterator[Finding]:
    """Buckets are of use in a quantile; or one of them, as a share of the count."""
    for title, expression in _readable(dashboard):
        for selector in selectors(expression):
            functions = {str(call.func.name) for call in selector.around if hasattr(call, "func")}
            if (
                selector.name.endswith("_bucket")
                and "histogram_quantile" not in functions
                and "le" not in selector.labels
            ):
                yield title, f"shows the buckets of {selector.name}"


def known_metrics(dashboard: dict[str, Any]) -> Iterator[Finding]:
    """Ours: a metric is in the table, with the labels that are asked of it, or is recorded."""
    for title, expression in _readable(dashboard):
        for selector in selectors(expression):
            row = ROWS.get(metric_of(selector.name))
            if selector.name == "ALERTS_FOR_STATE" or selector.name in recorded():
                continue
            if row is None or not selector.labels <= {*row.labels, "job", "instance", "le"}:
                yield title, f"asks for {selector.text}, which the table does not have"


def ledger_counters(dashboard: dict[str, Any]) -> Iterator[Finding]:
    """Ours: how much a count of the ledger has grown is asked of what is recorded, over all exporters."""
    for title, expression in _readable(dashboard):
        for selector in selectors(expression):
            if selector.name in LEDGER_COUNTERS and selector.range_s:
                yield title, f"asks of each exporter by itself how much {selector.name} has grown"


def known_links(dashboard: dict[str, Any]) -> Iterator[Finding]:
    """Ours: a link leads to the runbook of an alert, or to another dashboard."""
    urls = [("", link["url"]) for link in dashboard["links"]]
    urls += [(panel["title"], link["url"]) for panel in panels(dashboard) for link in panel.get("links") or ()]
    known = {f"/public/logweir/how-to/runbooks/{name}.md" for name in alerts()} | {f"/d/{file.stem}" for file in FILES}
    for title, url in urls:
        if url not in known:
            yield title, f"leads to {url}"


def _readable(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """The targets that are PromQL; the others are another rule's business."""
    broken = {expression for _, expression in targets(dashboard) if list(target_promql(_with(dashboard, expression)))}
    return [(title, expression) for title, expression in targets(dashboard) if expression not in broken]


def _with(dashboard: dict[str, Any], expression: str) -> dict[str, Any]:
    return {"panels": [{"type": "stat", "title": "", "targets": [{"expr": expression}]}]}


RULES: dict[str, Rule] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_job,
    "template-instance-rule": template_instance,
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "uneditable-dashboard-rule": uneditable_dashboard,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_job,
    "target-instance-rule": target_instance,
    "target-counter-agg-rule": target_counter_agg,
    "target-histogram-rule": target_histogram,
    "known-metrics": known_metrics,
    "ledger-counters": ledger_counters,
    "known-links": known_links,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_dashboard_keeps_the_rule(file: Path, rule: str) -> None:
    """The rule finds nothing in the dashboard but what is excepted, with its reason, in EXCEPTIONS."""
    found = RULES[rule](json.loads(file.read_text(encoding="utf-8")))

    assert [finding for finding in found if (rule, finding[0]) not in EXCEPTIONS] == []


def test_every_exception_is_needed() -> None:
    """An exception from a rule that the panel keeps would hide what comes later."""
    dashboards = [json.loads(file.read_text(encoding="utf-8")) for file in FILES]
    needed = {(rule, title) for rule, find in RULES.items() for one in dashboards for title, _ in find(one) if title}

    assert set(EXCEPTIONS) == needed


def _broken(what: str) -> dict[str, Any]:
    """The flow dashboard with one thing of its first panel, or of its variables, put wrong."""
    dashboard: dict[str, Any] = copy.deepcopy(json.loads((FOLDER / "logweir-flow.json").read_text(encoding="utf-8")))
    panel = panels(dashboard)[0]
    wrong: dict[str, Callable[[], object]] = {
        "template-datasource-rule": lambda: variables(dashboard)["datasource"].update(query="loki"),
        "template-job-rule": lambda: variables(dashboard)["job"].update(multi=False),
        "template-instance-rule": lambda: variables(dashboard)["instance"].update(allValue=".*"),
        "template-label-promql-rule": lambda: variables(dashboard)["job"].update(query="label_values(up{, job)"),
        "template-on-time-change-reload-rule": lambda: variables(dashboard)["job"].update(refresh=1),
        "uneditable-dashboard-rule": lambda: dashboard.update(editable=True),
        "panel-datasource-rule": lambda: panel.update(datasource={"type": "prometheus", "uid": "mine"}),
        "panel-title-description-rule": lambda: panel.update(description=""),
        "panel-units-rule": lambda: panel["fieldConfig"]["defaults"].pop("unit"),
        "panel-no-targets-rule": lambda: panel.update(targets=[]),
        "target-promql-rule": lambda: _ask(panel, "sum(logweir_events_total"),
        "target-rate-interval-rule": lambda: _ask(panel, "rate(logweir_events_total[5m])"),
        "target-job-rule": lambda: _ask(panel, 'logweir_events_missing{instance=~"$instance"}'),
        "target-instance-rule": lambda: _ask(panel, 'logweir_events_missing{job=~"$job"}'),
        "target-counter-agg-rule": lambda: _ask(panel, "sum(logweir_events_total)"),
        "target-histogram-rule": lambda: _ask(panel, "rate(logweir_event_latency_seconds_bucket[$__rate_interval])"),
        "known-metrics": lambda: _ask(panel, 'logweir_events_missing{stage="x"}'),
        "ledger-counters": lambda: _ask(panel, "max(rate(logweir_events_lost_total[$__rate_interval]))"),
        "known-links": lambda: panel["links"][0].update(url="/public/logweir/how-to/runbooks/LogweirNothing.md"),
    }
    wrong[what]()
    return dashboard


def _ask(panel: dict[str, Any], expression: str) -> None:
    panel["targets"][0]["expr"] = expression


@pytest.mark.parametrize("rule", RULES)
def test_rule_speaks_when_it_is_broken(rule: str) -> None:
    """Each rule finds what is put wrong for it: none is one that always agrees."""
    found = list(RULES[rule](_broken(rule)))

    assert [finding for finding in found if (rule, finding[0]) not in EXCEPTIONS]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_dashboard_is_as_grafanas_own_types_have_it(file: Path) -> None:
    """The foundation SDK reads the file and has the same dashboard; every panel has a number and a place of its own."""
    text = json.loads(file.read_text(encoding="utf-8"))
    read = Dashboard.from_json(text)
    written = json.loads(JSONEncoder().encode(read))
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in text["panels"]]
    cells = [(x + dx, y + dy) for x, y, w, h in places for dx in range(w) for dy in range(h)]

    assert written == text
    assert text["uid"] == file.stem
    assert len({panel["id"] for panel in text["panels"]}) == len(text["panels"])
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_grafana_is_provisioned_with_what_the_dashboards_use() -> None:
    """The dashboards' folder is where the provider looks, the first one is home, and there is a data source."""
    provisioning = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    provider = yaml.safe_load((provisioning / "dashboards/logweir.yml").read_text())["providers"][0]
    grafana = load()["services"]["grafana"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]

    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert home == f"{provider['options']['path']}/logweir-flow.json"
    assert (FOLDER / "logweir-flow.json").is_file()


def test_variables_are_filled_in_before_a_query_is_read() -> None:
    """Grafana's variables are no PromQL: what reads an expression here has none of them left."""
    for file in FILES:
        for _, expression in targets(json.loads(file.read_text(encoding="utf-8"))):
            assert "$" not in filled(expression)
