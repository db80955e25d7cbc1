#!/usr/bin/env python3
"""Peak memory seen from outside: two fresh servers answer the same long prompt, one under `full`, one under `pyramidkv`, and the
difference of their peak resident memory is compared with the difference of the peaks they report.

    memory.py MODEL.gguf BIN_FOLDER [--tokens 8000] [--budget 128] [--json]
"""
import argparse
import json
import os
import random
import re
import subprocess
import tempfile


def peak_resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024


def measure(options, policy, prompt):
    command = [os.path.join(options.bin, "pyramidkv-server"), "--set", f"model.path={options.model}",
               "--set", "server.listen=127.0.0.1:0", "--set", "metrics.listen=127.0.0.1:0", "--set", "cache.pool_bytes=1GiB"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in server.stdout:
            if found := re.search(r" ready address=(\S+)", line):
                address = found.group(1)
                break
        else:
            raise SystemExit("the server ended before it was ready")
        reply = subprocess.run([os.path.join(options.bin, "pyramidkv"), "--server", address, "generate", "--prompt-file", prompt,
                                "--truncate-prompt-tokens", str(options.tokens), "--max-tokens", "8", "--ignore-eos", "--json"] + policy,
                               check=True, capture_output=True, text=True)
        return peak_resident(server.pid), json.loads(reply.stdout)["cache"]
    finally:
        server.terminate()
        server.communicate()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("bin")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--budget", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as prompt:
        words = random.Random(1)
        prompt.write(" ".join(words.choice(("river", "stone", "light", "seven", "cloud", "paper")) for _ in range(3 * options.tokens)))
        prompt.flush()
        full_resident, full = measure(options, ["--policy", "full"], prompt.name)
        small_resident, small = measure(options, ["--policy", "pyramidkv", "--budget", str(options.budget)], prompt.name)
    reported = int(full["peakBytes"]) - int(small["peakBytes"])
    seen = full_resident - small_resident
    result = {"tokens": options.tokens, "budget": options.budget, "full_peak_bytes": int(full["peakBytes"]),
              "pyramidkv_peak_bytes": int(small["peakBytes"]), "full_resident_bytes": full_resident,
              "pyramidkv_resident_bytes": small_resident, "resident_share_of_reported": seen / reported}
    if options.json:
        return print(json.dumps(result))
    mib = 1 << 20
    print(f"prompt of {options.tokens} tokens: peak cache {result['full_peak_bytes'] / mib:.1f} MiB under full, "
          f"{result['pyramidkv_peak_bytes'] / mib:.1f} MiB under pyramidkv at {options.budget}")
    print(f"peak resident memory of the server: {full_resident / mib:.1f} and {small_resident / mib:.1f} MiB: "
          f"{100 * seen / reported:.0f} % of the reported difference is seen from outside")


if __name__ == "__main__":
    main()
