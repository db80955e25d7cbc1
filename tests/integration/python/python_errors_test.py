"""Every refusal of the contract, one by one, as plain grpcio sees it: code, reason, field, figures, and when to come back."""
import math
import os
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

import grpc
from pyramidkv.v1 import cache_pb2, error_details_pb2, generation_pb2, stats_pb2
from real_server import BIN, Server, request

ALICE, BOB, PROBE = (f"{name}-0123456789abcdef0123456789" for name in ("alice", "bob", "probe"))


def hash_of(key):
    return subprocess.run([os.path.join(BIN, "pyramidkv-server"), "--hash-key"], input=key + "\n", capture_output=True, text=True, check=True).stdout.strip()


class Refusal:
    def __init__(self, error):
        trailers = dict(error.trailing_metadata() or ())
        self.code, self.reason, self.fields, self.figures, self.retry = error.code().name, "", [], {}, 0
        self.pushback = trailers.get("grpc-retry-pushback-ms")
        for item in error_details_pb2.ErrorStatus.FromString(trailers.get("grpc-status-details-bin", b"")).details:
            kind = item.type_url.rsplit(".", 1)[-1]
            detail = getattr(error_details_pb2, kind).FromString(item.value)
            if kind == "ErrorInfo":
                assert detail.domain == "pyramidkv"
                self.reason, self.figures = detail.reason, dict(detail.metadata)
            elif kind == "BadRequest":
                self.fields = [violation.field for violation in detail.field_violations]
            elif kind == "RetryInfo":
                self.retry = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9


class ErrorsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", suffix=".keys", delete=False) as keys:
            keys.write(f"{hash_of(ALICE)} alice scope=generate,stats\n{hash_of(BOB)} bob max_requests=1\n{hash_of(PROBE)} probe scope=stats\n")
        cls.keys = keys.name
        cls.server = Server(f"server.api_keys={keys.name}", "cache.pool_bytes=16MiB", "scheduler.max_running=1", "scheduler.max_waiting=1",
                            "server.max_message_bytes=64KiB", "server.drain_seconds=2", "policies.disabled=random")

    @classmethod
    def tearDownClass(cls):
        os.unlink(cls.keys)
        if cls.server.process.poll() is None:
            assert cls.server.stop() == 0

    def setUp(self):
        self.rest()

    def rest(self):
        """Until nothing of earlier calls is left, which would be in the queue's way."""
        for _ in range(1200):
            with urllib.request.urlopen(f"http://{self.server.metrics}", timeout=60) as reply:
                if b"\npyramidkv_open_calls 0\n" in reply.read():
                    return
            time.sleep(0.05)
        self.fail("calls stay open")

    def ask(self, message, key=ALICE, **options):
        return self.server.generation.Generate(message, metadata=[("authorization", f"Bearer {key}")], **options)

    def stream(self, message, key=ALICE):
        call = self.server.generation.GenerateStream(message, metadata=[("authorization", f"Bearer {key}")])
        next(call)
        return call

    def refusal(self, call, *arguments, **options):
        with self.assertRaises(grpc.RpcError) as raised:
            call(*arguments, **options)
        return Refusal(raised.exception)

    def assert_refused(self, message, code, reason, field=None, figures=(), call=None):
        refusal = self.refusal(call or self.ask, message)
        self.assertEqual((refusal.code, refusal.reason), (code, reason))
        if field is not None:
            self.assertEqual(refusal.fields, [field])
        self.assertLessEqual(set(figures), set(refusal.figures))
        return refusal

    def test_input(self):
        invalid = ("INVALID_ARGUMENT", "BAD_INPUT")
        self.assert_refused(generation_pb2.GenerateRequest(), *invalid, "prompt")
        self.assert_refused(generation_pb2.GenerateRequest(prompt=""), *invalid, "prompt")
        self.assert_refused(generation_pb2.GenerateRequest(prompt_token_ids=generation_pb2.TokenIds(ids=[5, 1 << 31])), *invalid, "prompt_token_ids.ids[1]")
        self.assert_refused(generation_pb2.GenerateRequest(prompt="x", request_id="a\nb"), *invalid, "request_id")
        raw = self.server.channel.unary_unary("/pyramidkv.v1.GenerationService/Generate", request_serializer=bytes)
        authorised = lambda data: raw(data, metadata=[("authorization", f"Bearer {ALICE}")])
        self.assert_refused(b"\x1a\x02a\xff", *invalid, "prompt", call=authorised)
        self.assert_refused(b"\x1a\x7fshort", *invalid, call=authorised)
        self.assert_refused(b"\x1a\x01x\x60\x01", "UNIMPLEMENTED", "UNIMPLEMENTED", "12", call=authorised)

    def test_sampling(self):
        for name, values in {"temperature": (-1, math.nan, math.inf, 101), "top_p": (0, 1.5, math.nan), "min_p": (1, -0.5, math.nan),
                             "repetition_penalty": (0, math.nan, 1000), "frequency_penalty": (-3, math.nan), "presence_penalty": (3, math.inf), "n": (0, 2)}.items():
            for value in values:
                with self.subTest(name, value=value):
                    self.assert_refused(request("short_chat", **{name: value}), "INVALID_ARGUMENT", "BAD_SAMPLING", f"sampling.{name}")

    def test_cache_policies(self):
        def policy(name, tokens=None, ratio=None, **parameters):
            message = request("short_chat", name, tokens)
            if ratio is not None:
                message.cache_policy.budget.keep_ratio = ratio
            for key, value in parameters.items():
                setattr(getattr(message.cache_policy, name), key, value)
            return message
        bad = ("INVALID_ARGUMENT", "BAD_CACHE_POLICY")
        self.assert_refused(policy("snapkv", 8, window_tokens=8), *bad, "cache_policy.budget.tokens")
        self.assert_refused(policy("snapkv", ratio=1.5), *bad, "cache_policy.budget.keep_ratio")
        self.assert_refused(policy("snapkv", ratio=0), *bad, "cache_policy.budget.keep_ratio")
        self.assert_refused(policy("snapkv", ratio=math.nan), *bad, "cache_policy.budget.keep_ratio")
        self.assert_refused(policy("snapkv", 20, kernel_size=4), *bad, "cache_policy.snapkv.kernel_size")
        self.assert_refused(policy("pyramidkv", 20, beta=0), *bad, "cache_policy.pyramidkv.beta")
        self.assert_refused(policy("full", 20), *bad, "cache_policy.budget")
        self.assert_refused(policy("random", 20), "FAILED_PRECONDITION", "POLICY_DISABLED", "cache_policy.random")

    def test_lengths_and_bytes(self):
        refusal = self.assert_refused(request("short_chat", max_tokens=9000), "INVALID_ARGUMENT", "CONTEXT_TOO_LONG", "sampling.max_tokens", ("max", "got"))
        self.assertEqual(refusal.figures["max"], "8192")
        refusal = self.assert_refused(request("gpl3_text"), "FAILED_PRECONDITION", "CACHE_NEVER_FITS", None, ("peak_bytes", "pool_bytes"))
        self.assertEqual(int(refusal.figures["pool_bytes"]), 16 << 20)
        self.assertGreater(int(refusal.figures["peak_bytes"]), 16 << 20)
        large = request("short_chat", max_tokens=400)
        large.cache_report = cache_pb2.CACHE_REPORT_DETAIL_POSITIONS
        self.assert_refused(large, "INVALID_ARGUMENT", "REPLY_TOO_LARGE", "cache_report", ("max", "got"))
        chatty = request("short_chat", max_tokens=400)
        chatty.output.top_logprobs = 20
        self.assert_refused(chatty, "INVALID_ARGUMENT", "REPLY_TOO_LARGE", "output.top_logprobs", ("max", "got"))

    def test_recall_out_of_reach(self):
        message = request("short_chat", "snapkv", max_tokens=2)
        message.cache_policy.budget.min_recall = 0.999
        message.cache_policy.budget.max_bytes = 1
        refusal = self.assert_refused(message, "FAILED_PRECONDITION", "CACHE_NEVER_FITS", "cache_policy.budget.max_bytes", ("smallest_budget_bytes",))
        message.cache_policy.budget.max_bytes = int(refusal.figures["smallest_budget_bytes"])
        self.assert_refused(message, "FAILED_PRECONDITION", "RECALL_NOT_REACHED", "cache_policy.budget.min_recall", ("reached", "layer"))

    def test_what_is_not_there(self):
        urgent = request("short_chat")
        urgent.priority = -101
        self.assert_refused(urgent, "INVALID_ARGUMENT", "BAD_INPUT", "priority")
        other = request("short_chat")
        other.model = "another" * 2000  # metadata beyond 8 KB would reach nobody
        self.assert_refused(other, "NOT_FOUND", "NOT_FOUND", "model")
        preset = request("short_chat")
        preset.cache_policy.preset = "none of them"
        self.assert_refused(preset, "NOT_FOUND", "NOT_FOUND", "cache_policy.preset")

    def test_keys(self):
        self.assertEqual(self.refusal(self.server.generation.Generate, request("short_chat")).reason, "UNAUTHENTICATED")
        self.assertEqual(self.refusal(self.ask, request("short_chat"), key="wrong").code, "UNAUTHENTICATED")
        self.assertEqual(self.refusal(self.ask, request("short_chat"), key=PROBE).code, "PERMISSION_DENIED")
        statistics = self.refusal(self.server.stats.GetStats, stats_pb2.GetStatsRequest(), metadata=[("authorization", f"Bearer {BOB}")])
        self.assertEqual(statistics.code, "PERMISSION_DENIED")
        running = self.stream(request("short_chat", max_tokens=400, ignore_eos=True), key=BOB)
        refusal = self.refusal(self.ask, request("short_chat"), key=BOB)
        self.assertEqual((refusal.code, refusal.reason), ("RESOURCE_EXHAUSTED", "KEY_LIMIT"))
        self.assertGreater(refusal.retry, 0)
        running.cancel()

    def test_a_full_queue_says_when_to_come_back(self):
        running = self.stream(request("short_chat", max_tokens=400, ignore_eos=True))
        waiting = self.server.generation.Generate.future(request("short_chat"), metadata=[("authorization", f"Bearer {ALICE}")])
        time.sleep(0.5)
        begin = time.monotonic()
        refusal = self.refusal(self.ask, request("short_chat"))
        self.assertEqual((refusal.code, refusal.reason), ("RESOURCE_EXHAUSTED", "QUEUE_FULL"))
        self.assertGreater(refusal.retry, 0)
        self.assertEqual(int(refusal.pushback), int(refusal.retry * 1000))
        self.assertLess(time.monotonic() - begin, 30)
        running.cancel()
        self.assertGreater(waiting.result().usage.completion_tokens, 0)

    def test_deadlines(self):
        endless = request("short_chat", max_tokens=400, ignore_eos=True)
        running = self.stream(endless)
        self.assertEqual(self.refusal(self.ask, endless, timeout=0.3).code, "DEADLINE_EXCEEDED")  # in the queue
        running.cancel()
        self.rest()
        self.assertEqual(self.refusal(self.ask, endless, timeout=0.3).code, "DEADLINE_EXCEEDED")

    def test_zz_draining(self):
        running = self.stream(request("short_chat", max_tokens=600, ignore_eos=True))
        self.server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        refusal = self.refusal(self.ask, request("short_chat"))
        self.assertEqual((refusal.code, refusal.reason), ("UNAVAILABLE", "DRAINING"))
        self.assertGreater(refusal.retry, 0)
        try:
            list(running)
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(self.server.process.wait(timeout=60), 0)
        self.server.channel.close()
        self.server.process.stdout.close()


if __name__ == "__main__":
    unittest.main()
