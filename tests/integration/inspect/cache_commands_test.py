"""What estimate, compare, inspect and policies print, and how they end: a table of command lines, one a line, against a server that says
what a test wants. Its tokens are bytes, so that characters of several tokens are among them."""
import json
import os
import re
import shlex
import subprocess
import tempfile
import unittest
from concurrent import futures

import grpc
from pyramidkv.v1 import cache_pb2, generation_pb2, generation_pb2_grpc, model_pb2, model_pb2_grpc

CLIENT = os.path.join(os.environ["PKV_BIN"], "pyramidkv")
MODEL_LENGTH, POOL = 8192, 6 << 20
TEMPLATE = "<user>%s<assistant>"


def budget_of(policy, prompt):
    """Entries that a policy keeps of a prompt."""
    kind, budget = policy.WhichOneof("policy"), policy.budget
    if kind in (None, "full"):
        return prompt
    return {"tokens": budget.tokens, "bytes": budget.bytes >> 14, "keep_ratio": int(budget.keep_ratio * prompt)}.get(budget.WhichOneof("amount"), 100)


def smallest_bytes(request):
    """As the server: a budget that covers the prompt alone leaves the answer to come on top, and one in bytes covers both where it says no scope."""
    budget = request.cache_policy.budget
    total = budget.scope == cache_pb2.BUDGET_SCOPE_TOTAL or (not budget.scope and budget.HasField("bytes"))
    return 700_000 if total else 700_000 + (request.max_tokens << 11)


class Generation(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self):
        self.asked = []

    @staticmethod
    def text_of(request):
        if request.WhichOneof("input") == "chat":
            return TEMPLATE % "".join(f"[{message.role}]{message.content}" for message in request.chat.messages)
        return request.prompt if isinstance(request, generation_pb2.GenerateRequest) else request.text

    def Tokenize(self, request, context):
        return generation_pb2.TokenizeResponse(token_ids=self.text_of(request).encode(), max_model_len=MODEL_LENGTH, rendered_text=self.text_of(request))

    def Detokenize(self, request, context):
        return generation_pb2.DetokenizeResponse(text=bytes(request.token_ids).decode(errors="replace"))

    def GenerateStream(self, request, context):
        self.asked.append(request)
        prompt = len(self.text_of(request).encode())
        if request.truncate_prompt_tokens:
            prompt = min(prompt, request.truncate_prompt_tokens)
        kind = request.cache_policy.WhichOneof("policy") or "full"
        if request.cache_policy.budget.tokens == 4:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cache_policy.budget.tokens: 4 is too few")
        yield generation_pb2.GenerateStreamResponse(start=generation_pb2.StreamStart(model="bytes", prompt_tokens=prompt))
        yield generation_pb2.GenerateStreamResponse(delta=generation_pb2.StreamDelta(text=f"{kind} says so"))
        reply = generation_pb2.StreamEnd(choices=[generation_pb2.Choice()])
        reply.usage.prompt_tokens = prompt
        self.report(request.cache_policy, prompt, reply.cache)
        yield generation_pb2.GenerateStreamResponse(end=reply)

    @staticmethod
    def report(policy, prompt, cache):
        cache.policy_name = policy.WhichOneof("policy") or "full"
        cache.budget_tokens, cache.compressed = budget_of(policy, prompt), cache.policy_name != "full"
        cache.layers.add(layer=0).heads.add(kv_head=0, positions=range(min(prompt, cache.budget_tokens)))

    def EstimateCache(self, request, context):
        self.asked.append(request)
        if request.prompt_tokens + request.max_tokens > MODEL_LENGTH:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "max_tokens: beyond the model's length")
        if request.cache_policy.budget.tokens == 4:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cache_policy.budget.tokens: 4 is too few")
        entries = budget_of(request.cache_policy, request.prompt_tokens)
        peak = (entries + request.max_tokens) << 10
        reply = generation_pb2.EstimateCacheResponse(
            effective_policy=request.cache_policy, budget_tokens=entries, full_bytes=(request.prompt_tokens + request.max_tokens) << 10, peak_bytes=peak,
            steady_bytes=peak, admissible_now=peak <= POOL / 2, admissible_ever=peak <= POOL)
        if request.cache_policy.WhichOneof("policy") not in (None, "full"):
            reply.smallest_budget_bytes, reply.smallest_budget_tokens, reply.largest_budget_tokens = smallest_bytes(request), 9, 6000
            if request.cache_policy.budget.HasField("bytes"):
                reply.admissible_now = reply.admissible_ever = smallest_bytes(request) <= request.cache_policy.budget.bytes <= POOL
        reply.layers.add(layer=0, budget_tokens=entries)
        return reply

    def Compare(self, request, context):
        self.asked.append(request)
        reply = generation_pb2.CompareResponse()
        if request.request.cache_report == cache_pb2.CACHE_REPORT_DETAIL_POSITIONS:
            return self.compare_positions(request, context, reply)
        reply.baseline.choices.add(text="the whole answer")
        reply.baseline.cache.allocated_bytes = 1000
        for policy in request.policies:
            same = policy.WhichOneof("policy") == "snapkv"
            comparison = reply.comparisons.add(first_divergence=-1 if same else 2, text="the whole answer" if same else "the whole \x1b[31mtruth")
            comparison.cache.allocated_bytes = 51
        return reply


    def compare_positions(self, request, context, reply):
        if request.request.sampling.stop:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request.sampling.stop: answers of a comparison end with tokens only")
        for policy in (request.request.cache_policy, *request.policies):
            if policy.budget.tokens == 4:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "policies[0].budget.tokens: 4 is too few")
            if policy.budget.tokens == 5:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        prompt = len(self.text_of(request.request).encode())
        reply.baseline.choices.add(text=request.request.cache_policy.WhichOneof("policy") + " says so")
        reply.baseline.usage.prompt_tokens = prompt
        reply.baseline.timings.time_to_first_token.seconds = 77
        self.report(request.request.cache_policy, prompt, reply.baseline.cache)
        for policy in request.policies:
            self.report(policy, prompt, reply.comparisons.add(text=policy.WhichOneof("policy") + " says so").cache)
        return reply


