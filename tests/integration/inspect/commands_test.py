"""The command line against a server that only takes down what it is asked: which request the words become, what is printed, exit codes."""
import json
import os
import subprocess
import tempfile
import unittest
from concurrent import futures

import grpc
from pyramidkv.v1 import cache_pb2, generation_pb2, generation_pb2_grpc, model_pb2, model_pb2_grpc

CLIENT = os.path.join(os.environ["PKV_BIN"], "pyramidkv")


class Generation(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self):
        self.asked = []

    def GenerateStream(self, request, context):
        self.asked.append(request)
        if request.prompt == "refuse":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        yield generation_pb2.GenerateStreamResponse(start=generation_pb2.StreamStart(prompt_tokens=2))
        for text in ("an ", "answer"):
            yield generation_pb2.GenerateStreamResponse(delta=generation_pb2.StreamDelta(text=text))
        end = generation_pb2.StreamEnd(choices=[generation_pb2.Choice()])
        end.cache.layers.add(layer=0).heads.add(kv_head=0, positions=[0, 1])
        yield generation_pb2.GenerateStreamResponse(end=end)

    def EstimateCache(self, request, context):
        self.asked.append(request)
        reply = generation_pb2.EstimateCacheResponse(effective_policy=request.cache_policy, peak_bytes=3 << 20, admissible_now=True)
        reply.layers.add(layer=0, budget_tokens=77)
        return reply

    def Compare(self, request, context):
        self.asked.append(request)
        reply = generation_pb2.CompareResponse()
        reply.baseline.choices.add(text="the baseline's answer")
        for policy in request.policies:
            reply.comparisons.add(kl=[0, 0.5], kl_mean=0.5, top1_agreement=0.75, first_divergence=3, text=policy.WhichOneof("policy") + "'s answer")
        return reply


class Models(model_pb2_grpc.ModelServiceServicer):
    def ListCachePolicies(self, request, context):
        return model_pb2.ListCachePoliciesResponse(presets=[model_pb2.CachePreset(name="small")])


class CommandsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.generation = Generation()
        cls.server = grpc.server(futures.ThreadPoolExecutor(2))
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(cls.generation, cls.server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(Models(), cls.server)
        cls.port = cls.server.add_insecure_port("127.0.0.1:0")
        cls.server.start()
        cls.addClassCleanup(lambda: cls.server.stop(None).wait())

    def run_client(self, *words):
        self.generation.asked.clear()
        return subprocess.run([CLIENT, "--server", f"127.0.0.1:{self.port}", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def request_of(self, *words):
        done = self.run_client(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.generation.asked), 1)
        return self.generation.asked[0], done.stdout

    def refusal_of(self, *words):
        """Exit code and message of a command that asks the server nothing to compute."""
        done = self.run_client(*words)
        self.assertEqual((self.generation.asked, done.stdout), ([], ""))
        return done.returncode, done.stderr

    def test_generate_policy_options(self):
        request, _ = self.request_of(
            "generate", "--policy", "snapkv", "--budget", "recall:0.9", "--scope", "total", "--interval", "32", "--max-bytes", "4MiB",
            "--allow-shortfall", "--pin-system", "--param", "kernel_size=5", "--window", "16", "--pooling", "avg", "--pin", "0:4", "--pin", "7:9",
            "--stop", "end", "the prompt")
        self.assertEqual(request.prompt, "the prompt")
        self.assertEqual(list(request.sampling.stop), ["end"])
        expected = cache_pb2.CachePolicy(
            snapkv=cache_pb2.SnapKvPolicy(kernel_size=5, window_tokens=16, pooling=cache_pb2.POOLING_AVG),
            budget=cache_pb2.CacheBudget(min_recall=0.9, scope=cache_pb2.BUDGET_SCOPE_TOTAL, max_bytes=4 << 20, interval_tokens=32, allow_shortfall=True),
            pins=[cache_pb2.TokenSpan(begin=0, end=4), cache_pb2.TokenSpan(begin=7, end=9)], pin_system_message=True)
        self.assertEqual(request.cache_policy, expected)

    def test_a_name_that_is_no_policy_is_a_preset_of_the_server_or_wrong(self):
        request, _ = self.request_of("generate", "--policy", "small", "x")
        self.assertEqual(request.cache_policy.preset, "small")
        for words in (("generate", "--policy", "tiny", "x"), ("estimate", "--prompt-tokens", "9", "--policy", "tiny"),
                      ("compare", "--policies", "full,tiny", "x"), ("inspect", "--output", os.devnull, "--policy", "tiny", "x")):
            code, message = self.refusal_of(*words)
            self.assertEqual(code, 2, words)
            self.assertIn("'tiny' is no policy", message)
            self.assertIn("(small)", message)

    def test_compare_sends_the_first_policy_as_the_baseline(self):
        request, printed = self.request_of("compare", "--policies", "full,pyramidkv:128,h2o:4MiB:total,small", "--max-tokens", "9", "--stop-id", "7", "--stop-id", "8",
                                           "--system", "be brief", "--question", "why?", "--pin", "0:4", "a document")
        self.assertEqual([(m.role, m.content) for m in request.request.chat.messages], [("system", "be brief"), ("user", "a document\n\nwhy?")])
        self.assertEqual(request.request.sampling, generation_pb2.SamplingParams(temperature=0, max_tokens=9, stop_token_ids=[7, 8]))
        self.assertEqual(request.request.cache_policy, cache_pb2.CachePolicy(full=cache_pb2.FullPolicy()))
        pins = [cache_pb2.TokenSpan(begin=0, end=4)]
        self.assertEqual(list(request.policies), [
            cache_pb2.CachePolicy(pyramidkv=cache_pb2.PyramidKvPolicy(), budget=cache_pb2.CacheBudget(tokens=128), pins=pins),
            cache_pb2.CachePolicy(h2o=cache_pb2.H2oPolicy(), pins=pins,
                                  budget=cache_pb2.CacheBudget(bytes=4 << 20, scope=cache_pb2.BUDGET_SCOPE_TOTAL)),
            cache_pb2.CachePolicy(preset="small", pins=pins)])
        lines = printed.splitlines()
        self.assertTrue(lines[0].startswith("policy"))
        self.assertEqual([line.split()[0] for line in lines[1:5]], ["full", "pyramidkv:128", "h2o:4MiB:total", "small"])
        self.assertRegex(lines[2], r"0\.5000 +0\.5000 +75\.0 % +token 3$")
        self.assertIn("full:\n  the baseline's answer\n\npyramidkv:128 departs at token 3:\n", printed)
        self.assertRegex(printed, r"\n  >>the baseline's answer +\| >>pyramidkv's answer\n")

    def test_compare_as_json(self):
        _, printed = self.request_of("compare", "--json", "--policies", "full,tova", "x")
        reply = json.loads(printed)
        self.assertEqual(reply["comparisons"][0]["text"], "tova's answer")
        self.assertEqual(len(printed.splitlines()), 1)

    def test_estimate(self):
        request, printed = self.request_of("estimate", "--prompt-tokens", "8000", "--max-tokens", "64", "--policy", "keydiff", "--budget", "12%")
        self.assertEqual((request.prompt_tokens, request.max_tokens), (8000, 64))
        self.assertEqual(request.cache_policy, cache_pb2.CachePolicy(keydiff=cache_pb2.KeyDiffPolicy(), budget=cache_pb2.CacheBudget(keep_ratio=0.12)))
        self.assertRegex(printed, r"^prompt of 8000 tokens, answer of up to 64\nkeydiff, budget 12 % of the prompt\n")
        self.assertRegex(printed, r"peak, prefill included +3\.00 MiB\n")
        self.assertNotIn("77", printed)
        request, printed = self.request_of("estimate", "--prompt-tokens", "8000", "--report", "layers")
        self.assertEqual(request.max_tokens, 256)
        self.assertFalse(request.HasField("cache_policy"))
        self.assertIn("77 entries", printed)
        _, printed = self.request_of("estimate", "--prompt-tokens", "8000", "--json")
        self.assertEqual(json.loads(printed)["peakBytes"], str(3 << 20))

    def test_inspect_asks_for_positions_and_does_without_texts(self):
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "page.html")
            request, printed = self.request_of("inspect", "--output", page, "--policy", "tova", "x")
            self.assertEqual(request.cache_report, cache_pb2.CACHE_REPORT_DETAIL_POSITIONS)
            self.assertFalse(request.output.echo or request.output.logprobs)
            self.assertEqual(printed, "an answer\n")
            with open(page, encoding="utf-8") as file:
                self.assertIn('"answer":"an answer"', file.read())
            self.assertIn("without the prompt's text", self.run_client("inspect", "--output", page, "x").stderr)
            self.assertNotIn("without", self.run_client("inspect", "--output", page, "--no-tokens", "x").stderr)
            self.assertEqual(self.run_client("inspect", "--output", os.path.join(folder, "no", "page.html"), "x").returncode, 2)

    def test_exit_codes(self):
        self.assertEqual(self.run_client("generate", "refuse").returncode, 1)
        for words in (("generate", "--policy", "h2o", "--param", "scope=sum", "x"), ("generate", "--policy", "h2o", "--param", "score=median", "x"),
                      ("generate", "--beta", "2", "x"), ("generate", "--policy", "snapkv", "--beta", "2", "x"), ("generate", "--pin", "4", "x"),
                      ("generate", "--budget", "much", "x"), ("generate", "--scope", "all", "x"), ("compare", "--policies", "full", "x"),
                      ("compare", "--policies", "full,snapkv:x", "x"), ("compare", "x"), ("compare", "--policies", "full,tova"),
                      ("estimate",), ("estimate", "--prompt-tokens", "-1"), ("estimate", "--prompt-tokens", "9", "--report", "positions")):
            self.assertEqual(self.refusal_of(*words)[0], 2, words)


if __name__ == "__main__":
    unittest.main()
