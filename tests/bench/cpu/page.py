"""A report of compare.py as people read it, and its place in a page of docs/results."""
import datetime
import os
import re

import limits


def what(row):
    if row["phase"] == "prefill":
        return f"prefill, {row['prompt_tokens']:,}" + policy(row)
    if row["sequences"] > 1:
        return f"decode, {row['sequences']} x {row['prompt_tokens']:,} together{policy(row)}"
    return f"decode at {row['prompt_tokens']:,}{policy(row)}" if row["prompt_tokens"] > 1 else "decode, empty context"


def policy(row):
    share = row["entries"] / row["prompt_tokens"]
    name = "" if row["policy"] == "uniform" else row["policy"] + " "
    return "" if row["policy"] == "full" else f", {name}{100 * share:.0f} %"


def number(rate):
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def ratio(peer, rounds):
    text = f"{peer['ratio']:.2f}"
    return text if rounds == 1 else f"{text} ({peer['ratio_min']:.2f} to {peer['ratio_max']:.2f})"


def table(report):
    names = list(report["peers"])
    header = ["tokens a second", "ours", "of the limit"] + [column for name in names for column in (name, "ratio")]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in report["rows"]:
        share = row["share_of_limit"]
        cells = [what(row), number(row["tokens_per_second"]), "" if share is None else f"{100 * share:.0f} %"]
        for name in names:
            peer = row["peers"].get(name)
            cells += ["", ""] if peer is None else [number(peer["tokens_per_second"]), ratio(peer, report["rounds"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def text(report):
    path, gflops = limits.arithmetic(report["limits"])
    peers = "; ".join(f"{name}: {version}" for name, version in report["peers"].items())
    rounds = f"{report['rounds']} rounds" if report["rounds"] > 1 else "one round"
    return (f"{report['model']}, {report['backend']}, {rounds} in turns with {peers}; random tokens, their caches whole. Load average "
            f"before: {report['load_before']:.1f}; it took {report['minutes']:.0f} minutes.\n"
            f"Limits, measured in the same run: memory is read at {report['limits'].get('read', 0):.0f} GB/s, {path} multiplies at "
            f"{gflops:.0f} GFLOP/s. A prompt's limit is its arithmetic at that rate, what is in 8 bits included, a decode step's the weights and entries it reads.\n\n"
            + table(report) + "\n")


def put(path, report):
    """Writes the report into the page, which is made where there is none: in place of what it has of the same model and path, or at its end."""
    title = f"{report['model']}, no higher than {report['isa']}" if report["isa"] else report["model"]
    title += ", fast mode" if report["fast"] else ""
    begin, end = f"<!-- scripts/bench {title} -->", "<!-- scripts/bench: end -->"
    fields = {}
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            fields = limits.cpu_fields(file.read())
    block = (f"{begin}\n## Speed, {title}\n`scripts/bench`, {datetime.date.today()}, {fields.get('model name', 'CPU')} "
             f"({limits.kind(fields)}). {text(report)}{end}")
    content = f"# CPU, {limits.kind(fields)}\n"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            content = file.read()
    old = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    content = old.sub(lambda _: block, content) if old.search(content) else content.rstrip("\n") + "\n\n" + block + "\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
