"""The kinds of panels that the dashboards are made of, on top of Grafana's Foundation SDK, so that a dashboard's own file says only
what is drawn and what is to be read from it."""
from grafana_foundation_sdk.builders import bargauge, common, dashboard, gauge, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
INSTANCE = 'job=~"$job", instance=~"$instance"'
# An alert about missing targets has no job: hence the empty alternative.
FIRING = 'ALERTS{alertname=~"PyramidKV.+", alertstate="firing", job=~"$job|"}'
POLICY = INSTANCE + ', policy=~"$policy"'

BYTES, RATIO, SECONDS, TIMES, COUNT = "bytes", "percentunit", "s", "suffix: x", "short"


def metric(name, labels=POLICY):
    return f"pyramidkv_{name}{{{labels}}}"


def rate(name, labels=POLICY):
    return f"rate({metric(name, labels)}[$__rate_interval])"


def quantile(share, name, by="", labels=POLICY):
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) ({rate(name + '_bucket', labels)}))"


def mean(name, by="", labels=POLICY):
    groups = f" by ({by})" if by else ""
    return f"sum{groups} ({rate(name + '_sum', labels)}) / sum{groups} ({rate(name + '_count', labels)})"


def _query(expr, legend, ref, instant=False, as_table=False):
    query = prometheus.Dataquery().expr(expr).ref_id(ref).legend_format(legend).datasource(DATASOURCE)
    query = query.instant() if instant else query.range()
    return query.format(PromQueryFormat.TABLE if as_table else PromQueryFormat.TIME_SERIES)


def _filled(panel, panel_id, title, description, unit, queries, width, height, **query_options):
    panel.id(panel_id).title(title).description(description).datasource(DATASOURCE).span(width).height(height).unit(unit)
    for ref, (expr, legend) in zip("ABCDEF", queries):
        panel.with_target(_query(expr, legend, ref, **query_options))
    return panel


def _steps(thresholds):
    """(from value, colour)...; the first begins at minus infinity."""
    steps = [models.Threshold(value=None if i == 0 else value, color=color) for i, (value, color) in enumerate(thresholds)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def lines(panel_id, title, description, unit, queries, width=8, height=8, stacked=False, maximum=None, minimum=0, dashed=None,
          legend_right=False, limit=None):
    """Lines over time; `queries` are pairs of expression and legend, `dashed` a pattern of the legends drawn with dashes, `limit`
    a value that a red line marks. `minimum` None: the values may be negative."""
    panel = _filled(timeseries.Panel(), panel_id, title, description, unit, queries, width, height)
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.line_width(1).show_points(shapes.VisibilityMode.NEVER).fill_opacity(35 if stacked else 8)
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    legend = common.VizLegendOptions().show_legend(True)
    if legend_right:
        legend.display_mode(shapes.LegendDisplayMode.TABLE).placement(shapes.LegendPlacement.RIGHT).calcs(["lastNotNull", "mean"])
    else:
        legend.display_mode(shapes.LegendDisplayMode.LIST).placement(shapes.LegendPlacement.BOTTOM)
    panel.legend(legend)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if minimum is not None:
        panel.min(minimum)
    if maximum is not None:
        panel.max(maximum)
    if limit is not None:
        panel.thresholds(_steps([(None, "transparent"), (limit, "red")]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED))
    if dashed:
        panel.override_by_regexp(dashed, [models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [6, 6]})])
    return panel


def _last_value():
    return common.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields("")


def figure(panel_id, title, description, unit, queries, thresholds=((None, "blue"),), width=4, height=4, decimals=None, sparkline=True,
           named=False):
    """One big number (or one per series, with its name) coloured by `thresholds`."""
    panel = _filled(stat.Panel(), panel_id, title, description, unit, queries, width, height)
    panel.reduce_options(_last_value()).color_mode(shapes.BigValueColorMode.VALUE).no_value("none")
    panel.graph_mode(shapes.BigValueGraphMode.AREA if sparkline else shapes.BigValueGraphMode.NONE)
    panel.text_mode(shapes.BigValueTextMode.VALUE_AND_NAME if named else shapes.BigValueTextMode.VALUE)
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)).thresholds(_steps(thresholds))
    return panel if decimals is None else panel.decimals(decimals)


