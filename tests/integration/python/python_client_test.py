"""The server program with the real model, over real gRPC, asked by plain grpcio: what a remote client sees."""
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import unittest
import urllib.request

import grpc
from pyramidkv.v1 import cache_pb2, error_details_pb2, generation_pb2, generation_pb2_grpc
from pyramidkv.v1 import model_pb2, model_pb2_grpc, stats_pb2, stats_pb2_grpc

BIN, SOURCE = os.environ["PKV_BIN"], os.environ["PKV_SOURCE_DIR"]
with open(os.path.join(os.environ["PKV_GOLDEN_DIR"], "model", "prompts.json"), encoding="utf-8") as prompts_file:
    PROMPTS = json.load(prompts_file)
NEEDLE_ANSWER = "15792"
KV_BYTES_PER_TOKEN = 23040


class Server:
    def __init__(self, *settings):
        command = [os.path.join(BIN, "pyramidkv-server"), "--config", os.path.join(SOURCE, "config", "server.yaml")]
        for setting in (f"model.path={os.environ['PKV_MODEL']}", "server.listen=127.0.0.1:0", "metrics.listen=127.0.0.1:0", *settings):
            command += ["--set", setting]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if found := re.search(r" ready address=(\S+).* metrics=(\S+)", line):
                self.address, self.metrics = found.groups()
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
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
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


def error_of(call, *arguments):
    """(status code name, ErrorInfo or None, field violations) of a call that must fail."""
    try:
        call(*arguments)
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
        info, fields = None, []
        if details:
            status = error_details_pb2.ErrorStatus.FromString(details)
            for item in status.details:
                if item.type_url == "type.googleapis.com/google.rpc.ErrorInfo":
                    info = error_details_pb2.ErrorInfo.FromString(item.value)
                elif item.type_url == "type.googleapis.com/google.rpc.BadRequest":
                    fields = [v.field for v in error_details_pb2.BadRequest.FromString(item.value).field_violations]
        return error.code().name, info, fields
    raise AssertionError("the call did not fail")


class PythonClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_full_cache_finds_the_needle_and_reports_itself(self):
        reply = self.server.generation.Generate(request("needles_chat"))
        self.assertIn(NEEDLE_ANSWER, reply.choices[0].text)
        cache = reply.cache
        written = reply.usage.prompt_tokens + reply.usage.completion_tokens - 1
        self.assertEqual((cache.policy_name, cache.logical_tokens), ("full", written))
        self.assertEqual(cache.full_bytes, written * KV_BYTES_PER_TOKEN)
        self.assertEqual(cache.held_bytes, cache.full_bytes)
        self.assertEqual(cache.saved_bytes, cache.full_bytes - cache.allocated_bytes - cache.auxiliary_bytes)
        self.assertLess(cache.saved_bytes, 0)
        self.assertFalse(cache.compressed)

    def test_pyramidkv_saves_what_it_reports(self):
        message = request("gpl2_chat", "pyramidkv", 128)
        message.cache_report = cache_pb2.CACHE_REPORT_DETAIL_POSITIONS
        reply = self.server.generation.Generate(message)
        cache = reply.cache
        self.assertTrue(cache.compressed)
        self.assertEqual(cache.budget_tokens, 128)
        self.assertEqual(len(cache.layers), 30)
        kept = [len(head.positions) for layer in cache.layers for head in layer.heads]
        self.assertEqual(sum(kept), 30 * 3 * 128)
        self.assertEqual(cache.layers[0].kept_max, 242)
        for layer in cache.layers:
            for head in layer.heads:
                self.assertEqual(sorted(set(head.positions)), list(head.positions))
                self.assertEqual(list(head.positions)[-8:], list(range(2636, 2644)))
        self.assertEqual(cache.held_bytes, (sum(kept) + 90 * (reply.usage.completion_tokens - 1)) * 256)
        self.assertGreater(cache.saved_bytes, 0.9 * cache.full_bytes)
        self.assertLess(cache.peak_bytes, 0.2 * cache.full_bytes)
        self.assertTrue(0 < cache.recall.min <= cache.recall.mean < 1)
        self.assertEqual(cache.effective_policy.pyramidkv.beta, 20)

    def test_stream_has_one_start_valid_text_and_one_end(self):
        message = request("needles_chat", "snapkv", 600)
        message.output.return_token_ids = True
        events = list(self.server.generation.GenerateStream(message))
        kinds = [event.WhichOneof("event") for event in events]
        self.assertEqual((kinds[0], kinds[-1], kinds.count("start"), kinds.count("end")), ("start", "end", 1, 1))
        unary = self.server.generation.Generate(message)
        self.assertEqual("".join(e.delta.text for e in events if e.HasField("delta")), unary.choices[0].text)
        self.assertEqual([i for e in events for i in e.delta.token_ids], list(unary.choices[0].token_ids))
        self.assertEqual(events[0].start.prompt_tokens, len(PROMPTS["needles_chat"]))
        self.assertEqual(events[-1].end.cache.held_bytes, unary.cache.held_bytes)

    def test_chat_and_tokenize_agree_with_the_golden_prompt(self):
        text = "What is the number of the lemon-lamp?"
        chat = generation_pb2.ChatInput(messages=[generation_pb2.ChatMessage(role="user", content=text)])
        tokens = self.server.generation.Tokenize(generation_pb2.TokenizeRequest(chat=chat))
        self.assertEqual(list(tokens.token_ids)[:21], PROMPTS["needles_chat"][:21])
        self.assertTrue(tokens.rendered_text.startswith("<|im_start|>system\n"))
        back = self.server.generation.Detokenize(generation_pb2.DetokenizeRequest(token_ids=tokens.token_ids))
        self.assertEqual(back.text, tokens.rendered_text)

    def test_echo_scores_the_prompt(self):
        message = request("short_chat", max_tokens=0)
        message.output.echo = message.output.logprobs = True
        choice = self.server.generation.Generate(message).choices[0]
        self.assertEqual(len(choice.logprobs), len(PROMPTS["short_chat"]))
        self.assertEqual(choice.logprobs[0].logprob, 0)
        with open(os.path.join(os.environ["PKV_GOLDEN_DIR"], "model", "full.json"), encoding="utf-8") as file:
            expected = json.load(file)["short_chat"]["nll_sum"]
        self.assertAlmostEqual(-sum(t.logprob for t in choice.logprobs), expected, delta=0.02 * expected)

    def test_what_is_wrong_is_named(self):
        generate = self.server.generation.Generate
        wrong_window = request("short_chat", "snapkv", 8)
        code, info, fields = error_of(generate, wrong_window)
        self.assertEqual((code, info.reason, fields), ("INVALID_ARGUMENT", "BAD_CACHE_POLICY", ["cache_policy.budget.tokens"]))
        hot = request("short_chat", temperature=-1)
        code, info, fields = error_of(generate, hot)
        self.assertEqual((code, info.reason, fields), ("INVALID_ARGUMENT", "BAD_SAMPLING", ["sampling.temperature"]))
        code, info, _ = error_of(generate, request("short_chat", max_tokens=9000))
        self.assertEqual((code, info.reason), ("INVALID_ARGUMENT", "CONTEXT_TOO_LONG"))
        self.assertEqual(info.metadata["max"], "8192")
        code, info, _ = error_of(generate, generation_pb2.GenerateRequest())
        self.assertEqual((code, info.reason), ("INVALID_ARGUMENT", "BAD_INPUT"))
        unknown = request("short_chat")
        unknown.model = "another"
        self.assertEqual(error_of(generate, unknown)[0], "NOT_FOUND")

    def test_what_is_not_built_is_refused_by_name(self):
        generate = self.server.generation.Generate
        later = {
            "cache_policy.h2o": request("short_chat", "h2o", 64),
            "cache_policy.streaming_llm": request("short_chat", "streaming_llm", 64),
        }
        total, by_bytes, pinned, packed = (request("short_chat", "pyramidkv", 64) for _ in range(4))
        total.cache_policy.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
        by_bytes.cache_policy.budget.bytes = 1 << 20
        pinned.cache_policy.pins.add(begin=0, end=4)
        packed.cache_policy.kv_dtype = cache_pb2.KV_DTYPE_K8V4
        recall = request("short_chat", "pyramidkv")
        recall.cache_policy.budget.min_recall = 0.9
        later.update({"cache_policy.budget.scope": total, "cache_policy.budget.bytes": by_bytes, "cache_policy.pins": pinned,
                      "cache_policy.kv_dtype": packed, "cache_policy.budget.min_recall": recall})
        for field, message in later.items():
            with self.subTest(field):
                code, _, fields = error_of(generate, message)
                self.assertEqual((code, fields), ("UNIMPLEMENTED", [field]))

    def test_one_cancelled_the_other_unchanged_and_the_pages_are_back(self):
        alone = self.server.generation.Generate(request("needles_chat", "snapkv", 256)).choices[0].text
        cancelled = self.server.generation.GenerateStream(request("gpl3_text", ignore_eos=True, max_tokens=2000))
        for event in cancelled:
            if event.HasField("delta"):
                break
        answer = self.server.generation.Generate.future(request("needles_chat", "snapkv", 256))
        time.sleep(0.3)
        self.assertGreater(self.server.memory().kv_live_bytes, 1500 * KV_BYTES_PER_TOKEN)
        cancelled.cancel()
        self.assertEqual(answer.result().choices[0].text, alone)
        deadline = time.monotonic() + 30
        while self.server.memory().kv_live_bytes and time.monotonic() < deadline:
            time.sleep(0.05)
        memory = self.server.memory()
        self.assertEqual((memory.kv_live_bytes, memory.kv_reserved_bytes), (0, 0))
        self.assertEqual(memory.kv_pool_bytes, memory.kv_live_bytes + memory.kv_free_bytes)

    def test_models_and_policies(self):
        model = self.server.models.ListModels(model_pb2.ListModelsRequest()).models[0]
        self.assertEqual((model.architecture, model.weights, model.layers, model.kv_heads), ("llama", "Q4_1", 30, 3))
        self.assertEqual(model.kv_bytes_per_token, KV_BYTES_PER_TOKEN)
        policies = self.server.models.ListCachePolicies(model_pb2.ListCachePoliciesRequest())
        self.assertTrue({"full", "snapkv", "pyramidkv"} <= {policy.name for policy in policies.policies})
        self.assertTrue(policies.default_policy.HasField("full"))

    def test_metrics_are_what_prometheus_expects(self):
        self.server.generation.Generate(request("gpl3_text", "pyramidkv", 64))
        with urllib.request.urlopen("http://" + self.server.metrics) as reply:
            text = reply.read().decode()
        for name in ("kv_cache_pool_bytes", "kv_cache_free_bytes", 'kv_cache_held_bytes{policy="pyramidkv"}',
                     'kv_cache_saved_bytes{policy="full"}', "requests_running"):
            self.assertIn("pyramidkv_" + name, text)
        promtool = shutil.which("promtool")
        self.assertIsNotNone(promtool, "promtool is missing: scripts/install_packages installs it")
        checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))

    def test_our_own_command_line(self):
        client = [os.path.join(BIN, "pyramidkv"), "--server", self.server.address]
        run = lambda *words: subprocess.run(client + list(words), capture_output=True, text=True)
        answer = run("generate", "--policy", "pyramidkv", "--budget", "25%", "--max-tokens", "4", "--json", "Once upon a time there was a")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertEqual(json.loads(answer.stdout)["cache"]["policyName"], "pyramidkv")
        self.assertEqual(run("generate", "--policy", "nothing", "x").returncode, 2)
        refused = run("generate", "--policy", "snapkv", "--budget", "8", "x")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("cache_policy.budget.tokens", refused.stderr)
        nowhere = subprocess.run([client[0], "--server", "127.0.0.1:1", "models"], capture_output=True, text=True)
        self.assertEqual(nowhere.returncode, 3)
        self.assertIn("no server at 127.0.0.1:1", nowhere.stderr)


if __name__ == "__main__":
    unittest.main()
