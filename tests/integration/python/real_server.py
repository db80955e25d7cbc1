"""The server program with the real model, and what is needed to ask it by plain grpcio: shared by the tests beside it."""
import json
import os
import re
import signal
import subprocess
import threading
import unittest

import grpc
from pyramidkv.v1 import generation_pb2, generation_pb2_grpc
from pyramidkv.v1 import model_pb2_grpc, stats_pb2, stats_pb2_grpc

BIN, SOURCE = os.environ["PKV_BIN"], os.environ["PKV_SOURCE_DIR"]
with open(os.path.join(os.environ["PKV_GOLDEN_DIR"], "model", "prompts.json"), encoding="utf-8") as prompts_file:
    PROMPTS = json.load(prompts_file)
NEEDLE_ANSWER = "15792"
KV_BYTES_PER_TOKEN = 23040
LANES, ENTRY_BYTES = 90, 256  # layers x KV heads; key and value of a head in f16
OBSERVING = ("h2o", "snapkv", "pyramidkv", "tova", "ada_snapkv", "ada_pyramidkv", "funnel")
POLICIES = ("streaming_llm", "l2norm", "keydiff", "random", *OBSERVING)


READY = re.compile(r" ready address=(?P<address>\S+).* http=(?P<http>\S+) metrics=(?P<metrics>\S+)")
LISTENING = re.compile(r" listening, loading the model address=(?P<address>\S+)")


class Server:
    """One that is ready; with `device_after`, of the failing server, one that only listens until that pipe has been opened and closed."""

    def __init__(self, *settings, program="pyramidkv-server", device_after=None):
        command = [os.path.join(BIN, program), "--config", os.path.join(SOURCE, "config", "server.yaml")]
        table = os.path.join(SOURCE, "config", "lane_tables", os.path.basename(os.environ["PKV_MODEL"]).removesuffix(".gguf") + ".lanes")
        for setting in (f"model.path={os.environ['PKV_MODEL']}", f"model.lane_table={table}", "server.listen=127.0.0.1:0", "metrics.listen=127.0.0.1:0", *settings):
            command += ["--set", setting]
        environment = {**os.environ, "PKV_DEVICE_AFTER": device_after} if device_after else None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        for line in self.process.stdout:
            if found := (LISTENING if device_after else READY).search(line):
                vars(self).update(found.groupdict())
                break
        else:
            raise RuntimeError("the server ended before it was ready")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.channel = grpc.insecure_channel(self.address)
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.stats = stats_pb2_grpc.StatsServiceStub(self.channel)

    def stop(self):
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=600)  # a sanitizer is slow to drain
        self.process.stdout.close()
        return code

    def memory(self):
        return self.stats.GetStats(stats_pb2.GetStatsRequest()).stats.memory


def request(name, policy=None, tokens=None, **sampling):
    message = generation_pb2.GenerateRequest(
        prompt_token_ids=generation_pb2.TokenIds(ids=PROMPTS[name]),
        sampling=generation_pb2.SamplingParams(**{"temperature": 0, "max_tokens": 32, **sampling}))
    if policy:
        getattr(message.cache_policy, policy).SetInParent()
    if tokens:
        message.cache_policy.budget.tokens = tokens
    return message


class ServerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0
