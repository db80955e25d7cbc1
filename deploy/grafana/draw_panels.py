"""One panel of a dashboard, drawn with matplotlib in the colours of Grafana's dark theme: lines, stacked areas, figures, dials, bars, tables."""
import re
import time

import numpy
from matplotlib import ticker
from matplotlib.patches import FancyBboxPatch, Wedge

BACKGROUND, PANEL, BORDER, GRID, TEXT, FAINT = "#111217", "#181b1f", "#2c3039", "#2a2e36", "#dcdde3", "#9a9cab"
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
PALETTE = ("#5794f2", "#73bf69", "#ff9830", "#b877d9", "#f2cc0c", "#8ab8ff", "#f2495c", "#96d98d", "#ffb357", "#ca95e5", "#56d9d9", "#e0b400")
POLICIES = {"full": "#f2495c", "pyramidkv": "#73bf69", "snapkv": "#5794f2", "h2o": "#ff9830", "streaming_llm": "#b877d9", "tova": "#f2cc0c",
            "l2norm": "#56d9d9", "keydiff": "#ff85c0", "random": "#9a9cab",
            "ada_snapkv": "#f9f871", "ada_pyramidkv": "#ffc07a", "funnel": "#37872d"}


def show(value, unit, decimals=None):
    """A number as Grafana writes it."""
    def scaled(steps, base):
        step = 0
        scale = abs(value)
        while scale >= base and step + 1 < len(steps):
            scale, step = scale / base, step + 1
        shown = value / base ** step
        digits = decimals if decimals is not None else (0 if abs(shown) >= 100 or shown == round(shown) else 1 if abs(shown) >= 10 else 2)
        return f"{shown:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{shown:.0f}", steps[step]

    if unit in ("bytes", "Bps"):
        number, word = scaled(("B", "KiB", "MiB", "GiB", "TiB"), 1024)
        return f"{number} {word}" + ("/s" if unit == "Bps" else "")
    if unit == "percentunit":
        digits = decimals if decimals is not None else 0 if abs(value) >= 0.1 or not value else 1 if abs(value) >= 0.01 else 2
        return f"{100 * value:.{digits}f}%"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 and value else f"{value:.3g} s"
    number, word = scaled(("", " K", " Mil"), 1000)
    suffix = {"reqps": " req/s", "ops": " /s", "cps": " /s"}.get(unit, unit.removeprefix("suffix:") if unit.startswith("suffix:") else "")
    return number + word + suffix


def legend_of(target, labels):
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found.group(1), ""), target["legendFormat"]) or target["refId"]


def color_of(legend, index):
    for word, color in POLICIES.items():
        if legend == word or legend.startswith((word + " p", word + " mean")):
            return color
    return PALETTE[index % len(PALETTE)]


def threshold_color(panel, value):
    color = "blue"
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if step.get("value") is None or value >= step["value"]:
            color = step["color"]
    return NAMED.get(color, color)


class Frame:
    """A panel's place on the picture, in pixels, with its background and title drawn; gives out axes inside it."""

    def __init__(self, figure, size, frame, title_height, title):
        self.figure, self.size, self.frame, self.title_height = figure, size, frame, title_height
        left, bottom, width, height = frame
        figure.add_artist(FancyBboxPatch((left / size[0], bottom / size[1]), width / size[0], height / size[1], boxstyle="square,pad=0",
                                         facecolor=PANEL, edgecolor=BORDER, linewidth=0.8, transform=figure.transFigure, zorder=-2))
        figure.text((left + 10) / size[0], (bottom + height - 9) / size[1], title, color=TEXT, fontsize=9, va="top", weight="bold")

    def axes(self, left, bottom, right, top=0):
        """Axes inside the frame, with these margins in pixels."""
        x, y, width, height = self.frame
        area = ((x + left) / self.size[0], (y + bottom) / self.size[1], (width - left - right) / self.size[0],
                (height - bottom - top - self.title_height) / self.size[1])
        axes = self.figure.add_axes(area, facecolor=PANEL)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=7.5, colors=FAINT)
        return axes

    def blank(self):
        axes = self.axes(10, 8, 10)
        axes.axis("off")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        return axes


def heading(figure, size, place, title):
    """The heading of a row of panels, its left middle at `place`."""
    figure.text(place[0] / size[0], place[1] / size[1], title, color=TEXT, fontsize=10.5, va="center", weight="bold")


def drawable(series):
    return [(legend_of(target, labels), points) for target, rows in series for labels, points in rows]


def is_used(points):
    return any(value for _, value in points)


def say_no_data(frame):
    frame.blank().text(0.5, 0.5, "no data", color=FAINT, fontsize=9, ha="center", va="center")


def round_values(low, high, unit):
    """Where an axis is marked: at round numbers of what its marks are written in, KiB or MiB for bytes."""
    scale = 1
    while unit in ("bytes", "Bps") and max(abs(low), abs(high)) / scale >= 1024:
        scale *= 1024
    return [scale * value for value in ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low / scale, high / scale)
            if low <= scale * value <= high]


def legend_columns(frame, legends):
    """How many fit beside each other below a panel: a letter takes some six pixels."""
    return min(len(legends), max(1, int((frame.frame[2] - 70) / (6 * max(map(len, legends)) + 32))))


