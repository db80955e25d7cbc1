#!/usr/bin/env python3
"""What a policy, and a cache in pages, costs in processor time: ratios, each beside what it should not exceed. One thread and its
processor time, loading subtracted, so that other work on the machine disturbs little; programs in turns, the least of some rounds.

    taxes.py MODEL.gguf BIN_FOLDER [--lane-table FILE] [--prompts 2048,8000] [--rounds 2] [--decode 64] [--json]
"""
import argparse
import json
import os
import resource
import subprocess

BUDGET = 256


def processor_seconds(command):
    """Of a child's own code, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, json.loads(output)


def least(commands, rounds):
    """{name: (least seconds, the least share of prefill that compression took)}, the commands in turns."""
    best = {}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds, report = processor_seconds(command)
            share = min((run["compress_share_of_prefill"] for run in report.get("runs", {}).values()), default=0)
            known = best.get(name, (seconds, share))
            best[name] = (min(known[0], seconds), min(known[1], share))
    return best


def rows_of(best, tokens, funnel):
    """(what, ratio or share, what it should not exceed)."""
    load, prefill = best["load"][0], {name: best[name][0] - best["load"][0] for name in best}
    decode, whole_decode = best["decode"][0] - best["one step"][0], best["whole decode"][0] - best["whole one step"][0]
    yield f"h2o / full, prefill of {tokens:,}", prefill["h2o"] / prefill["full"], 1.4
    yield f"pages of 4 KiB / whole lanes, prefill of {tokens:,}", prefill["full"] / prefill["whole"], 1.03
    yield f"pages of 4 KiB / whole lanes, decode at {tokens:,}", decode / whole_decode, 1.03
    for policy in ("snapkv", "pyramidkv"):
        yield f"scoring and cutting of {policy}, share of prefill of {tokens:,}", best[policy][1], 0.02
    if funnel:
        yield f"scoring and cutting of funnel, share of prefill of {tokens:,}", best["funnel"][1], 0.05


def lane_bytes(model, tokens):
    """Of a page that just holds a lane of f16 entries."""
    return tokens * model["kv_bytes_per_token"] // (model["layers"] * model["kv_heads"]) + 63 & ~63


def measure(options, tokens):
    def program(name, *more):
        return [os.path.join(options.bin, name), "--model", options.model, "--threads", "1", *more]

    def prefill(prompt, *more):
        return program("pkv-speed", "--prompts", str(prompt), "--decode", "1", "--pool-mib", "1024", *more)

    def decode(steps, *more):
        return program("pkv-decode-rate", "--tokens", str(tokens), "--steps", str(steps), *more)

    def policy(name, *more):
        return prefill(tokens, "--policy", name, "--budget", str(BUDGET), *more)

    _, about = processor_seconds(prefill(1))
    whole = ("--page-bytes", str(lane_bytes(about["model"], tokens + options.decode + 8)))
    commands = {"load": prefill(1), "full": prefill(tokens), "whole": prefill(tokens, *whole),
                "one step": decode(1), "decode": decode(1 + options.decode),
                "whole one step": decode(1, *whole), "whole decode": decode(1 + options.decode, *whole),
                "h2o": policy("h2o"), "snapkv": policy("snapkv"), "pyramidkv": policy("pyramidkv")}
    if options.lane_table:
        commands["funnel"] = policy("funnel", "--lane-table", options.lane_table)
    return list(rows_of(least(commands, options.rounds), tokens, bool(options.lane_table)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("bin")
    parser.add_argument("--lane-table")
    parser.add_argument("--prompts", type=lambda text: list(map(int, text.split(","))), default=[2048, 8000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--decode", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [row for tokens in options.prompts for row in measure(options, tokens)]
    if options.json:
        return print(json.dumps([{"what": what, "value": value, "limit": limit} for what, value, limit in rows]))
    print(f"| budget {BUDGET} | measured | should not exceed |\n|---|---|---|")
    for what, value, limit in rows:
        shown = [f"{100 * number:.1f} %" if limit < 1 else f"{number:.2f}" for number in (value, limit)]
        print(f"| {what} | {shown[0]}{'' if value <= limit else ' (more)'} | {shown[1]} |")


if __name__ == "__main__":
    main()
