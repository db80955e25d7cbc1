#!/usr/bin/env python3
"""Prefill and decode rates of pkv-speed and of llama.cpp (PyPI's llama-cpp-python) on the same file, threads and machine, in turns.

    compare_llama.py MODEL.gguf BIN_FOLDER [--threads 2] [--rounds 3] [--json]

Prints medians of the paired ratios. `llama` and `ours` are separate processes, one at a time.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

PROMPTS = (512, 2048, 8000)
DECODE = 48
KEEP = {"full": [], "pyramidkv 12 %": ["--policy", "pyramidkv", "--budget", "960"], "snapkv 12 %": ["--policy", "snapkv", "--budget", "960"]}


def run_llama(model, threads):
    """In this process: called by a child, so that nothing else runs beside it."""
    import ctypes
    import time

    import llama_cpp as llama
    import numpy

    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama.llama_log_set(silent, None)
    handle = llama.llama_model_load_from_file(model.encode(), llama.llama_model_default_params())
    settings = llama.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = max(PROMPTS) + 256, 2048, 512
    settings.n_threads = settings.n_threads_batch = threads
    settings.flash_attn_type = 1
    context = llama.llama_init_from_model(handle, settings)
    batch = llama.llama_batch_init(2048, 0, 1)
    rng = numpy.random.default_rng(0)

    def feed(tokens, first):
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = int(token), first + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i == len(tokens) - 1
        if llama.llama_decode(context, batch) != 0:
            sys.exit("llama_decode failed")

    rates = {}
    feed(rng.integers(100, 40000, 256), 0)
    for count in PROMPTS:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        tokens = rng.integers(100, 40000, count)
        start = time.perf_counter()
        for first in range(0, count, 2048):
            feed(tokens[first : first + 2048], first)
        middle = time.perf_counter()
        for i in range(DECODE):
            feed(rng.integers(100, 40000, 1), count + i)
        rates[str(count)] = {"prefill": count / (middle - start), "decode": DECODE / (time.perf_counter() - middle)}
    print(json.dumps(rates))


def child(command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("bin")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isa", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--llama-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.llama_only:
        return run_llama(options.model, options.threads)

    ratios, rates, backend = {}, {}, ""
    speed = [os.path.join(options.bin, "pkv-speed"), "--model", options.model, "--threads", str(options.threads),
             "--decode", str(DECODE), "--prompts", ",".join(map(str, PROMPTS))] + (["--isa", options.isa] if options.isa else [])
    for round_number in range(options.rounds):
        print(f"round {round_number + 1} of {options.rounds}", file=sys.stderr)
        llama = child([sys.executable, __file__, options.model, options.bin, "--threads", str(options.threads), "--llama-only"])
        for count, rate in llama.items():
            for phase, value in rate.items():
                rates.setdefault(("llama.cpp full", count, phase), []).append(value)
        for name, policy in KEEP.items():
            ours = child(speed + policy)
            backend = ours["backend"]
            for count, run in ours["runs"].items():
                for phase in ("prefill", "decode"):
                    value = run[phase + "_tokens_per_second"]
                    rates.setdefault((name, count, phase), []).append(value)
                    ratios.setdefault((name, count, phase), []).append(value / llama[count][phase])

    rows = [{"policy": name, "prompt_tokens": int(count), "phase": phase, "ratio_to_llama_cpp": statistics.median(values),
             "ratio_min": min(values), "ratio_max": max(values), "tokens_per_second": statistics.median(rates[name, count, phase]),
             "llama_tokens_per_second": statistics.median(rates["llama.cpp full", count, phase])}
            for (name, count, phase), values in ratios.items()]
    if options.json:
        return print(json.dumps({"backend": backend, "threads": options.threads, "rows": rows}))
    print(f"ours: {backend}; {options.threads} threads; medians of {options.rounds} rounds in turns with llama.cpp (full cache)")
    print(f"{'policy':16} {'prompt':>7} {'phase':8} {'ours':>9} {'llama.cpp':>10} {'ratio':>6}  (min to max)")
    for row in rows:
        print(f"{row['policy']:16} {row['prompt_tokens']:7} {row['phase']:8} {row['tokens_per_second']:9.1f} "
              f"{row['llama_tokens_per_second']:10.1f} {row['ratio_to_llama_cpp']:6.2f}  ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})")


if __name__ == "__main__":
    main()
