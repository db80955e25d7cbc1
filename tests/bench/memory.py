#!/usr/bin/env python3
"""Peak memory of a long prompt, inside and outside. Two fresh servers answer it, one under `full`, one under `pyramidkv`: the
difference of their peak resident memory is compared with the difference of the peaks they report. The second server then answers
it under every policy, with the budget in both scopes and with one in bytes a page above the smallest that is let in, and what the
replies report is compared with what EstimateCache promised: where scores decide how much each lane gets an upper bound, elsewhere
the bill itself. Exit code 1 where a promise is broken.

    memory.py MODEL.gguf BIN_FOLDER [--tokens 8000] [--budget 128] [--max-tokens 64] [--json]
"""
import argparse
import contextlib
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile

from started_server import StartedServer

MIB = 1 << 20
PAGE_BYTES = 4096
ESTIMATE_SLACK = 1.01  # an estimate that is no bound may be so much above the bill of a whole answer; none may be below


def peak_resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024


class Server(StartedServer):
    def __init__(self, options):
        super().__init__(os.path.join(options.bin, "pyramidkv-server"), options.model, "metrics.listen=127.0.0.1:0",
                         "cache.pool_bytes=1GiB", f"cache.page_bytes={PAGE_BYTES}")
        self.options = options

    def call(self, *arguments):
        return subprocess.run([os.path.join(self.options.bin, "pyramidkv"), "--server", self.address, *arguments, "--json"],
                              capture_output=True, text=True)

    def ask(self, *arguments):
        reply = self.call(*arguments)
        if reply.returncode != 0:
            raise SystemExit(f"{' '.join(arguments)}: {reply.stderr}")
        return json.loads(reply.stdout)

    def question(self, prompt, policy):
        return ["generate", "--prompt-file", prompt, "--truncate-prompt-tokens", str(self.options.tokens),
                "--max-tokens", str(self.options.max_tokens), "--ignore-eos", *policy]

    def generate(self, prompt, policy):
        return self.ask(*self.question(prompt, policy))["cache"]

    def refuses(self, prompt, policy):
        reply = self.call(*self.question(prompt, policy))
        return reply.returncode == 1 and "CACHE_NEVER_FITS" in reply.stderr

    def estimate(self, policy):
        return self.ask("estimate", "--prompt-tokens", str(self.options.tokens), "--max-tokens", str(self.options.max_tokens), *policy)


def is_upper_bound(estimate):
    by_table = estimate["effectivePolicy"].get("funnel", {}).get("allocation") == "FUNNEL_ALLOCATION_TABLE"
    return not by_table and any(layer.get("keptMin") != layer.get("keptMax") for layer in estimate["layers"])


def measure(server, prompt, name, policy, limit=None):
    """What a reply reports, beside what was promised; `limit`: bytes that must never be exceeded."""
    estimate, cache = server.estimate(policy), server.generate(prompt, policy)
    peak, steady = int(cache["peakBytes"]), int(cache["allocatedBytes"]) + int(cache["auxiliaryBytes"])
    slack = math.inf if is_upper_bound(estimate) else ESTIMATE_SLACK
    broken = []
    for word, bill, promise in (("peak", peak, int(estimate["peakBytes"])), ("steady", steady, int(estimate["steadyBytes"]))):
        if not bill <= promise <= slack * bill:
            broken.append(f"{word} of {bill} bytes was estimated as {promise}")
    if limit is not None and peak > limit:
        broken.append(f"peak of {peak} bytes exceeds the budget of {limit}")
    return {"policy": name, "request": " ".join(policy[2:]), "peak_bytes": peak, "steady_bytes": steady,
            "estimate": "upper bound" if slack == math.inf else "exact", "broken": broken}


def measure_policy(server, prompt, name, budget):
    policy = ["--policy", name]
    rows = [measure(server, prompt, name, [*policy, "--budget", str(budget), "--scope", scope]) for scope in ("prompt", "total")]
    smallest = int(server.estimate([*policy, "--budget", "1B"])["smallestBudgetBytes"])
    limit = smallest + PAGE_BYTES
    rows.append(measure(server, prompt, name, [*policy, "--budget", f"{limit}B"], limit))
    if not server.refuses(prompt, [*policy, "--budget", f"{smallest - 1}B"]):
        rows[-1]["broken"].append(f"a budget of {smallest - 1} bytes was not refused, one below the smallest")
    return rows


def run(options, prompt):
    with contextlib.closing(Server(options)) as server:
        full = measure(server, prompt, "full", ["--policy", "full"])
        full_resident = peak_resident(server.process.pid)
    with contextlib.closing(Server(options)) as server:
        small = measure(server, prompt, "pyramidkv", ["--policy", "pyramidkv", "--budget", str(options.budget)])
        small_resident = peak_resident(server.process.pid)
        rows = []
        for policy in server.ask("policies")["policies"]:
            if policy["name"] == "full":
                continue
            print(f"memory of {policy['name']}", file=sys.stderr)
            rows += measure_policy(server, prompt, policy["name"], options.budget)
    return {"tokens": options.tokens, "budget": options.budget, "max_tokens": options.max_tokens,
            "full_peak_bytes": full["peak_bytes"], "pyramidkv_peak_bytes": small["peak_bytes"],
            "full_resident_bytes": full_resident, "pyramidkv_resident_bytes": small_resident,
            "resident_share_of_reported": (full_resident - small_resident) / (full["peak_bytes"] - small["peak_bytes"]),
            "policies": [full] + rows}


def print_tables(result):
    print(f"prompt of {result['tokens']} tokens: peak cache {result['full_peak_bytes'] / MIB:.1f} MiB under full, "
          f"{result['pyramidkv_peak_bytes'] / MIB:.1f} MiB under pyramidkv at {result['budget']}")
    print(f"peak resident memory of the server: {result['full_resident_bytes'] / MIB:.1f} and "
          f"{result['pyramidkv_resident_bytes'] / MIB:.1f} MiB: {100 * result['resident_share_of_reported']:.0f} % of the reported "
          "difference is seen from outside\n")
    print("| policy | request | peak MiB | steady MiB | estimate |\n|---|---|---|---|---|")
    for row in result["policies"]:
        print(f"| {row['policy']} | {row['request']} | {row['peak_bytes'] / MIB:.2f} | {row['steady_bytes'] / MIB:.2f} | {row['estimate']} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("bin")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--budget", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as prompt:
        words = random.Random(1)
        prompt.write(" ".join(words.choice(("river", "stone", "light", "seven", "cloud", "paper")) for _ in range(3 * options.tokens)))
        prompt.flush()
        result = run(options, prompt.name)
    print(json.dumps(result)) if options.json else print_tables(result)
    broken = [f"{row['policy']} {row['request']}: {what}" for row in result["policies"] for what in row["broken"]]
    for what in broken:
        print(f"BREACH {what}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
