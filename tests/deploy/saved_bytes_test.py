"""A real Prometheus over the real server under a load of four policies: what it adds up is what the replies said."""
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(os.environ["PKV_SOURCE_DIR"])
BIN = pathlib.Path(os.environ["PKV_BIN"])
sys.path.insert(0, str(SOURCE / "deploy" / "grafana"))
from prometheus_api import Prometheus  # noqa: E402

POLICIES = {"full": "full", "snapkv": "snapkv:64", "pyramidkv": "pyramidkv:64:total", "h2o": "h2o:12%"}
REQUESTS = 16
SCRAPE_SECONDS = 1


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@unittest.skipIf(not os.environ["PKV_MODEL"], "no model: configure with -DPKV_MODEL_PATH=$(scripts/fetch_model)")
class SavedBytesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        address, metrics = cls.start_server()
        cls.prometheus = cls.start_prometheus(metrics)
        report = cls.folder / "report.json"
        subprocess.run([BIN / "pyramidkv", "--server", address, "bench", "--rate", "4", "--requests", str(REQUESTS), "--policies",
                        ",".join(POLICIES.values()), "--prompt-tokens", "uniform:200-700", "--max-tokens", "uniform:1-24",
                        "--seed", "3", "--json", report, "--fail-on-error"],
                       check=True, capture_output=True, text=True, timeout=120)
        cls.sums = json.loads(report.read_text())["server_sums_with_warmup"]
        cls.wait(lambda: cls.value("sum(pyramidkv_requests_finished_total)") == REQUESTS, "Prometheus to see the last request")

    @classmethod
    def spawn(cls, name, command):
        with open(cls.folder / name, "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        cls.addClassCleanup(process.wait)
        cls.addClassCleanup(process.terminate)
        return process

    @classmethod
    def wait(cls, condition, what):
        for _ in range(300):
            if found := condition():
                return found
            time.sleep(0.2)
        raise AssertionError(f"waited a minute for {what}")

    @classmethod
    def start_server(cls):
        cls.spawn("server.log", [BIN / "pyramidkv-server", "--config", SOURCE / "config" / "server.yaml",
                                 *(word for setting in (f"model.path={os.environ['PKV_MODEL']}", "server.listen=127.0.0.1:0",
                                                        "metrics.listen=127.0.0.1:0") for word in ("--set", setting))])
        ready = re.compile(r" ready address=(\S+).* metrics=(\S+)/metrics")
        return cls.wait(lambda: ready.search((cls.folder / "server.log").read_text()), "the server").groups()

    @classmethod
    def start_prometheus(cls, target):
        rules = SOURCE / "deploy" / "prometheus"
        config = cls.folder / "prometheus.yaml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules.glob("*.rules.yaml")],
            "scrape_configs": [{"job_name": "pyramidkv", "static_configs": [{"targets": [target]}]}]}))
        port = free_port()
        cls.spawn("prometheus.log", ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={cls.folder / 'data'}",
                                     f"--web.listen-address=127.0.0.1:{port}"])
        prometheus = Prometheus(f"http://127.0.0.1:{port}")

        def scraped():
            try:
                return prometheus.instant("up == 1")
            except OSError:
                return None

        cls.wait(scraped, "the first scrape")
        return prometheus

    @classmethod
    def value(cls, expression):
        found = cls.prometheus.instant(expression)
        return found[0][1] if found else None

    def of_policy(self, name, policy):
        return self.value(f'sum(pyramidkv_{name}{{policy="{policy}"}})')

    def test_every_policy_was_asked(self):
        self.assertEqual(set(self.sums), set(POLICIES))
        self.assertEqual(sum(sums["completed"] for sums in self.sums.values()), REQUESTS)

    def test_saved_bytes_are_the_sum_over_the_replies(self):
        for policy, sums in self.sums.items():
            part = {name: self.of_policy(f"request_kv_cache_{name}_bytes_total", policy) for name in ("full", "allocated", "auxiliary")}
            self.assertEqual(part["full"] - part["allocated"] - part["auxiliary"], sums["saved_bytes"], policy)
            for name, bytes_ in part.items():
                self.assertEqual(bytes_, sums[f"{name}_bytes"], (policy, name))
        self.assertGreater(self.sums["pyramidkv"]["saved_bytes"], 0)
        self.assertLess(self.sums["full"]["saved_bytes"], 0)  # pages and positions cost a little

    def test_byte_seconds_are_the_sum_over_the_replies(self):
        for policy, sums in self.sums.items():
            for counter, field in (("held", "held_byte_seconds"), ("full_equivalent", "full_byte_seconds")):
                counted = self.of_policy(f"kv_cache_{counter}_byte_seconds_total", policy)
                self.assertGreater(counted, 0)
                self.assertAlmostEqual(counted / sums[field], 1, delta=1e-9, msg=(policy, field))

    def test_histograms_count_requests_and_tokens(self):
        for policy, sums in self.sums.items():
            for histogram in ("time_to_first_token_seconds", "request_duration_seconds", "request_queue_duration_seconds",
                              "request_prefill_duration_seconds", "request_kv_cache_keep_ratio", "request_kv_cache_peak_bytes",
                              "request_kv_cache_recall_ratio"):
                self.assertEqual(self.of_policy(f"{histogram}_count", policy), sums["completed"], (policy, histogram))
            self.assertEqual(self.of_policy("inter_token_latency_seconds_count", policy), sums["generated_tokens"] - sums["completed"])
            self.assertEqual(self.of_policy("prompt_tokens_total", policy), sums["prompt_tokens"])
            self.assertEqual(self.of_policy("generation_tokens_total", policy), sums["generated_tokens"])
            self.assertEqual(self.of_policy("request_kv_cache_peak_bytes_sum", policy), sums["peak_bytes"])

    def test_nothing_is_left_behind(self):
        def idle():
            return self.value("pyramidkv_requests_running + pyramidkv_requests_waiting + pyramidkv_kv_cache_reserved_bytes") == 0

        self.wait(idle, "an idle server")
        self.assertEqual(self.value("pyramidkv_kv_cache_pool_bytes - pyramidkv_kv_cache_free_bytes"), 0)
        self.assertEqual(self.value("sum(pyramidkv_kv_cache_held_bytes)"), 0)
