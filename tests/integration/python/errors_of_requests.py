"""What is refused for what it asks, and for whose key it has."""
import math
import os
import subprocess
import tempfile

from pyramidkv.v1 import cache_pb2, generation_pb2, stats_pb2
from real_server import BIN, Server, request
from refusals import RefusalTest, refusal_of

ALICE, BOB, PROBE = (f"{name}-0123456789abcdef0123456789" for name in ("alice", "bob", "probe"))
INVALID = "INVALID_ARGUMENT"
NEVER_FITS = ("peak_bytes", "pool_bytes", "workspace_bytes", "workspace_limit_bytes")


def hash_of(key):
    return subprocess.run([os.path.join(BIN, "pyramidkv-server"), "--hash-key"], input=key + "\n", capture_output=True, text=True, check=True).stdout.strip()


def bearer(key):
    return [("authorization", f"Bearer {key}")]


class ErrorsOfRequests(RefusalTest):
    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", suffix=".keys", delete=False) as keys:
            keys.write(f"{hash_of(ALICE)} alice scope=generate,stats\n{hash_of(BOB)} bob max_requests=1\n{hash_of(PROBE)} probe scope=stats\n")
        cls.keys = keys.name
        cls.server = Server(f"server.api_keys={keys.name}", "cache.pool_bytes=16MiB", "server.max_message_bytes=64KiB", "policies.disabled=random")

    @classmethod
    def tearDownClass(cls):
        os.unlink(cls.keys)
        assert cls.server.stop() == 0

    def ask(self, message, key=ALICE):
        return self.server.generation.Generate(message, metadata=bearer(key))

    def assert_refused(self, message, *expected, call=None):
        return self.assert_refusal(refusal_of(call or self.ask, message), *expected)

    def test_input(self):
        self.assert_refused(generation_pb2.GenerateRequest(), INVALID, "BAD_INPUT", "prompt")
        self.assert_refused(generation_pb2.GenerateRequest(prompt=""), INVALID, "BAD_INPUT", "prompt")
        self.assert_refused(generation_pb2.GenerateRequest(prompt_token_ids=generation_pb2.TokenIds(ids=[5, 1 << 31])), INVALID, "BAD_INPUT", "prompt_token_ids.ids[1]")
        self.assert_refused(generation_pb2.GenerateRequest(prompt="x", request_id="a\nb"), INVALID, "BAD_INPUT", "request_id")
        urgent = request("short_chat")
        urgent.priority = -101
        self.assert_refused(urgent, INVALID, "BAD_INPUT", "priority")
        raw = self.server.channel.unary_unary("/pyramidkv.v1.GenerationService/Generate", request_serializer=bytes)
        authorised = lambda data: raw(data, metadata=bearer(ALICE))
        self.assert_refused(b"\x1a\x02a\xff", INVALID, "BAD_INPUT", "prompt", call=authorised)
        self.assert_refused(b"\x1a\x7fshort", INVALID, "BAD_INPUT", call=authorised)
        self.assert_refused(b"\x1a\x01x\x60\x01", "UNIMPLEMENTED", "UNIMPLEMENTED", "12", call=authorised)

    def test_sampling(self):
        for name, values in {"temperature": (-1, math.nan, math.inf, 101), "top_p": (0, 1.5, math.nan), "min_p": (1, -0.5, math.nan),
                             "repetition_penalty": (0, math.nan, 1000), "frequency_penalty": (-3, math.nan), "presence_penalty": (3, math.inf), "n": (0, 2)}.items():
            for value in values:
                with self.subTest(name, value=value):
                    self.assert_refused(request("short_chat", **{name: value}), INVALID, "BAD_SAMPLING", f"sampling.{name}")

    def test_cache_policies(self):
        def policy(name, tokens=None, ratio=None, **parameters):
            message = request("short_chat", name, tokens)
            if ratio is not None:
                message.cache_policy.budget.keep_ratio = ratio
            for key, value in parameters.items():
                setattr(getattr(message.cache_policy, name), key, value)
            return message
        bad = (INVALID, "BAD_CACHE_POLICY")
        self.assert_refused(policy("snapkv", 8, window_tokens=8), *bad, "cache_policy.budget.tokens")
        self.assert_refused(policy("snapkv", ratio=1.5), *bad, "cache_policy.budget.keep_ratio")
        self.assert_refused(policy("snapkv", ratio=0), *bad, "cache_policy.budget.keep_ratio")
        self.assert_refused(policy("snapkv", ratio=math.nan), *bad, "cache_policy.budget.keep_ratio")
        self.assert_refused(policy("snapkv", 20, kernel_size=4), *bad, "cache_policy.snapkv.kernel_size")
        self.assert_refused(policy("pyramidkv", 20, beta=0), *bad, "cache_policy.pyramidkv.beta")
        self.assert_refused(policy("full", 20), *bad, "cache_policy.budget")
        self.assert_refused(policy("random", 20), "FAILED_PRECONDITION", "POLICY_DISABLED", "cache_policy.random")

    def test_lengths_and_bytes(self):
        refusal = self.assert_refused(request("short_chat", max_tokens=9000), INVALID, "CONTEXT_TOO_LONG", "sampling.max_tokens", ("max", "got"))
        self.assertEqual(refusal.figures["max"], "8192")
        refusal = self.assert_refused(request("gpl3_text"), "FAILED_PRECONDITION", "CACHE_NEVER_FITS", None, NEVER_FITS)
        self.assertEqual(int(refusal.figures["pool_bytes"]), 16 << 20)
        self.assertGreater(int(refusal.figures["peak_bytes"]), 16 << 20)
        large = request("short_chat", max_tokens=400)
        large.cache_report = cache_pb2.CACHE_REPORT_DETAIL_POSITIONS
        self.assert_refused(large, INVALID, "REPLY_TOO_LARGE", "cache_report", ("max", "got"))
        chatty = request("short_chat", max_tokens=400)
        chatty.output.top_logprobs = 20
        self.assert_refused(chatty, INVALID, "REPLY_TOO_LARGE", "output.top_logprobs", ("max", "got"))

    def test_recall_out_of_reach(self):
        message = request("short_chat", "snapkv", max_tokens=2)
        message.cache_policy.budget.min_recall = 0.999
        message.cache_policy.budget.max_bytes = 1
        refusal = self.assert_refused(message, "FAILED_PRECONDITION", "CACHE_NEVER_FITS", "cache_policy.budget.max_bytes",
                                      (*NEVER_FITS, "smallest_budget_bytes", "smallest_budget_tokens", "largest_budget_tokens"))
        message.cache_policy.budget.max_bytes = int(refusal.figures["smallest_budget_bytes"])
        refusal = self.assert_refused(message, "FAILED_PRECONDITION", "RECALL_NOT_REACHED", "cache_policy.budget.min_recall", ("reached", "layer"))
        self.assertLess(float(refusal.figures["reached"]), 0.999)

    def test_what_is_not_there(self):
        other = request("short_chat")
        other.model = "another" * 2000  # metadata beyond 8 KB would reach nobody
        self.assert_refused(other, "NOT_FOUND", "NOT_FOUND", "model")
        preset = request("short_chat")
        preset.cache_policy.preset = "none of them"
        self.assert_refused(preset, "NOT_FOUND", "NOT_FOUND", "cache_policy.preset")

    def test_keys(self):
        message = request("short_chat")
        self.assert_refused(message, "UNAUTHENTICATED", "UNAUTHENTICATED", call=self.server.generation.Generate)
        self.assert_refused(message, "UNAUTHENTICATED", "UNAUTHENTICATED", call=lambda asked: self.ask(asked, key="wrong"))
        refusal = self.assert_refused(message, "PERMISSION_DENIED", "PERMISSION_DENIED", None, ("key", "scope"), call=lambda asked: self.ask(asked, key=PROBE))
        self.assertEqual(refusal.figures, {"key": "probe", "scope": "generate"})
        refusal = self.assert_refused(stats_pb2.GetStatsRequest(), "PERMISSION_DENIED", "PERMISSION_DENIED", None, ("key", "scope"),
                                      call=lambda asked: self.server.stats.GetStats(asked, metadata=bearer(BOB)))
        self.assertEqual(refusal.figures, {"key": "bob", "scope": "stats"})
        hasty = request("short_chat")
        hasty.priority = -1
        self.assert_refused(hasty, "PERMISSION_DENIED", "PERMISSION_DENIED", "priority", ("key",))
        running = self.server.generation.GenerateStream(request("short_chat", max_tokens=400, ignore_eos=True), metadata=bearer(BOB))
        next(running)
        refusal = self.assert_refused(message, "RESOURCE_EXHAUSTED", "KEY_LIMIT", None, ("key", "max"), call=lambda asked: self.ask(asked, key=BOB))
        self.assertEqual(refusal.figures, {"key": "bob", "max": "1"})
        running.cancel()
