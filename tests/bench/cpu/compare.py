#!/usr/bin/env python3
"""Prefill and decode rates of pkv-speed, of llama.cpp and, where asked for, of PyTorch, on the same weights, threads and machine, in
turns: each round runs every program once, one at a time. Prints medians, ratios of each round, and how near the machine's limits
that is, which are measured in the same run.

    compare.py MODEL.gguf BIN_FOLDER [--q4-0 FILE] [--torch PYTHON] [--threads N] [--prompts 512,2048,8000] [--rounds 3]
               [--minutes 15] [--isa PATH] [--fast] [--json] [--page FILE]

--q4-0: the same weights as Q4_0, llama.cpp's best format for many CPUs. Rounds end early where one more would take longer than
--minutes in all. --isa: we go no higher than this path; the interpreter's llama.cpp has to be one that is built so, too. --fast: we
read prompts in the fast mode (runtime.compute). --page: the table goes into this page of docs/results, in place of the one it has of
this model, path and mode.
"""
import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import time

import limits
import page

HERE = os.path.dirname(os.path.abspath(__file__))
DECODE, SEQUENCES, SEQUENCE_TOKENS, KEPT_SHARE = 48, 16, 2048, 0.12
POOL_MIB = 2048  # taken as it is used

# phase: prefill or decode. policy: "uniform" keeps as much in every lane and did not choose it. entries: what a sequence keeps of its prompt in each lane.
Case = collections.namedtuple("Case", "phase policy prompt entries sequences decode")


def kept(policy, prompt):
    return prompt if policy == "full" else round(KEPT_SHARE * prompt)


def case(phase, policy, prompt, decode, sequences=1):
    return Case(phase, policy, prompt, kept(policy, prompt), sequences, decode)


