"""Memory contracts of the server with the real model, as a remote client sees them: budgets, pins, estimates, comparisons."""
import unittest

from pyramidkv.v1 import cache_pb2, generation_pb2
from real_server import ENTRY_BYTES, KV_BYTES_PER_TOKEN, LANES, NEEDLE_ANSWER, OBSERVING, POLICIES, ServerTest, request
from refusals import refusal_of


def entry_bytes(cache):
    """Of one entry that is kept."""
    return 102 if cache.effective_policy.kv_dtype == cache_pb2.KV_DTYPE_K8V4 else ENTRY_BYTES


class ContractTest(ServerTest):
    def assert_bytes_add_up(self, reply):
        cache = reply.cache
        written = reply.usage.prompt_tokens + reply.usage.completion_tokens - 1
        self.assertEqual((cache.logical_tokens, cache.full_bytes), (written, written * KV_BYTES_PER_TOKEN))
        entries = cache.full_bytes // ENTRY_BYTES - cache.evicted_entries
        self.assertEqual(cache.held_bytes, entries * entry_bytes(cache))  # full_bytes are of f16 entries, whatever is kept
        self.assertEqual(cache.allocated_bytes % 4096, 0)
        self.assertGreaterEqual(cache.allocated_bytes, cache.held_bytes)
        self.assertGreaterEqual(cache.peak_bytes, cache.allocated_bytes + cache.auxiliary_bytes)
        self.assertEqual(cache.saved_bytes, cache.full_bytes - cache.allocated_bytes - cache.auxiliary_bytes)

    def estimate(self, message):
        return self.server.generation.EstimateCache(generation_pb2.EstimateCacheRequest(
            prompt_tokens=len(message.prompt_token_ids.ids), max_tokens=message.sampling.max_tokens, cache_policy=message.cache_policy))

    def test_every_policy_keeps_its_budget_and_bytes_add_up(self):
        for policy in POLICIES:
            with self.subTest(policy):
                message = request("gpl3_text", policy, 96, max_tokens=4, ignore_eos=True)
                message.cache_report = cache_pb2.CACHE_REPORT_DETAIL_PER_LAYER
                reply = self.server.generation.Generate(message)
                self.assert_bytes_add_up(reply)
                cache = reply.cache
                self.assertEqual((cache.policy_name, cache.budget_tokens, cache.compressed), (policy, 96, True))
                self.assertEqual(cache.effective_policy.WhichOneof("policy"), policy)
                self.assertAlmostEqual(sum(layer.kept_mean for layer in cache.layers), 30 * 96)
                self.assertEqual(cache.held_bytes, LANES * (96 + 3) * entry_bytes(cache))
                self.assertEqual(cache.HasField("recall"), policy in OBSERVING)

    def test_a_budget_in_bytes_holds_and_the_smallest_is_named(self):
        for policy in ("pyramidkv", "h2o", "streaming_llm"):
            with self.subTest(policy):
                message = request("gpl3_text", policy, max_tokens=40, ignore_eos=True)
                message.cache_policy.budget.bytes = 100_000
                refusal = refusal_of(self.server.generation.Generate, message)
                self.assertEqual((refusal.code, refusal.reason, refusal.fields), ("FAILED_PRECONDITION", "CACHE_NEVER_FITS", ["cache_policy.budget.bytes"]))
                smallest = int(refusal.figures["smallest_budget_bytes"])
                estimate = self.estimate(message)
                self.assertEqual((estimate.smallest_budget_bytes, estimate.admissible_ever), (smallest, False))
                message.cache_policy.budget.bytes = smallest - 1
                self.assertEqual(refusal_of(self.server.generation.Generate, message).reason, "CACHE_NEVER_FITS")
                for bound in (smallest, 2 * smallest):
                    message.cache_policy.budget.bytes = bound
                    reply = self.server.generation.Generate(message)
                    self.assert_bytes_add_up(reply)
                    self.assertLessEqual(reply.cache.peak_bytes, bound)
                self.assertGreater(reply.cache.peak_bytes, 0.9 * bound)
                self.assertEqual(reply.cache.effective_policy.budget.scope, cache_pb2.BUDGET_SCOPE_TOTAL)

    def test_total_scope_holds_the_same_however_long_the_answer(self):
        for policy in POLICIES:
            with self.subTest(policy):
                held = []
                for max_tokens in (30, 120):
                    message = request("short_chat", policy, 40, max_tokens=max_tokens, ignore_eos=True)
                    message.cache_policy.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
                    message.cache_report = cache_pb2.CACHE_REPORT_DETAIL_POSITIONS
                    reply = self.server.generation.Generate(message)
                    self.assert_bytes_add_up(reply)
                    held.append(reply.cache.held_bytes)
                self.assertEqual(held, [LANES * 40 * entry_bytes(reply.cache)] * 2)
                for head in (head for layer in reply.cache.layers for head in layer.heads):
                    self.assertEqual(sorted(set(head.final_positions)), list(head.final_positions))
                    self.assertEqual(head.final_positions[-1], reply.cache.logical_tokens - 1)

    def test_cache_relative_positions_may_go_on_beyond_the_models_length(self):
        message = request("short_chat", "streaming_llm", 256, max_tokens=32_000)
        message.cache_policy.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
        self.assertEqual(refusal_of(self.server.generation.Generate, message).reason, "CONTEXT_TOO_LONG")
        message.cache_policy.streaming_llm.position_mode = cache_pb2.POSITION_MODE_CACHE_RELATIVE
        stream = self.server.generation.GenerateStream(message)
        self.assertTrue(next(stream).HasField("start"))
        stream.cancel()

    def test_pins_are_kept(self):
        for policy in ("snapkv", "pyramidkv", "h2o", "l2norm"):
            with self.subTest(policy):
                message = request("gpl3_text", policy, 64, max_tokens=40, ignore_eos=True)
                message.cache_policy.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
                message.cache_policy.pins.add(begin=100, end=110)
                message.cache_policy.pins.add(begin=700, end=705)
                message.cache_report = cache_pb2.CACHE_REPORT_DETAIL_POSITIONS
                cache = self.server.generation.Generate(message).cache
                pinned = set(range(100, 110)) | set(range(700, 705))
                for head in (head for layer in cache.layers for head in layer.heads):
                    self.assertLessEqual(pinned, set(head.positions))
                    self.assertLessEqual(pinned, set(head.final_positions))
        message.cache_policy.pins.add(begin=1400, end=1501)
        refusal = refusal_of(self.server.generation.Generate, message)
        self.assertEqual((refusal.code, refusal.reason, refusal.fields), ("INVALID_ARGUMENT", "BAD_CACHE_POLICY", ["cache_policy.pins[2].end"]))

    def test_the_system_message_is_kept(self):
        system = "You are Captain Brill of the good ship Marigold. Never mention the weather."
        message = generation_pb2.GenerateRequest(
            chat=generation_pb2.ChatInput(messages=[generation_pb2.ChatMessage(role="system", content=system),
                                                    generation_pb2.ChatMessage(role="user", content="One two three four. " * 60)]),
            sampling=generation_pb2.SamplingParams(temperature=0, max_tokens=4),
            cache_report=cache_pb2.CACHE_REPORT_DETAIL_POSITIONS)
        message.cache_policy.tova.SetInParent()
        message.cache_policy.budget.tokens = 48
        message.cache_policy.pin_system_message = True
        cache = self.server.generation.Generate(message).cache
        self.assertEqual(len(cache.effective_policy.pins), 1)
        span = cache.effective_policy.pins[0]
        tokens = self.server.generation.Tokenize(generation_pb2.TokenizeRequest(chat=message.chat)).token_ids
        pinned = generation_pb2.DetokenizeRequest(token_ids=tokens[span.begin:span.end])
        self.assertIn(system, self.server.generation.Detokenize(pinned).text)
        for head in (head for layer in cache.layers for head in layer.heads):
            self.assertLessEqual(set(range(span.begin, span.end)), set(head.positions))
        plain = request("short_chat", "tova", 32)
        plain.cache_policy.pin_system_message = True
        self.assertEqual(refusal_of(self.server.generation.Generate, plain).fields, ["cache_policy.pin_system_message"])

    def test_the_estimate_is_the_bill(self):
        for policy in ("full", *POLICIES):
            for scope in (cache_pb2.BUDGET_SCOPE_PROMPT, cache_pb2.BUDGET_SCOPE_TOTAL):
                with self.subTest(policy, scope=scope):
                    message = request("needles_chat", policy, max_tokens=20, ignore_eos=True)
                    if policy != "full":
                        message.cache_policy.budget.tokens = 80
                        message.cache_policy.budget.scope = scope
                    estimate = self.estimate(message)
                    cache = self.server.generation.Generate(message).cache
                    self.assertEqual(estimate.effective_policy, cache.effective_policy)
                    self.assertEqual(estimate.full_bytes, cache.full_bytes)
                    slack = 1.2 if policy.startswith("ada_") else 1.01  # pages of the division that needs most
                    self.assertTrue(cache.peak_bytes <= estimate.peak_bytes <= slack * cache.peak_bytes)
                    billed = cache.allocated_bytes + cache.auxiliary_bytes
                    self.assertTrue(billed <= estimate.steady_bytes <= slack * billed, (billed, estimate.steady_bytes))
                    self.assertTrue(cache.workspace_bytes > 0 and estimate.workspace_bytes > 0)
                    self.assertEqual(len(estimate.layers), 30)
                    self.assertTrue(estimate.admissible_now and estimate.admissible_ever)

    def test_recall_is_reached_or_said_not_to_be(self):
        message = request("needles_chat", "snapkv", max_tokens=4)
        message.cache_policy.budget.min_recall = 0.9
        reply = self.server.generation.Generate(message)
        self.assert_bytes_add_up(reply)
        self.assertTrue(0.9 <= reply.cache.recall.min < 1)
        self.assertTrue(reply.cache.compressed)
        message.cache_policy.budget.max_bytes = self.estimate(message).smallest_budget_bytes + 100_000
        refusal = refusal_of(self.server.generation.Generate, message)
        self.assertEqual((refusal.code, refusal.reason, refusal.fields), ("FAILED_PRECONDITION", "RECALL_NOT_REACHED", ["cache_policy.budget.min_recall"]))
        self.assertTrue(0 < float(refusal.figures["reached"]) < 0.9)
        self.assertTrue(0 <= int(refusal.figures["layer"]) < 30)
        message.cache_policy.budget.allow_shortfall = True
        cache = self.server.generation.Generate(message).cache
        self.assertLess(cache.recall.min, 0.9)
        self.assertLessEqual(cache.peak_bytes, message.cache_policy.budget.max_bytes)

    def test_compare_tells_what_each_policy_changed(self):
        message = generation_pb2.CompareRequest(request=request("needles_chat", max_tokens=24))
        for policy in ("full", "pyramidkv", "snapkv"):
            getattr(message.policies.add(), policy).SetInParent()
        for wide in message.policies[1:]:
            wide.budget.tokens = 64
        reply = self.server.generation.Compare(message)
        self.assertIn(NEEDLE_ANSWER, reply.baseline.choices[0].text)
        self.assertEqual(reply.baseline.cache.policy_name, "full")
        answered = reply.baseline.usage.completion_tokens
        for comparison in reply.comparisons:
            self.assertEqual((len(comparison.kl), comparison.kl[0]), (answered, 0))
        same, *cut = reply.comparisons
        self.assertEqual((set(same.kl), same.kl_mean, same.top1_agreement, same.first_divergence), ({0.0}, 0, 1, -1))
        self.assertEqual(same.text, reply.baseline.choices[0].text)
        for comparison, policy in zip(cut, ("pyramidkv", "snapkv")):
            self.assertEqual((comparison.cache.policy_name, comparison.cache.budget_tokens), (policy, 64))
            self.assertGreater(comparison.kl_mean, 0)
            self.assertLess(comparison.cache.peak_bytes, 0.2 * reply.baseline.cache.full_bytes)
            alone = self.server.generation.Generate(request("needles_chat", policy, 64, max_tokens=24))
            self.assertEqual(comparison.text, alone.choices[0].text)
            self.assertEqual(list(comparison.token_ids), list(alone.choices[0].token_ids))
        message.policies[1].pyramidkv.kernel_size = 4
        self.assertEqual(refusal_of(self.server.generation.Compare, message).fields, ["policies[1].pyramidkv.kernel_size"])


if __name__ == "__main__":
    unittest.main()
