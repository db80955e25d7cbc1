#!/usr/bin/env python3
"""Measures the policies of a running server and writes a page: evaluate.py --name MODEL --records FOLDER --output PAGE [part...]

Parts: divergence (KL at equal bytes), windows, refit, funnel_global, funnel_f16 and funnel_k8v4 (the same of single choices), formats, recall, tasks, needles, costs.
Started by scripts/evaluate, which starts the server.
"""
import argparse
import datetime
import pathlib
import platform
import re

import costs
import divergence
import formats
import needles
import origin
import recall
import tasks
import variants

# Ratios of mean KL that the design asks for, by model.
SMALLER = {"20%": 0.12, "12.5%": 0.2, "128": 0.4}
SAME = {"20%": 0.35, "12.5%": 0.5, "128": 0.75}
SAME_FORMAT = {"20%": 0.25, "12.5%": 0.3, "128": 0.5}
DEMANDS = {
    "smollm2-135m": {("funnel k8v4", "snapkv"): dict.fromkeys(divergence.SETTINGS, SMALLER),
                     ("funnel f16", "snapkv"): dict.fromkeys(divergence.SETTINGS, SAME),
                     ("funnel k8v4", "snapkv k8v4"): dict.fromkeys(divergence.SETTINGS, SAME_FORMAT)},
    "qwen2.5-coder-0.5b": {("funnel k8v4", "snapkv"): dict.fromkeys(divergence.SETTINGS, {"20%": 0.15, "12.5%": 0.3, "128": 0.6}),
                           ("funnel f16", "snapkv"): {"visible": {"20%": 0.9, "12.5%": 0.9, "128": 1.1}}
                           | dict.fromkeys(("hidden", "plain"), {"20%": 0.55, "12.5%": 0.7, "128": 0.9}),
                           ("funnel k8v4", "snapkv k8v4"): dict.fromkeys(("hidden", "plain"), SAME_FORMAT)},
}
LENGTHS = {"smollm2-135m": (1000, 2000, 4000, 7000), "qwen2.5-coder-0.5b": (2000, 4000, 8000, 16000)}
HEAD_DIM = 64  # of both models


def machine():
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found.group(1) if found else platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measured-with", required=True, type=pathlib.Path, nargs="+", help="files that what is measured depends on: program, model, ...")
    parser.add_argument("--commit", default="unknown", help="that the server was built from, for the page")
    parser.add_argument("--resume-anyway", action="store_true", help="go on with records of another build, model or text")
    parser.add_argument("--name", required=True, choices=DEMANDS)
    parser.add_argument("--records", required=True, type=pathlib.Path, help="folder that keeps what was measured; a run goes on where one stopped")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="Markdown; pictures lie beside it")
    parser.add_argument("--lengths", type=int, nargs="+", help="of needles and costs, in tokens")
    parser.add_argument("--budgets", nargs="+", default=divergence.BUDGETS, choices=divergence.BUDGETS, help="of divergence and single choices")
    parser.add_argument("--settings", nargs="+", default=divergence.SETTINGS, choices=divergence.SETTINGS, help="of single choices")
    parser.add_argument("--needles", type=int, default=20, help="depths of the needle")
    parser.add_argument("parts", nargs="*", default=["divergence", *variants.PARTS, "formats", "recall", "tasks", "needles", "costs"])
    options = parser.parse_args()
    lengths = options.lengths or LENGTHS[options.name]
    sections = [f"# Policies on {options.name}, {datetime.date.today()}",
                f"`scripts/evaluate {options.name} {' '.join(options.parts)}` on {machine()}, Python {platform.python_version()}; all through the server.",
                origin.page(origin.claim(options.records, origin.of(options.measured_with, options.commit), options.resume_anyway))]
    if "divergence" in options.parts:
        table = divergence.measure(options.records / "divergence.jsonl", HEAD_DIM, options.budgets)
        sections += ["## KL from the full cache at equal bytes", divergence.__doc__.strip(), divergence.page(table), "### Demands",
                     divergence.verdicts(table, DEMANDS[options.name])]
    for part in (part for part in variants.PARTS if part in options.parts):
        sections.append(variants.page(part, variants.measure(part, options.records, HEAD_DIM, options.budgets, options.settings)))
    if "formats" in options.parts:
        sections += ["## Int8 keys and int4 values alone", formats.__doc__.strip(), formats.page(formats.measure(options.records / "formats.jsonl"))]
    if "recall" in options.parts:
        sections += ["## Attention recall", recall.__doc__.strip(), recall.page(recall.measure(options.records / "recall.jsonl"))]
    if "tasks" in options.parts:
        sections += ["## Tasks", tasks.__doc__.strip(), tasks.page(tasks.measure(options.records / "tasks.jsonl"))]
    if "needles" in options.parts:
        table = needles.measure(options.records / "needles.jsonl", lengths, options.needles)
        picture = options.output.with_name(f"{options.output.stem}-needles.svg")
        needles.draw(table, picture)
        sections += ["## Needles found", needles.page(table), needles.verdicts(table), f"![Finds by depth and length]({picture.name})"]
    if "costs" in options.parts:
        sections += ["## Time and memory", costs.page(costs.measure(options.records / "costs.jsonl", lengths))]
    options.output.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    print(f"{options.output} is written")


if __name__ == "__main__":
    main()