def child(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


class Ours:
    name = "ours"

    def __init__(self, options):
        self.options, self.about = options, {}

    def command(self, program):
        isa = ["--isa", self.options.isa] if self.options.isa else []
        return [os.path.join(self.options.bin, program), "--model", self.options.model, "--threads", str(self.options.threads), *isa]

    def speed(self, policy, prompts):
        budget = [] if policy == "full" else ["--policy", policy, "--budget", str(kept(policy, prompts[0]))]
        fast = ["--fast"] if self.options.fast else []
        self.about = child(self.command("pkv-speed") + fast + ["--decode", str(self.options.decode), "--prompts",
                                                        ",".join(map(str, prompts)), "--pool-mib", str(POOL_MIB)] + budget)
        return self.about["runs"]

    def many(self, entries):
        return child(self.command("pkv-decode-rate") + ["--tokens", str(self.options.sequence_tokens), "--shares", str(entries),
                                                        "--sequences", str(self.options.sequences), "--steps",
                                                        str(self.options.decode)])["tokens_per_second"]

    def run(self):
        prompts, decode = self.options.prompts, self.options.decode
        rates = {}
        for policy, lengths in (("full", [1, *prompts]), ("pyramidkv", prompts[-1:]), ("snapkv", prompts[-1:])):
            for length, run in self.speed(policy, lengths).items():
                for phase in ("prefill", "decode"):
                    rates[case(phase, policy, int(length), decode)] = run[phase + "_tokens_per_second"]
        for policy in ("full", "uniform") if self.options.sequences else ():
            key = case("decode", policy, self.options.sequence_tokens, decode, self.options.sequences)
            rates[key] = self.many(key.entries)
        return rates


class Llama:
    """A fault of llama.cpp where it packs weights for AMX ends its process: then it runs without packed weights."""

    def __init__(self, options, model, name):
        self.options, self.model, self.name, self.version, self.plain = options, model, name, "", []

    def run(self):
        options = self.options
        command = [sys.executable, os.path.join(HERE, "llama_peer.py"), self.model, "--threads", str(options.threads), "--prompts",
                   ",".join(map(str, [1, *options.prompts])), "--decode", str(options.decode), "--sequences", str(options.sequences),
                   "--sequence-tokens", str(options.sequence_tokens)]
        try:
            found = child(command + self.plain)
        except RuntimeError as failure:
            if self.plain:
                raise
            print(f"{failure}\nllama.cpp once more, without packed weights", file=sys.stderr)
            self.plain = ["--plain"]
            found = child(command + self.plain)
        self.version = found["version"] + (", without packed weights (it fails with them)" if self.plain else "")
        return peer_rates(found, options)


class Torch:
    name = "PyTorch bf16"

    def __init__(self, options):
        self.options, self.version = options, ""

    def run(self):
        options = self.options
        found = child([options.torch, os.path.join(HERE, "torch_peer.py"), options.model, "--threads", str(options.threads),
                       "--prompts", ",".join(map(str, options.prompts))])
        self.version = found["version"]
        return peer_rates(found, options)


def peer_rates(found, options):
    """A peer keeps its whole cache, so what it does at a length stands against every policy."""
    rates = {}
    for length, run in found["runs"].items():
        for phase in ("prefill", "decode"):
            for policy in ("full", "pyramidkv", "snapkv"):
                rates[case(phase, policy, int(length), options.decode)] = run[phase]
    for policy in ("full", "uniform") if "many" in found else ():
        rates[case("decode", policy, options.sequence_tokens, options.decode, options.sequences)] = found["many"]
    return rates


def run_rounds(programs, options):
    """[{program's name: {case: tokens a second}}], at least one round."""
    rounds, begin = [], time.monotonic()
    while True:
        started = time.monotonic()
        print(f"round {len(rounds) + 1} of {options.rounds}", file=sys.stderr)
        rounds.append({program.name: program.run() for program in programs})
        now = time.monotonic()
        if len(rounds) >= options.rounds or (now - begin) + (now - started) > 60 * options.minutes:
            return rounds


def summary(rounds, model, rates):
    """A row for each case of ours: medians, the ratios to every peer, and the share of what the machine's limits allow."""
    rows = []
    for key in sorted(rounds[0]["ours"], key=lambda one: (one.sequences, one.phase == "decode", one.policy != "full", one.policy, one.prompt)):
        if key.phase == "prefill" and key.prompt == 1:
            continue  # one token: nothing that anybody waits for
        ours = [found["ours"][key] for found in rounds]
        peers = {}
        for name in rounds[0]:
            if name == "ours" or key not in rounds[0][name]:
                continue
            theirs = [found[name][key] for found in rounds]
            ratios = [mine / other for mine, other in zip(ours, theirs)]
            peers[name] = {"tokens_per_second": statistics.median(theirs), "ratio": statistics.median(ratios),
                           "ratio_min": min(ratios), "ratio_max": max(ratios)}
        possible = limits.most(key, model, rates)
        row = {"policy": key.policy, "prompt_tokens": key.prompt, "entries": key.entries, "sequences": key.sequences,
               "phase": key.phase, "tokens_per_second": statistics.median(ours), "peers": peers,
               "share_of_limit": statistics.median(ours) / possible if possible else None}
        if "llama.cpp" in peers:
            row["ratio_to_llama_cpp"] = peers["llama.cpp"]["ratio"]
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("bin")
    parser.add_argument("--q4-0", dest="q4_0")
    parser.add_argument("--torch", metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompts", type=lambda text: sorted(map(int, text.split(","))), default=[512, 2048, 8000])
    parser.add_argument("--decode", type=int, default=DECODE)
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help="0: one request at a time alone")
    parser.add_argument("--sequence-tokens", type=int, default=SEQUENCE_TOKENS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--isa", default="")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--page")
    options = parser.parse_args()

    ours = Ours(options)
    programs = [Llama(options, options.model, "llama.cpp"), ours]
    if options.q4_0:
        programs.append(Llama(options, options.q4_0, "llama.cpp Q4_0"))
    if options.torch:
        programs.append(Torch(options))
    busy_before = os.getloadavg()[0]
    rates = limits.measured(options.bin, options.threads, options.isa)
    begin = time.monotonic()
    rounds = run_rounds(programs, options)
    report = {"model": os.path.basename(options.model), "isa": options.isa, "fast": options.fast, "backend": ours.about["backend"], "threads": options.threads,
              "rounds": len(rounds), "minutes": (time.monotonic() - begin) / 60, "load_before": busy_before,
              "peers": {program.name: program.version for program in programs if program is not ours},
              "limits": rates, "rows": summary(rounds, ours.about["model"], rates)}
    print(json.dumps(report) if options.json else page.text(report))
    if options.page:
        page.put(options.page, report)
        print(f"the table is in {options.page}", file=sys.stderr)


if __name__ == "__main__":
    main()
