#!/usr/bin/env python3
"""How long a running answer waits for its next token while a long prompt is read: the pauses (99th percentile, largest) quiet
and beside a prompt of each policy, and their ratios. The answer streams over HTTP; everything else is the server's own. Exit code 1
where a ratio of the 99th percentiles is above 2.

    pauses.py MODEL.gguf pyramidkv-server [--tokens 8000] [--seconds 4] [--case NAME]... [--json]
"""
import argparse
import http.client
import json
import random
import sys
import threading
import time

from started_server import StartedServer

# Beside ordinary prompts those that cost most: rows that are observed, and every row.
CASES = {
    "full": {"full": {}},
    "snapkv": {"snapkv": {}, "budget": {"tokens": 128}},
    "h2o": {"h2o": {}, "budget": {"tokens": 128}},
    "funnel": {"funnel": {}, "budget": {"tokens": 128}},
    "snapkv W 6000": {"snapkv": {"window_tokens": 6000}, "budget": {"tokens": 7000}},
    "funnel 6000 rows": {"funnel": {"observed_rows": 6000}, "budget": {"tokens": 128}},
}
ALLOWED = 2  # of the 99th percentile beside a prompt to the quiet one


class Server(StartedServer):
    def __init__(self, options):
        super().__init__(options.server, options.model, "http.listen=127.0.0.1:0", "metrics.listen=")

    def post(self, body):
        connection = http.client.HTTPConnection(self.http, timeout=300)
        connection.request("POST", "/v1/completions", json.dumps({"model": "", **body}), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(reply.read().decode())
        return reply


class Stream(threading.Thread):
    """An answer that goes on until it is left; when each of its tokens came."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.times, self.left = [], False
        self.reply = server.post({"prompt": [100, 200, 300], "max_tokens": 7000, "stream": True,
                                  "temperature": 0, "ignore_eos": True})
        self.start()

    def run(self):
        for line in self.reply:
            if line.startswith(b"data: "):
                self.times.append(time.perf_counter())
            if self.left:
                break
        self.reply.close()

    def pauses(self, begin, end):
        times = [at for at in self.times if begin <= at <= end]
        return sorted(1000 * (b - a) for a, b in zip(times, times[1:]))


def summary(pauses):
    return {"pauses": len(pauses), "p50_ms": pauses[len(pauses) // 2], "p99_ms": pauses[int(0.99 * len(pauses))],
            "largest_ms": pauses[-1]}


def measure(server, policy, options):
    stream = Stream(server)
    time.sleep(0.5)
    begin = time.perf_counter()
    time.sleep(options.seconds)
    quiet_end = time.perf_counter()
    words = random.Random(7)
    prompt = [words.randrange(100, 40000) for _ in range(options.tokens)]
    server.post({"prompt": prompt, "max_tokens": 1, "ignore_eos": True, "cache_policy": policy}).read()
    end = time.perf_counter()
    stream.left = True
    stream.join()
    quiet, beside = summary(stream.pauses(begin, quiet_end)), summary(stream.pauses(quiet_end, end))
    return {"quiet": quiet, "beside": beside, "prompt_seconds": end - quiet_end, "p99_ratio": beside["p99_ms"] / quiet["p99_ms"]}


def show(results):
    print(f"{'prompt':18} {'quiet p99':>10} {'beside p99':>10} {'ratio':>6} {'largest':>8} {'prompt':>7}")
    for case, found in results.items():
        print(f"{case:18} {found['quiet']['p99_ms']:7.1f} ms {found['beside']['p99_ms']:7.1f} ms {found['p99_ratio']:6.2f} "
              f"{found['beside']['largest_ms']:5.0f} ms {found['prompt_seconds']:5.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("server")
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    server = Server(options)
    try:
        results = {case: measure(server, CASES[case], options) for case in options.case or CASES}
    finally:
        server.close()
    above = [f"{case}: {found['p99_ratio']:.2f}" for case, found in results.items() if found["p99_ratio"] > ALLOWED]
    if options.json:
        print(json.dumps(results))
    else:
        show(results)
    return f"above {ALLOWED} times the quiet pauses: {', '.join(above)}" if above else 0


if __name__ == "__main__":
    sys.exit(main())
