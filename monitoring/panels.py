"""The kinds of panel that the dashboard is made of, and the PromQL that they share."""

from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

STAT_HEIGHT, GRAPH_HEIGHT = 4, 8
SOURCE = DataSourceRef("prometheus", "$datasource")
# The processes that are chosen at the top of the page.
CHOSEN = '{job=~"$job",instance=~"$instance"}'
SHARDS = f"heartwheel_shards{CHOSEN}"
QUANTILES = (0.5, 0.9, 0.99)

Panel = stat.Panel | timeseries.Panel | heatmap.Panel
Query = tuple[str, str]  # PromQL and the legend of what it gives


def rate(metric: str, more: str = "") -> str:
    """Return the PromQL of a counter's rate; more narrows down what is chosen."""
    return f"rate({metric}{CHOSEN.removesuffix('}')}{more}}}[$__rate_interval])"


def quantile(share: float, histogram: str) -> str:
    """Return the PromQL of a quantile over all processes."""
    return f"histogram_quantile({share}, sum by (le) ({rate(f'{histogram}_bucket')}))"


def quantiles(histogram: str) -> list[Query]:
    """Return the queries of a panel of quantiles."""
    return [(quantile(share, histogram), f"p{share * 100:g}") for share in QUANTILES]


def by_shard(query: str) -> str:
    """Return the PromQL of a sum by shard, of which only the number of shards has the label."""
    return f"sum by (shard) ({query} + on (job, instance) group_left (shard) 0 * {SHARDS})"


def limits(value: float | None, above: str = "red", below: str = "green") -> ThresholdsConfig:
    """Return the colours below and above a value."""
    steps = [Threshold(None, below), *([] if value is None else [Threshold(value, above)])]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _query(expr: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id("A").range()


def number(
    title: str, about: str, unit: str, expr: str, limit: ThresholdsConfig | None = None
) -> stat.Panel:
    """Return a panel with the newest value, large, over its course."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .height(STAT_HEIGHT)
        .unit(unit)
        .datasource(SOURCE)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(limit or limits(None))
        .with_target(_query(expr, ""))
    )


def graph(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    limit: float | None = None,
) -> timeseries.Panel:
    """Return a panel of lines; those above the limit are what an alert asks about."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .height(GRAPH_HEIGHT)
        .unit(unit)
        .min(0)
        .datasource(SOURCE)
        .fill_opacity(25 if stacked else 5)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel.thresholds(limits(limit, below="transparent")).thresholds_style(style)
    for letter, (expr, legend) in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(_query(expr, legend).ref_id(letter))
    return panel


def spread(title: str, about: str, histogram: str) -> heatmap.Panel:
    """Return a panel of how a histogram is spread, over time."""
    query = _query(
        f"sum by (le) (increase({histogram}_bucket{CHOSEN}[$__rate_interval]))", "{{le}}"
    )
    return (
        heatmap.Panel()
        .title(title)
        .description(about)
        .height(GRAPH_HEIGHT)
        .datasource(SOURCE)
        .color(
            heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .with_target(query.format(PromQueryFormat.HEATMAP))
    )
