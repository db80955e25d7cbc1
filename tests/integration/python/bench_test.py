"""`pyramidkv bench` against the server program with the real model: what it adds up is what the server counted; a server that
drains under load costs no request; exit codes. Counts and sums only, no times."""
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import unittest
import urllib.request

from pyramidkv.v1 import stats_pb2
from real_server import BIN, Server

CLIENT = os.path.join(BIN, "pyramidkv")
# As docs/benchmarking.md has it for several servers.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [{
        "name": [{"service": "pyramidkv.v1.GenerationService"}],
        "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"]},
    }],
}


def bench(address, *words):
    return subprocess.run([CLIENT, "--server", address, "bench", *words], capture_output=True, text=True, timeout=120)


class FolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return path


class OneServer(FolderTest):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)

    def counter(self, name, **labels):
        """The sum of a counter's series that have these labels."""
        with urllib.request.urlopen("http://" + self.server.metrics) as reply:
            text = reply.read().decode()
        total = 0
        for found in re.finditer(rf"^pyramidkv_{name}{{(.*)}} (\S+)$", text, re.M):
            if all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
                total += int(float(found[2]))
        return total

    def test_sums_are_what_the_server_counted(self):
        names = {"requests_total": "completed", "prompt_tokens_total": "prompt_tokens",
                 "generation_tokens_total": "generated_tokens", "kv_cache_evicted_entries_total": "evicted_entries"}
        policies = ("full", "snapkv", "pyramidkv", "h2o")
        before = {(name, policy): self.counter(name, policy=policy) for name in names for policy in policies}
        path = self.path("report.json")
        run = bench(self.server.address, "--rate", "20", "--requests", "24", "--warmup", "4req", "--channels", "3",
                    "--policies", "full,snapkv:32@2,pyramidkv:32,h2o:32", "--prompt-tokens", "uniform:40-120",
                    "--max-tokens", "uniform:1-12", "--json", path, "--fail-on-error", "--ttft-limit", "1000", "--seed", "3")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("open loop, 20 requests/s, Poisson, seed 3", run.stdout)
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        every = report["all"]
        self.assertEqual(every["calls"], {"all": 24, "completed": 24, "refused": 0, "failed": 0, "cancelled": 0, "dropped": 0})
        self.assertEqual(every["goodput"]["within_limits"], 24)
        self.assertEqual(report["warmup_calls"], 4)
        self.assertEqual(every["time_to_first_token_seconds"]["count"], 24)
        self.assertEqual(every["inter_token_seconds"]["count"], every["sums"]["generated_tokens"] - 24)
        self.assertEqual(sum(row["calls"]["all"] for row in report["policies"]), 24)
        for key, value in every["sums"].items():
            if isinstance(value, int):
                self.assertEqual(sum(row["sums"][key] for row in report["policies"]), value, key)
        sums = report["server_sums_with_warmup"]
        self.assertEqual(sum(row["completed"] for row in sums.values()), 28)
        for policy, row in sums.items():
            self.assertEqual(row["full_bytes"] - row["allocated_bytes"] - row["auxiliary_bytes"], row["saved_bytes"])
            for name, key in names.items():
                self.assertEqual(self.counter(name, policy=policy) - before[name, policy], row[key], (policy, name))
        self.assertGreater(sums["snapkv"]["saved_bytes"], 0)

    def test_a_full_server_refuses_and_the_reasons_are_counted(self):
        server = Server("scheduler.max_running=1", "scheduler.max_waiting=1")
        self.addCleanup(server.stop)
        run = bench(server.address, "--concurrency", "8", "--requests", "16", "--prompt-tokens", "64", "--max-tokens", "32",
                    "--json", "-")
        self.assertEqual(run.returncode, 0, run.stderr)
        every = json.loads(run.stdout)["all"]
        self.assertEqual(every["calls"]["completed"] + every["calls"]["refused"], 16)
        self.assertGreater(every["calls"]["completed"], 0)
        self.assertEqual(every["refused_by_reason"], {"QUEUE_FULL": every["calls"]["refused"]})
        self.assertGreater(every["calls"]["refused"], 0)
        run = bench(server.address, "--concurrency", "8", "--requests", "16", "--prompt-tokens", "64", "--max-tokens", "32",
                    "--fail-on-error")
        self.assertEqual(run.returncode, 1)

    def test_a_trace(self):
        trace = self.path("trace.jsonl", '{"at": 0, "prompt": "Tell me a story.", "max_tokens": 3, "policy": "snapkv:16"}\n'
                          '{"at": 10, "prompt_tokens": 50, "max_tokens": 5, "policy": "full"}\n')
        run = bench(self.server.address, "--trace", trace, "--speed", "100", "--json", "-")
        self.assertEqual(run.returncode, 0, run.stderr)
        sums = json.loads(run.stdout)["server_sums_with_warmup"]
        self.assertEqual({name: (row["completed"], row["generated_tokens"]) for name, row in sums.items()},
                         {"snapkv": (1, 3), "full": (1, 5)})
        self.assertEqual(sums["full"]["prompt_tokens"], 50)

    def test_an_interrupt_cancels_and_reports(self):
        process = subprocess.Popen([CLIENT, "--server", self.server.address, "bench", "--concurrency", "4", "--duration", "1000",
                                    "--prompt-tokens", "16", "--max-tokens", "4000", "--json", "-"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while self.server.stats.GetStats(stats_pb2.GetStatsRequest()).stats.scheduler.running < 4:
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        report = json.loads(process.communicate(timeout=60)[0])
        self.assertEqual(process.returncode, 130)
        self.assertTrue(report["interrupted"])
        self.assertEqual(report["all"]["calls"]["cancelled"], 4)
        self.assertEqual(report["all"]["calls"]["failed"], 0)

    def test_wrong_usage_ends_with_two_before_any_load(self):
        good = ["--rate", "1", "--requests", "1"]
        before = self.counter("requests_total")
        for words, says in ((["--rate", "x", "--requests", "1"], "--rate: 'x'"),
                            (good + ["--policies", "full:1"], "policy 'full:1' is refused"),
                            (good + ["--policies", "nosuch"], "no preset of the server"),
                            (good + ["--model", "nosuch"], "--model: the server has"),
                            (good + ["--prompt-file", self.path("none")], "--prompt-file: cannot read"),
                            (good + ["--prompt-file", "/"], "--prompt-file: cannot read /"),
                            (["--trace", "/"], "--trace: cannot read /"),
                            (good + ["--service-config", self.path("bad", "[]")], "is no JSON object"),
                            (good + ["--json", self.path("no/where")], "--json: cannot write"),
                            (["--trace", self.path("bad.jsonl", '{"at": 0}\n{"at": "x"}\n')], 'line 2: "at" is not')):
            run = bench(self.server.address, *words)
            self.assertEqual(run.returncode, 2, (words, run.stderr))
            self.assertIn(says, run.stderr)
        self.assertEqual(self.counter("requests_total"), before)

    def test_no_server_ends_with_three(self):
        with socket.socket() as taken:  # bound, and nobody listens
            taken.bind(("127.0.0.1", 0))
            run = bench(f"127.0.0.1:{taken.getsockname()[1]}", "--rate", "1", "--requests", "1")
        self.assertEqual(run.returncode, 3)
        self.assertIn("no server at", run.stderr)


class TwoServers(FolderTest):
    def test_one_drains_under_load_and_no_request_fails(self):
        first, second = Server("server.drain_seconds=600"), Server()  # however slow the machine
        self.addCleanup(second.stop)
        self.addCleanup(lambda: first.process.poll() is None and first.stop())
        config = self.path("service_config.json", json.dumps(SERVICE_CONFIG))
        process = subprocess.Popen(
            [CLIENT, "--server", f"ipv4:{first.address},{second.address}", "bench", "--rate", "20", "--requests", "100",
             "--channels", "2", "--service-config", config, "--policies", "full,snapkv:32", "--prompt-tokens", "48",
             "--max-tokens", "8", "--fail-on-error", "--json", "-"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while first.stats.GetStats(stats_pb2.GetStatsRequest()).stats.totals.generation_tokens < 50:
            self.assertIsNone(process.poll())
        self.assertEqual(first.stop(), 0)  # it drains, then ends
        output, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, errors)
        self.assertEqual(json.loads(output)["all"]["calls"]["completed"], 100)
        by_second = second.stats.GetStats(stats_pb2.GetStatsRequest()).stats.totals.requests_by_code["OK"]
        self.assertGreater(by_second, 0)
        self.assertLess(by_second, 100)


if __name__ == "__main__":
    unittest.main()
