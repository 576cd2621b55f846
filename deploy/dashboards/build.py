"""Rows to the JSON that Grafana reads, through the types of Grafana's own SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.table import Dashboard, Panel, Query
from logweir.ledger.loss import LossClass

RUNBOOKS = "/public/logweir/how-to/runbooks"
"""Where Grafana has the pages of docs/how-to/runbooks: the compose file mounts docs/ there."""
CLASSES = tuple(LossClass)
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Name, colour, and when.
_ANNOTATIONS = (
    ("Books do not balance", "red", Query("max(abs(logweir_ledger_imbalance_events)) > 0", "")),
    ("Somebody has fallen silent", "orange", Query("sum(max by (of) (logweir_silence_findings)) > 0", "")),
)


def text_of(dashboard: Dashboard, all_dashboards: Sequence[Dashboard]) -> str:
    """The dashboard's JSON, with links to the others."""
    builder = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags(["logweir"])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .variables(_variables(dashboard))
        .annotations([_annotation(*row) for row in _ANNOTATIONS])
        .links([_link(other) for other in all_dashboards if other is not dashboard])
    )
    number = 0
    for row in dashboard.rows:
        number += 1
        builder.with_row(builders.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            builder.with_panel(_panel(panel, number))
    return JSONEncoder(indent=2, ensure_ascii=False).encode(builder.build()) + "\n"


def _variables(dashboard: Dashboard) -> list[Any]:
    every = models.VariableOption(text="All", value="$__all", selected=True)
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    variables: list[Any] = [source]
    for name, query in (
        ("job", "label_values(logweir_build_info, job)"),
        ("instance", 'label_values(logweir_build_info{job=~"$job"}, instance)'),
    ):
        variables.append(
            builders.QueryVariable(name)
            .label(name.capitalize())
            .datasource(_SOURCE)
            .query(query)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .current(every)
        )
    if dashboard.by_class:
        custom = builders.CustomVariable("class").label("Class").values(",".join(CLASSES))
        variables.append(custom.multi(True).include_all(True).all_value(".+").current(every))
    return variables


def _annotation(name: str, colour: str, query: Query) -> builders.AnnotationQuery:
    annotation = builders.AnnotationQuery().name(name).datasource(_SOURCE).enable(True)
    return annotation.icon_color(colour).expr(query.expression)


def _link(other: Dashboard) -> builders.DashboardLink:
    link = builders.DashboardLink(other.title).type(models.DashboardLinkType.LINK).url(f"/d/{other.uid}")
    return link.keep_time(True).include_vars(True)


def _panel(panel: Panel, number: int) -> Any:
    built: Any = {"timeseries": _timeseries, "stat": _stat, "table": _table}[panel.kind](panel)
    built.id(number).title(panel.title).description(panel.description).datasource(_SOURCE)
    built.unit(panel.unit).span(panel.width).height(panel.height).thresholds(_thresholds(panel))
    if panel.no_value:
        built.no_value(panel.no_value)
    if panel.runbook:
        url = f"{RUNBOOKS}/{panel.runbook}.md"
        link = builders.DashboardLink(f"What to do: {panel.runbook}").type(models.DashboardLinkType.LINK).url(url)
        built.links([link.target_blank(True)])
    for at, query in enumerate(panel.queries):
        built.with_target(_target(panel, query, chr(ord("A") + at)))
    return built


def _target(panel: Panel, query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(ref_id)
    target.datasource(_SOURCE)
    if panel.kind == "timeseries":
        return target.range()
    target.instant()
    return target.format(PromQueryFormat.TABLE if panel.kind == "table" else PromQueryFormat.TIME_SERIES)


def _timeseries(panel: Panel) -> timeseries.Panel:
    built = timeseries.Panel().fill_opacity(10).show_points(common.VisibilityMode.NEVER).axis_soft_min(0)
    built.tooltip(
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    built.legend(
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    if panel.stacked:
        built.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.red_from is not None or panel.red_below is not None:
        built.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    return built


def _stat(panel: Panel) -> stat.Panel:
    built = stat.Panel().graph_mode(common.BigValueGraphMode.NONE)
    has_limit = panel.red_from is not None or panel.red_below is not None
    built.color_mode(common.BigValueColorMode.BACKGROUND if has_limit else common.BigValueColorMode.NONE)
    return built.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))


def _table(_: Panel) -> table.Panel:
    # One column of values, beside the labels; the moment of asking says nothing.
    hidden = models.DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}})
    merged = models.DataTransformerConfig(id_val="merge", options={})
    return table.Panel().with_transformation(merged).with_transformation(hidden)


def _thresholds(panel: Panel) -> builders.ThresholdsConfig:
    steps = [models.Threshold(value=None, color="red" if panel.red_below is not None else "green")]
    if panel.red_below is not None:
        steps.append(models.Threshold(value=panel.red_below, color="green"))
    if panel.red_from is not None:
        steps.append(models.Threshold(value=panel.red_from, color="red"))
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
