"""The server program with the real model, over real gRPC, asked by plain grpcio: what a remote client sees."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.request

from pyramidkv.v1 import cache_pb2, generation_pb2, model_pb2
from real_server import BIN, KV_BYTES_PER_TOKEN, NEEDLE_ANSWER, POLICIES, PROMPTS, ServerTest, request


class PythonClientTest(ServerTest):
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

    def test_entries_of_codes_hold_their_share_of_the_bytes(self):
        halves, codes = (request("needles_chat", "snapkv", 128, ignore_eos=True) for _ in range(2))
        codes.cache_policy.kv_dtype = cache_pb2.KV_DTYPE_K8V4
        full, small = (self.server.generation.Generate(message).cache for message in (halves, codes))
        self.assertEqual(small.effective_policy.kv_dtype, cache_pb2.KV_DTYPE_K8V4)
        self.assertEqual(small.evicted_entries, full.evicted_entries)
        self.assertEqual(small.held_bytes * 256, full.held_bytes * 102)
        self.assertGreaterEqual(2.5, full.allocated_bytes / small.allocated_bytes)
        self.assertGreater(full.allocated_bytes / small.allocated_bytes, 2)

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
        self.assertEqual({"full", *POLICIES}, {policy.name for policy in policies.policies})
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

    def test_our_own_inspect_and_estimate_see_the_prompt_as_the_model_does(self):
        client = [os.path.join(BIN, "pyramidkv"), "--server", self.server.address]
        run = lambda *words: subprocess.run(client + list(words), capture_output=True, text=True, check=False)
        question, options = "Grüße \U0001f389\U0001f3f4 日本 </script>\u202e\x1e\n\n 1234567", ("--max-tokens", "4", "--system", "Be brief.")
        rendered = self.server.generation.Tokenize(generation_pb2.TokenizeRequest(chat=generation_pb2.ChatInput(messages=[
            generation_pb2.ChatMessage(role="system", content="Be brief."), generation_pb2.ChatMessage(role="user", content=question)])))
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "page.html")
            shown = run("inspect", "--output", page, "--policies", "full,snapkv:16", "--question", question, *options)
            self.assertEqual(shown.returncode, 0, shown.stderr)
            with open(page, encoding="utf-8") as file:
                data = json.loads(re.search(r'id="data">(.*?)</script>', file.read()).group(1))
        self.assertEqual("".join(data["tokens"]), rendered.rendered_text)
        self.assertEqual(len(data["tokens"]), len(rendered.token_ids))
        self.assertEqual([view["promptTokens"] for view in data["views"]], [len(rendered.token_ids)] * 2)
        self.assertTrue(all(sum(head["runs"][1::2]) == 16 for layer in data["views"][1]["layers"] for head in layer["heads"]))
        estimate = run("estimate", "--policies", "full,snapkv:16", "--question", question, *options)
        self.assertRegex(estimate.stdout, rf"^prompt of {len(rendered.token_ids)} tokens, answer of up to 4\n")
        self.assertRegex(run("estimate", "--prompt-tokens", "8000").stdout, r"answer of up to 192 \(what the model's 8192 leave")

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
        health = run("health", "--service", "pyramidkv.v1.GenerationService")
        self.assertEqual((health.returncode, health.stdout), (0, "SERVING\n"), health.stderr)
        watch = run("stats", "--watch", "--interval", "50ms", "--count", "3")
        self.assertEqual(watch.returncode, 0, watch.stderr)
        self.assertEqual([line.split()[1] for line in watch.stdout.splitlines()], ["state=SERVING"] * 3)
        nowhere = subprocess.run([client[0], "--server", "127.0.0.1:1", "models"], capture_output=True, text=True)
        self.assertEqual(nowhere.returncode, 3)
        self.assertIn("no server at 127.0.0.1:1", nowhere.stderr)


if __name__ == "__main__":
    unittest.main()