def draw_lines(frame, panel, series):
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    dashed = [override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]]
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    rows = drawable(series)
    used = [row for row in rows if is_used(row[1])] or [("all zero", rows[0][1])]  # lines along zero say nothing in a still picture
    aside = panel["options"]["legend"]["placement"] == "right"
    columns = 1 if aside else legend_columns(frame, [legend for legend, _ in used])
    axes = frame.axes(62, 30 if aside else 30 + 16 * -(-len(used) // columns), 175 if aside else 14)
    axes.grid(color=GRID, linewidth=0.6)
    floor = None
    for index, (legend, points) in enumerate(used):
        x, y = numpy.array(points).T
        color = color_of(legend, index)
        if stacked:
            floor = numpy.zeros_like(y) if floor is None else floor
            axes.fill_between(x, floor, floor + y, color=color, alpha=0.55, linewidth=0, label=legend)
            floor = floor + y
            continue
        dash = any(re.fullmatch(pattern.strip("/"), legend) for pattern in dashed)
        axes.plot(x, y, color=color, linewidth=1.3, linestyle=(0, (4, 3)) if dash else "-", label=legend)
        if not dash:
            axes.fill_between(x, 0, y, color=color, alpha=0.06, linewidth=0)
    finish_lines(axes, defaults, unit)
    below = -24 / (axes.get_position().height * frame.size[1])
    axes.legend(loc="center left" if aside else "upper left", bbox_to_anchor=(1.01, 0.5) if aside else (-0.02, below), ncol=columns, frameon=False,
                fontsize=7.5, labelcolor=TEXT, handlelength=1.1, columnspacing=1.0, handletextpad=0.5, borderaxespad=0, labelspacing=0.35)


def finish_lines(axes, defaults, unit):
    low, high = axes.get_ylim()
    low = min(defaults.get("min", low), low) if defaults.get("min") is None else defaults["min"]
    axes.set_ylim(low, high if high > low else low + 1)
    if defaults.get("max") is not None and unit == "percentunit":
        axes.set_ylim(low, min(high, 1.05))
    axes.yaxis.set_major_locator(ticker.FixedLocator(round_values(*axes.get_ylim(), unit)))
    axes.yaxis.set_major_formatter(lambda value, _: show(value, unit))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: time.strftime("%H:%M:%S", time.gmtime(value)))
    axes.margins(x=0)


def draw_figure(frame, panel, series):
    defaults = panel["fieldConfig"]["defaults"]
    rows = drawable(series)
    if panel["options"]["graphMode"] == "area":
        axes = frame.axes(1, 1, 1, 42)
        axes.axis("off")
        x, y = numpy.array(rows[0][1]).T
        axes.fill_between(x, min(0, y.min()), y, color=threshold_color(panel, y[-1]), alpha=0.22, linewidth=0)
        axes.margins(0)
    axes = frame.blank()
    for index, (legend, points) in enumerate(rows):
        value = points[-1][1]
        text = show(value, defaults["unit"], defaults.get("decimals"))
        if panel["options"]["textMode"] == "value_and_name":
            text = f"{legend}  {text}"
        axes.text(0.5, 0.62 - 0.3 * index, text, color=threshold_color(panel, value), fontsize=19, ha="center", va="center", weight="bold")


def draw_dial(frame, panel, series):
    rows = drawable(series)
    value = rows[0][1][-1][1]
    axes = frame.blank()
    axes.set(xlim=(-1.25, 1.25), ylim=(-0.25, 1.15), aspect="equal")
    axes.add_patch(Wedge((0, 0), 1, 0, 180, width=0.26, color=GRID))
    axes.add_patch(Wedge((0, 0), 1, 180 - 180 * min(max(value, 0), 1), 180, width=0.26, color=threshold_color(panel, value)))
    axes.text(0, 0.02, show(value, "percentunit", 0), color=threshold_color(panel, value), fontsize=17, ha="center", va="bottom", weight="bold")


def draw_bars(frame, panel, series):
    rows = [(legend, sum(value for _, value in points) / len(points)) for legend, points in sorted(drawable(series))]
    axes = frame.axes(40, 26, 12)
    values = numpy.array([value for _, value in rows])
    axes.barh([legend for legend, _ in rows], values, color=color_of(panel["title"].split()[-1], 0), height=0.78)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0, values.max() * 1.04 or 1)
    axes.xaxis.set_major_locator(ticker.FixedLocator(round_values(*axes.get_xlim(), "bytes")))
    axes.xaxis.set_major_formatter(lambda value, _: show(value, "bytes"))


def draw_table(frame, panel, series):
    options = panel["transformations"][0]["options"]
    names = {label: options["renameByName"][label] for label in sorted(options["indexByName"], key=options["indexByName"].get)}
    axes = frame.blank()
    rows = [[labels.get(label, "") for label in names] for _, found in series for labels, _ in found]
    columns = [0.0]
    for index, heading in enumerate(names.values()):
        columns.append(columns[-1] + max(len(cell) for cell in [heading] + [row[index] for row in rows]) + 3)
    for line, row in enumerate([list(names.values())] + rows):
        for x, cell in zip(columns, row):
            axes.text(x / max(columns[-1], 90), 0.93 - 0.11 * line, cell, color=TEXT if line else NAMED["blue"], fontsize=8.5, va="center")


DRAWERS = {"timeseries": draw_lines, "stat": draw_figure, "gauge": draw_dial, "bargauge": draw_bars, "table": draw_table}


def draw(figure, size, frame, title_height, panel, series):
    """Draws a panel at `frame` (left, bottom, width, height in pixels) of a picture of `size`; `series`: [(target, query result)...]."""
    place = Frame(figure, size, frame, title_height, panel["title"])
    if any(rows for _, rows in series):
        DRAWERS[panel["type"]](place, panel, series)
    else:
        say_no_data(place)