class Models(model_pb2_grpc.ModelServiceServicer):
    def ListModels(self, request, context):
        return model_pb2.ListModelsResponse(models=[model_pb2.Model(id="bytes", max_model_len=MODEL_LENGTH)])

    def ListCachePolicies(self, request, context):
        reply = model_pb2.ListCachePoliciesResponse()
        snapkv = reply.policies.add(name="snapkv", summary="what the newest queries attend to", source="SnapKV", enabled=True)
        snapkv.defaults.snapkv.window_tokens = 8
        snapkv.defaults.budget.keep_ratio = 0.125
        snapkv.parameters.add(name="window_tokens", range=">= 1", default_value="8", description="always kept")
        small = reply.presets.add(name="small")
        small.policy.snapkv.window_tokens = 16
        small.policy.budget.bytes = 4 << 20
        reply.default_policy.full.SetInParent()
        return reply


# Command line, exit code, patterns on standard output (in their order), pattern on standard error. {doc}: a file of 2,000 bytes;
# {saved}, {other}: replies with positions, of different prompts; {bare}: one without; {out}: the page.
CASES = [
    ("estimate --prompt-tokens 100", 0, [r"prompt of 100 tokens, answer of up to 256 \(the default; --max-tokens sets another\)", r"start now:\n  pyramidkv --server \S+ generate --prompt-file FILE --max-tokens 256\n"], ""),
    ("estimate --prompt-tokens 8000", 0, [r"answer of up to 192 \(what the model's 8192 leave; --max-tokens sets another\)", r"wait until .* memory back|never fits"], ""),
    ("estimate --prompt-tokens 8000 --max-tokens 256", 1, [], "beyond the model's length"),
    ("estimate --prompt-tokens 9000", 1, [], "beyond the model's length"),
    ("estimate --prompt-tokens 1000 --policy snapkv --budget 128", 0, [r"peak, prefill included +384\.0 KiB", r"smallest budget in bytes +684KiB", r"--policy snapkv --budget 128 --max-tokens 256\n$"], ""),
    ("estimate --prompt-file {doc}", 0, [r"prompt of 2000 tokens", r"generate --prompt-file \S+/doc --max-tokens 256\n"], ""),
    ("estimate --chat --prompt-file {doc} --question 'why?'", 0, [r"prompt of 2029 tokens", r"--question 'why\?'"], ""),
    ("estimate --prompt-file {doc} --system brief --truncate-prompt-tokens 500", 0, [r"prompt of 500 tokens", r"--system brief --truncate-prompt-tokens 500"], ""),
    ("estimate --prompt-file {doc} --prompt-tokens 5", 2, [], "exclude each other"),
    ("estimate \"it's short\"", 0, [r"prompt of 10 tokens", r"--max-tokens 256 'it'\\''s short'\n$"], ""),
    ("estimate -- -short", 0, [r"prompt of 6 tokens", r"--max-tokens 256 -- -short\n$"], ""),
    ("estimate --chat short", 0, [r"prompt of 28 tokens", r"--chat .*short\n"], ""),
    ("estimate", 2, [], "--prompt-tokens"),
    ("estimate --prompt-file {nowhere} --policies full,tova", 2, [], "cannot read"),
    ("estimate --prompt-tokens 7000 --policies full,snapkv:128,snapkv:50%,small", 0, [r"policy +entries +peak +steady +full cache +saved +fits +smallest budget\n", r"full +7000 +7\.09 MiB +7\.09 MiB +7\.09 MiB +- +never +-\n", r"snapkv:128 .* now +9 or 684KiB\n", r"snapkv:50% +3500 .* 48\.2 % +later", r"small ", r"\n\nsnapkv:128 keeps most of what fits\. It would start now:\n  pyramidkv .*generate --prompt-file FILE --policy snapkv --budget 128 --max-tokens 256\n$"], ""),
    ("estimate --prompt-tokens 5000 --policies full,snapkv:4000", 0, [r"would wait until other requests give memory back:\n.*--prompt-file FILE --policy full"], ""),
    ("estimate --prompt-tokens 7900 --policies full,snapkv:7000", 0, [r"None of them ever fits\. The smallest cache for this prompt is 684KiB, of snapkv: --budget 9 to 6000 would fit\.\n$"], ""),
    # The smallest budget is the one that can be typed: in bytes it covers prompt and answer unless a scope is named.
    ("estimate --prompt-tokens 1000 --policies snapkv:128,snapkv:128:prompt,snapkv:4MiB,snapkv:recall:0.9 --max-bytes 5MiB --allow-shortfall", 0, [r"\nsnapkv:128 .* 9 or 684KiB\n", r"\nsnapkv:128:prompt .* 9 or 1196KiB\n", r"\nsnapkv:4MiB .* 9 or 684KiB\n", r"\nsnapkv:recall:0\.9 .* 9 or 684KiB\n"], ""),
    ("estimate --prompt-tokens 1000 --policy snapkv --budget 600KiB", 0, [r"smallest budget in bytes +684KiB", r"It never fits\. The smallest cache for this prompt is 684KiB, of snapkv: --budget 684KiB would fit\.\n$"], ""),
    ("estimate --prompt-tokens 1000 --policy snapkv --budget 684KiB", 0, [r"It would start now:\n"], ""),
    ("estimate --prompt-tokens 50 --policies snapkv:32,snapkv:4", 1, [], "snapkv:4:\n.*4 is too few"),
    ("estimate --prompt-tokens 50 --policies full,huge", 2, [], "'huge' is no policy"),
    ("estimate --prompt-tokens 50 --policies full --policy snapkv", 2, [], "--polic"),
    ("estimate --prompt-tokens 50 --policies snapkv:x", 2, [], "'snapkv:x'"),
    ("estimate --prompt-tokens 50 --policies full,snapkv:20 --json", 0, [r"^\{.*\"peakBytes\":\"\d+\".*\}\n\{.*\}\n$"], ""),
    ("estimate --prompt-tokens 50 --policies full,snapkv:20 --report layers", 0, [r"\nsnapkv:20\nlayer   0 +#+ +20 entries\n"], ""),
    ("compare --policies full,snapkv:9 x", 0, [r"^policy ", r"\nfull and, alike, snapkv:9:\n  the whole answer\n", r"\nsnapkv:9 gives full's answer with 5\.1 % of its memory\.\n$"], ""),
    ("compare --policies full,tova,snapkv x", 0, [r"tova departs at token 2:\n", r">>answer +\| the whole >> \[31mtruth\n", r"snapkv gives full's answer with 5\.1 % of its memory; tova departs at token 2 \(5\.1 %\)\.\n$"], ""),
    ("compare --policies full,tova --prompt-file {doc}", 0, [r"tova does not give full's answer: it departs at token 2, with 5\.1 % of its memory\.\n$"], ""),
    ("compare --policies full,snapkv:9 --logit-bias 5:1 x", 2, [], "'compare' has no option --logit-bias"),
    ("compare --policies full,snapkv:9 --stop-id x y", 2, [], "--stop-id: 'x' is no token id"),
    ("compare --help", 0, [r"greedy and end with tokens", r"--stop-id ID"], ""),
    ("compare --policies full x", 2, [], "at least one policy"),
    ("compare --policies full,tova --hide-question x", 2, [], "--hide-question needs --question"),
    ("compare --policies full,tova --raw --hide-question --question x", 2, [], "no question behind something else"),
    ("compare --policies full,tova", 2, [], "no prompt"),
    ("inspect --output {out} hello", 0, [r"^full says so\n$"], r"^wrote \S+\n$"),
    ("inspect --output {out} --policies snapkv:9,tova:7 hello", 0, [r"^snapkv:9:\nsnapkv says so\ntova:7:\ntova says so\n$"], r"^wrote"),
    ("inspect --output {out} --policies snapkv:9,tova:7 --json hello", 0, [r"^\{.*\}\n\{.*\}\n$"], r"^wrote"),
    ("inspect --output {out} --policies snapkv:1,snapkv:2,snapkv:3,snapkv:4,snapkv:5 hello", 2, [], "at most 4"),
    ("inspect --output {out} --policies snapkv:9 --policy tova hello", 2, [], "--polic"),
    ("inspect --output {out}", 2, [], "no prompt"),
    ("inspect hello", 2, [], "--output"),
    ("inspect --output {out} --from-reply {saved} --from-reply {saved}", 0, [r"^snapkv 2 \(\S+/saved\):\nsaved\nsnapkv 2 \(\S+/saved\):\nsaved\n$"], r"^wrote"),
    ("inspect --output {out} --from-reply {saved} --from-reply {other}", 2, [], "different prompts: one has 5 tokens, another 6"),
    ("inspect --output {out} --from-reply {saved} --from-reply {bare}", 2, [], "no kept positions"),
    ("inspect --output {out} --from-reply {saved} hello", 2, [], "excludes"),
    ("inspect --output {out} --from-reply {saved} --policies full,tova", 2, [], "excludes"),
    ("inspect --output {out} --from-reply {nowhere}", 2, [], "cannot read"),
    ("policies", 0, [r"^policy +what it keeps\nsnapkv  what the newest", r"\nsnapkv +snapkv +12\.5% +prompt +window_tokens=8\nsmall +snapkv +4MiB +total +window_tokens=16\n", "Requests that name no policy get full"], ""),
    ("policies snapkv", 0, [r"^snapkv: what the newest queries attend to\nFrom SnapKV\.\n", r"window_tokens +8 +>= 1 +always kept\n", r"\npyramidkv generate --prompt-file FILE --policy snapkv --budget 128 --param window_tokens=8\n$"], ""),
    ("policies small", 0, [r"^small: a preset of this server\nsnapkv, budget 4MiB, window_tokens=16\n", r"window_tokens +16 +>= 1", r"--policy small\nis short for\n.*--policy snapkv --budget 4MiB --param window_tokens=16\n$"], ""),
    ("policies nothing", 2, [], "'nothing' is no policy and no preset of the server; it has snapkv, small"),
    ("policies --json", 0, [r"^\{\"policies\":.*\}\n$"], ""),
    ("report {bare} {saved}", 0, [r"prompt tokens +5 +5\n"], ""),
]


class CacheCommandsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.generation = Generation()
        server = grpc.server(futures.ThreadPoolExecutor(4))
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(cls.generation, server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        cls.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        cls.addClassCleanup(lambda: server.stop(None).wait())

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.names = {name: os.path.join(folder.name, name) for name in ("doc", "saved", "other", "bare", "out", "nowhere")}
        saved = {"choices": [{"text": "saved"}], "usage": {"promptTokens": 5},
                 "cache": {"policyName": "snapkv", "budgetTokens": 2, "compressed": True, "layers": [{"heads": [{"positions": [0, 4]}]}]}}
        files = {"doc": "abcdefghi\n" * 200, "saved": json.dumps(saved), "other": json.dumps(saved | {"usage": {"promptTokens": 6}}),
                 "bare": json.dumps(saved | {"cache": {"policyName": "snapkv", "fullBytes": "1"}})}
        for name, text in files.items():
            with open(self.names[name], "w", encoding="utf-8") as file:
                file.write(text)
        self.generation.asked.clear()

    def run_client(self, *words, **environment):
        return subprocess.run([CLIENT, "--server", self.address, *words], capture_output=True, text=True, timeout=60, check=False,
                              env=os.environ | {"COLUMNS": "120"} | environment)

    def test_command_lines(self):
        for line, code, outputs, message in CASES:
            with self.subTest(line):
                done = self.run_client(*shlex.split(line.format(**self.names)))
                self.assertEqual(done.returncode, code, done.stdout + done.stderr)
                at = 0
                for pattern in outputs:
                    found = re.compile(pattern).search(done.stdout, at)
                    self.assertTrue(found, f"{pattern} is not in (or not in this order)\n{done.stdout}")
                    at = found.start()
                if code:
                    self.assertEqual(done.stdout, "")
                if message:
                    self.assertRegex(done.stderr, message)
                else:
                    self.assertEqual(done.stderr, "")

    def test_an_estimate_sends_the_length_and_every_policy(self):
        self.assertEqual(self.run_client("estimate", "--prompt-file", self.names["doc"], "--policies", "full,h2o:4MiB:total", "--pin", "0:4").returncode, 0)
        pins = [cache_pb2.TokenSpan(begin=0, end=4)]
        budget = cache_pb2.CacheBudget(bytes=4 << 20, scope=cache_pb2.BUDGET_SCOPE_TOTAL)
        self.assertEqual([(asked.prompt_tokens, asked.max_tokens, asked.cache_policy) for asked in self.generation.asked],
                         [(2000, 256, cache_pb2.CachePolicy(full=cache_pb2.FullPolicy())),  # which has no smallest budget to ask for
                          (2000, 256, cache_pb2.CachePolicy(h2o=cache_pb2.H2oPolicy(), budget=budget, pins=pins))])

    def test_the_command_at_the_end_sends_what_was_estimated(self):
        estimate = self.run_client("estimate", "--prompt-file", self.names["doc"], "--question", "What's $HOME?", "--chat", "--policies", "snapkv:12%,h2o:64:total")
        command = estimate.stdout.splitlines()[-1].strip()
        self.generation.asked.clear()
        words = shlex.split(command)
        self.assertEqual(words[0], "pyramidkv")
        self.assertEqual(subprocess.run([CLIENT, *words[1:]], capture_output=True, timeout=60, check=False).returncode, 0)
        request = self.generation.asked[0]
        self.assertTrue(request.chat.messages[0].content.endswith("abcdefghi\n\n\nWhat's $HOME?"))
        self.assertEqual(request.cache_policy, cache_pb2.CachePolicy(snapkv=cache_pb2.SnapKvPolicy(), budget=cache_pb2.CacheBudget(keep_ratio=0.12)))
        self.assertEqual(request.sampling.max_tokens, 256)

    def test_a_hidden_question_comes_behind_the_prompt_with_all_that_the_chat_format_puts_there(self):
        for form, prompt, continuation in (("--chat", "<user>[user]what is it? a\n\n", "what is it?<assistant>"), ("--raw", "what is it? a\n\n", "what is it?")):
            self.generation.asked.clear()
            done = self.run_client("compare", "--policies", "full,tova", form, "--hide-question", "--question", "what is it?", "what is it? a")
            self.assertEqual(done.returncode, 0, done.stderr)
            asked, = self.generation.asked
            self.assertEqual((asked.request.prompt, asked.continuation, asked.request.WhichOneof("input")), (prompt, continuation, "prompt"))

    def test_the_server_is_named_in_the_command_only_where_it_has_to_be(self):
        self.assertIn(f"pyramidkv --server {self.address} generate", self.run_client("estimate", "--prompt-tokens", "9").stdout)
        self.assertIn("pyramidkv generate", self.run_client("estimate", "--prompt-tokens", "9", PYRAMIDKV_SERVER=self.address).stdout)

    def page_data(self):
        with open(self.names["out"], encoding="utf-8") as file:
            return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read()).group(1))

    def test_inspect_sends_one_prompt_under_every_policy_and_fetches_its_text(self):
        prompt = "Grüße \U0001f389 日本 </script>\u202e\x1e."
        done = self.run_client("inspect", "--output", self.names["out"], "--policies", "snapkv:9,tova:7", "--max-tokens", "3", prompt)
        self.assertEqual(done.returncode, 0, done.stderr)
        asked, = self.generation.asked
        self.assertEqual([policy.WhichOneof("policy") for policy in (asked.request.cache_policy, *asked.policies)], ["snapkv", "tova"])
        self.assertEqual((asked.request.prompt, asked.request.sampling.max_tokens, asked.request.cache_report),
                         (prompt, 3, cache_pb2.CACHE_REPORT_DETAIL_POSITIONS))
        data = self.page_data()
        for view in data["views"]:  # how long it took tells nothing of either
            self.assertEqual([text for label, text in view["figures"] if label == "time to first token"], ["-"])
        self.assertEqual("".join(data["tokens"]), prompt)
        self.assertEqual(len(data["tokens"]), len(prompt.encode()))
        self.assertEqual(data["tokens"][2:4], ["ü", ""])
        self.assertEqual([view["layers"][0]["heads"][0]["runs"] for view in data["views"]], [[0, 9], [0, 7]])

    def test_inspect_asks_one_by_one_what_cannot_be_compared(self):
        def asked_for(*words):
            self.generation.asked.clear()
            done = self.run_client("inspect", "--output", self.names["out"], "--no-tokens", *words, "a prompt")
            return done, [type(asked).__name__ for asked in self.generation.asked]
        for words in (("--temp", "1"), ("--top-p", "0.9"), ("--policies", "small,tova:7")):  # of these the server would think otherwise
            done, kinds = asked_for("--policies", "snapkv:9,tova:7", *words) if words[0] != "--policies" else asked_for(*words)
            self.assertEqual((done.returncode, kinds), (0, ["GenerateRequest"] * 2), done.stderr)
        done, kinds = asked_for("--policies", "snapkv:9,tova:7", "--stop", "x")  # this it refuses
        self.assertEqual((done.returncode, kinds), (0, ["CompareRequest"] + ["GenerateRequest"] * 2), done.stderr)
        self.assertEqual([view["layers"][0]["heads"][0]["runs"] for view in self.page_data()["views"]], [[0, 8], [0, 7]])
        done, kinds = asked_for("--policies", "snapkv:9,tova:4")  # and whoever is wrong alone says so in Generate's words
        self.assertEqual((done.returncode, kinds), (1, ["CompareRequest"] + ["GenerateRequest"] * 2))
        self.assertIn("cache_policy.budget.tokens: 4 is too few", done.stderr)
        done, kinds = asked_for("--policies", "snapkv:9,tova:5")  # anything else would go wrong again
        self.assertEqual((done.returncode, kinds), (1, ["CompareRequest"]))

    def test_inspect_shows_the_prompt_as_it_was_used(self):
        for words, text in ((("--chat", "--question", "why?", "doc"), TEMPLATE % "[user]doc\n\nwhy?"), (("--truncate-prompt-tokens", "3", "abcdef"), "def")):
            self.run_client("inspect", "--output", self.names["out"], *words)
            self.assertEqual("".join(self.page_data()["tokens"]), text)
        self.run_client("inspect", "--output", self.names["out"], "--no-tokens", "abc")
        self.assertNotIn("tokens", self.page_data())


if __name__ == "__main__":
    unittest.main()
