"""Draws the dashboards' panels from a Prometheus, as Grafana would lay them out: a PNG per row of panels. For documentation, and to look at
the dashboards where there is no Grafana.

    draw.py --prometheus http://127.0.0.1:9090 --output DIR [--seconds 300] [--step 5]
"""
import argparse
import pathlib
import re

import matplotlib
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

import draw_panels  # noqa: E402
import expressions  # noqa: E402
from prometheus_api import Prometheus  # noqa: E402

COLUMN, LINE, GAP = 56, 34, 8  # pixels: of a column and a line of Grafana's grid, between panels
TITLE = 26
LOW_ROW = 5  # a row of panels that is not higher than this shares a picture with the next one


def sections(dashboard):
    """The panels by the dashboard's rows, each list with its row's heading first; a row of low panels goes with the one below it."""
    found = []
    for panel in sorted(dashboard["panels"], key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"])):
        if panel["type"] == "row" and (not found or panel["gridPos"]["y"] - found[-1][0]["gridPos"]["y"] > LOW_ROW):
            found.append([])
        found[-1].append(panel)
    return found


def repeated(panel, values):
    """The panel once per value of the variable it is repeated for, side by side, as (panel, variables)."""
    if not panel.get("repeat"):
        return [(panel, values)]
    copies = []
    for index, value in enumerate(values[panel["repeat"]].split("|")):
        place = dict(panel["gridPos"], x=(index * panel["gridPos"]["w"]) % 24)
        copies.append((dict(panel, gridPos=place), dict(values, **{panel["repeat"]: value})))
    return copies


def draw_section(prometheus, panels, values, rate_interval, path):
    top = min(panel["gridPos"]["y"] for panel in panels)
    height = (max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - top) * LINE
    width = 24 * COLUMN
    figure = pyplot.figure(figsize=(width / 100, height / 100), dpi=100, facecolor=draw_panels.BACKGROUND)
    for panel, chosen in [copy for panel in panels for copy in repeated(panel, values)]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            draw_panels.heading(figure, (width, height), (2 * GAP, height - (place["y"] - top + 0.55) * LINE), panel["title"])
            continue
        left, bottom = place["x"] * COLUMN + GAP / 2, height - (place["y"] - top + place["h"]) * LINE + GAP / 2
        frame = (left, bottom, place["w"] * COLUMN - GAP, place["h"] * LINE - GAP)
        series = [(target, prometheus.range(expressions.fill_in(target["expr"], chosen, rate_interval))) for target in panel["targets"]]
        draw_panels.draw(figure, (width, height), frame, TITLE, dict(panel, title=expressions.fill_in(panel["title"], chosen)), series)
    figure.savefig(path, facecolor=draw_panels.BACKGROUND)
    pyplot.close(figure)
    with Image.open(path) as image:  # few colours: a quarter of the bytes
        image.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--step", type=float, default=5)
    parser.add_argument("--rate-interval", default="30s")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    prometheus = Prometheus(options.prometheus, options.seconds, options.step)
    for dashboard in expressions.dashboards().values():
        values = expressions.variables(dashboard)
        for panels in sections(dashboard):
            name = re.sub(r"[^a-z]+", "-", panels[0]["title"].lower()).strip("-")
            path = options.output / f"{dashboard['uid'].removeprefix('pyramidkv-')}-{name}.png"
            draw_section(prometheus, panels, values, options.rate_interval, path)
            print(f"{path} ({path.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