def dial(panel_id, title, description, queries, thresholds, width=4, height=4):
    """A share from 0 to 1 as a gauge."""
    panel = _filled(gauge.Panel(), panel_id, title, description, RATIO, queries, width, height)
    panel.reduce_options(_last_value()).show_threshold_markers(True).min(0).max(1).decimals(0)
    return panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)).thresholds(_steps(thresholds))


def bars(panel_id, title, description, unit, queries, width, height, repeat, per_row):
    """One horizontal bar per series, its mean over the time range; repeated for each value of the variable `repeat`."""
    panel = _filled(bargauge.Panel(), panel_id, title, description, unit, queries, width, height)
    panel.orientation(shapes.VizOrientation.HORIZONTAL).display_mode(shapes.BarGaugeDisplayMode.BASIC).min(0)
    panel.reduce_options(common.ReduceDataOptions().values(False).calcs(["mean"]).fields(""))
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.CONTINUOUS_BL_PU)).show_unfilled(False)
    panel.min_viz_height(6).sizing(shapes.BarGaugeSizing.AUTO).text(common.VizTextDisplayOptions().title_size(10).value_size(10))
    return panel.repeat(repeat).repeat_direction("h").max_per_row(per_row)


def listing(panel_id, title, description, expr, columns, width, height):
    """A table of a metric's labels: `columns` are pairs of label and heading."""
    panel = _filled(table.Panel(), panel_id, title, description, COUNT, [(expr, "")], width, height, instant=True, as_table=True)
    names = dict(columns)
    hidden = {name: True for name in ("Time", "Value", "__name__")}
    order = {label: position for position, label in enumerate(names)}
    return panel.with_transformation(models.DataTransformerConfig(
        id_val="organize", options={"excludeByName": hidden, "indexByName": order, "renameByName": names}))


def _all():
    return models.VariableOption(selected=True, text="All", value="$__all")


def _label_variable(name, label, query, description):
    return (dashboard.QueryVariable(name).label(label).description(description).datasource(DATASOURCE).query(query)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True).include_all(True))


def new_dashboard(uid, title, description, other):
    """A dashboard with the variables, links and alert marks that both have; `other`: uid and title of the one it links to."""
    alerts = (dashboard.AnnotationQuery().name("Alerts").datasource(DATASOURCE).enable(True).icon_color("red")
              .expr(FIRING))
    result = (dashboard.Dashboard(title).uid(uid).description(description).tags(["pyramidkv"]).readonly().timezone("browser")
              .time("now-30m", "now").refresh("10s").tooltip(models.DashboardCursorSync.CROSSHAIR).annotation(alerts))
    result.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
                         .description("The Prometheus that scrapes the servers."))
    result.with_variable(_label_variable("job", "Job", "label_values(pyramidkv_requests_running, job)",
                                         "Scrape jobs of Prometheus.").current(_all()))
    result.with_variable(_label_variable("instance", "Instance", 'label_values(pyramidkv_requests_running{job=~"$job"}, instance)',
                                         "Servers; several are added up.").current(_all()))
    result.with_variable(_label_variable("policy", "Policy", 'label_values(pyramidkv_kv_cache_held_bytes{job=~"$job"}, policy)',
                                         "Cache policies of the requests.").current(_all()))
    other_uid, other_title = other
    return result.link(dashboard.DashboardLink(other_title).type(models.DashboardLinkType.LINK).url(f"/d/{other_uid}")
                       .include_vars(True).keep_time(True).icon("dashboard"))


def chosen_variable(name, label, description, chosen):
    """A choice of policies of its own, with `chosen` picked at first."""
    option = models.VariableOption(selected=True, text=list(chosen), value=list(chosen))
    return _label_variable(name, label, 'label_values(pyramidkv_kv_cache_held_bytes{job=~"$job"}, policy)', description).current(option)


def add_row(target, row_id, title, panels):
    target.with_row(dashboard.Row(title).id(row_id))
    for panel in panels:
        target.with_panel(panel)
