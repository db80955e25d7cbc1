"""OpenAI's API of the server program with the real model as unmodified clients see it: the openai package and curl."""
import json
import subprocess
import unittest

import openai
from served import ServedTest

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
POLICY = {"cache_policy": {"snapkv": {"window_tokens": 8}, "budget": {"tokens": 16}}}


class OpenAiClientTest(ServedTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.base = f"http://{cls.http}/v1"
        cls.client = openai.OpenAI(base_url=cls.base, api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        super().tearDownClass()

    def chat(self, **fields):
        return self.client.chat.completions.create(
            **{"model": "served", "messages": QUESTION, "temperature": 0, "max_tokens": 24, **fields})

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["served"])
        self.assertEqual(self.client.models.retrieve("served").owned_by, "pyramidkv")

    def test_a_chat_is_answered_and_says_what_it_kept(self):
        reply = self.chat(extra_body=POLICY)
        self.assertEqual(reply.choices[0].message.role, "assistant")
        self.assertEqual(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens)
        self.assertEqual(reply.cache["policy_name"], "snapkv")
        self.assertEqual(reply.cache["budget_tokens"], 16)
        full = self.chat()
        self.assertIn("Paris", full.choices[0].message.content)
        self.assertEqual(full.choices[0].finish_reason, "stop")
        self.assertEqual(full.cache["policy_name"], "full")

    def test_a_stream_says_the_same(self):
        whole = self.chat().choices[0].message.content
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), whole)
        ends = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
        self.assertEqual([end.choices[0].finish_reason for end in ends], ["stop"])
        self.assertEqual(ends[0].cache["policy_name"], "full")
        self.assertEqual(chunks[-1].choices, [])
        self.assertGreater(chunks[-1].usage.completion_tokens, 0)

    def test_completions_with_log_probabilities(self):
        reply = self.client.completions.create(model="served", prompt="One, two, three,", temperature=0, max_tokens=4, logprobs=3, echo=True)
        choice = reply.choices[0]
        self.assertTrue(choice.text.startswith("One, two, three,"))
        self.assertEqual("".join(choice.logprobs.tokens), choice.text)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        for token, logprob, top in list(zip(choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs))[-4:]:
            self.assertEqual(max(top.values()), logprob)
            self.assertAlmostEqual(top[token], logprob)
        for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset):
            self.assertEqual(choice.text[offset:offset + len(token)], token)
        chat = self.chat(logprobs=True, top_logprobs=2).choices[0]
        self.assertEqual(b"".join(bytes(item.bytes) for item in chat.logprobs.content[:-1]).decode(), chat.message.content)
        self.assertEqual(len(chat.logprobs.content[0].top_logprobs), 2)

    def test_sampling_is_the_callers(self):
        first = self.chat(temperature=1, seed=7, top_p=0.9, max_tokens=16).choices[0].message.content
        self.assertEqual(self.chat(temperature=1, seed=7, top_p=0.9, max_tokens=16).choices[0].message.content, first)
        stopped = self.chat(stop=["Paris"])
        self.assertNotIn("Paris", stopped.choices[0].message.content)
        self.assertEqual(stopped.choices[0].finish_reason, "stop")
        self.assertEqual(self.chat(max_completion_tokens=2, max_tokens=openai.omit).usage.completion_tokens, 2)

    def test_errors_are_those_of_the_package(self):
        with self.assertRaises(openai.BadRequestError) as bad:
            self.chat(temperature=-1)
        self.assertEqual((bad.exception.param, bad.exception.code, bad.exception.type), ("temperature", "BAD_SAMPLING", "invalid_request_error"))
        with self.assertRaises(openai.NotFoundError):
            self.chat(model="another")
        with self.assertRaises(openai.BadRequestError) as tools:
            self.chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
        self.assertEqual(tools.exception.param, "tools")

    def test_a_stream_may_be_left(self):
        stream = self.chat(stream=True, max_tokens=2000, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.assertIn("Paris", self.chat().choices[0].message.content)

    def test_curl(self):
        body = json.dumps({"prompt": "Hello", "max_tokens": 2, "padding": None, "prompt_cache_key": "x" * 100})
        large = json.dumps({"prompt": "word " * 1_000_000, "max_tokens": 2})  # curl asks first whether it may send that much
        for data, status in ((body, "200"), (large, "400")):
            output = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", "--data-binary", "@-", f"{self.base}/completions"], input=data,
                                    capture_output=True, text=True, check=True, timeout=60).stdout
            reply, _, code = output.rpartition("\n")
            self.assertEqual(code, status, reply[:500])
            self.assertEqual("choices" in json.loads(reply), status == "200")
        events = subprocess.run(["curl", "-sSN", "-d", json.dumps({"prompt": "Hello", "max_tokens": 3, "stream": True}), f"{self.base}/completions"],
                                capture_output=True, text=True, check=True, timeout=60).stdout
        self.assertTrue(events.endswith("data: [DONE]\n\n"), events)


if __name__ == "__main__":
    unittest.main()
