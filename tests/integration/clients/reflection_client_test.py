"""The gRPC services of the server program with the real model as clients see them that know them by reflection alone: the grpc-requests
package and buf curl. Errors are read by Google's own messages."""
import json
import subprocess
import unittest

import grpc
import grpc_requests
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from served import ServedTest

GENERATION, MODEL, STATS = (f"pyramidkv.v1.{name}Service" for name in ("Generation", "Model", "Stats"))
QUESTION = {"chat": {"messages": [{"role": "user", "content": "What is the capital of France?"}]}, "sampling": {"temperature": 0, "max_tokens": 24}}
POLICY = {"cache_policy": {"snapkv": {"window_tokens": 8}, "budget": {"tokens": 16}}}


class ReflectionClientTest(ServedTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = grpc_requests.Client(cls.address, descriptor_pool=descriptor_pool.DescriptorPool())

    @classmethod
    def tearDownClass(cls):
        cls.client.channel.close()
        super().tearDownClass()

    def test_what_there_is(self):
        self.assertLessEqual({GENERATION, MODEL, STATS, "grpc.health.v1.Health"}, set(self.client.service_names))
        self.assertLessEqual({"Generate", "GenerateStream", "Tokenize", "Detokenize", "EstimateCache", "Compare"}, set(self.client.service(GENERATION).method_names))
        self.assertEqual(set(self.client.service("grpc.health.v1.Health").method_names), {"Check", "Watch"})

    def test_models_policies_and_state(self):
        models = self.client.request(MODEL, "ListModels")["models"]
        self.assertEqual([(model["id"], model["max_model_len"]) for model in models], [("served", 8192)])
        policies = self.client.request(MODEL, "ListCachePolicies")["policies"]
        self.assertLessEqual({"full", "pyramidkv", "snapkv", "h2o"}, {policy["name"] for policy in policies})
        self.assertEqual(self.client.request(STATS, "GetStats")["stats"]["state"], "SERVER_STATE_SERVING")
        watching = self.client.request(STATS, "WatchStats", {"interval": "0.05s"}, raw_output=True)
        first, second = next(watching), next(watching)
        self.assertLessEqual(first.stats.sequence, second.stats.sequence)
        watching.cancel()

    def test_a_chat_is_answered_and_says_what_it_kept(self):
        reply = self.client.request(GENERATION, "Generate", {**QUESTION, **POLICY})
        self.assertEqual((reply["cache"]["policy_name"], reply["cache"]["budget_tokens"]), ("snapkv", 16))
        full = self.client.request(GENERATION, "Generate", QUESTION)
        self.assertIn("Paris", full["choices"][0]["text"])
        self.assertGreater(full["usage"]["completion_tokens"], 0)

    def test_a_stream_says_the_same(self):
        whole = self.client.request(GENERATION, "Generate", QUESTION)["choices"][0]
        events = list(self.client.request(GENERATION, "GenerateStream", QUESTION))
        self.assertEqual((list(events[0]), list(events[-1])), (["start"], ["end"]))
        self.assertEqual("".join(event["delta"].get("text", "") for event in events if "delta" in event), whole["text"])
        self.assertEqual(events[-1]["end"]["choices"][0]["finish_reason"], whole["finish_reason"])

    def test_text_and_tokens(self):
        tokens = self.client.request(GENERATION, "Tokenize", {"text": "One, two, three"})["token_ids"]
        self.assertEqual(self.client.request(GENERATION, "Detokenize", {"token_ids": tokens}), {"text": "One, two, three"})
        estimate = self.client.request(GENERATION, "EstimateCache", {"prompt_tokens": 1000, "max_tokens": 10, **POLICY})
        self.assertLess(int(estimate["steady_bytes"]), int(estimate["full_bytes"]))

    def test_errors_are_those_of_google(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.request(GENERATION, "Generate", {"prompt": "x", "sampling": {"max_tokens": 9000}})
        status = status_pb2.Status.FromString(dict(raised.exception.trailing_metadata())["grpc-status-details-bin"])
        self.assertEqual((status.code, status.message), (raised.exception.code().value[0], raised.exception.details()))
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        self.assertEqual([detail.Unpack(info) or detail.Unpack(bad) for detail in status.details], [True, True])
        self.assertEqual((info.reason, info.domain, info.metadata["max"]), ("CONTEXT_TOO_LONG", "pyramidkv", "8192"))
        self.assertEqual([violation.field for violation in bad.field_violations], ["sampling.max_tokens"])

    def buf_curl(self, method, data):
        """(exit code, messages, errors) of a call; what is printed after one another are JSON objects."""
        run = subprocess.run(["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", json.dumps(data), f"http://{self.address}/{method}"],
                             capture_output=True, text=True, timeout=120)
        messages, text, decoder = [], run.stdout.strip(), json.JSONDecoder()
        while text:
            message, end = decoder.raw_decode(text)
            messages.append(message)
            text = text[end:].lstrip()
        return run.returncode, messages, run.stderr

    def test_buf_curl(self):
        code, models, errors = self.buf_curl(f"{MODEL}/ListModels", {})
        self.assertEqual((code, models[0]["models"][0]["id"]), (0, "served"), errors)
        code, events, errors = self.buf_curl(f"{GENERATION}/GenerateStream",
                                             {"prompt": "One, two, three,", "sampling": {"temperature": 0, "maxTokens": 4}, "cachePolicy": {"snapkv": {}, "budget": {"keepRatio": 0.5}}})
        self.assertEqual(code, 0, errors)
        self.assertEqual((list(events[0]), list(events[-1])), (["start"], ["end"]))
        self.assertTrue("".join(event["delta"].get("text", "") for event in events if "delta" in event))
        code, health, errors = self.buf_curl("grpc.health.v1.Health/Check", {"service": GENERATION})
        self.assertEqual((code, health), (0, [{"status": "SERVING"}]), errors)
        code, _, errors = self.buf_curl(f"{GENERATION}/Generate", {"prompt": "x", "sampling": {"temperature": -1}})
        self.assertNotEqual(code, 0)
        self.assertIn("sampling.temperature", errors)
        self.assertIn("google.rpc.BadRequest", errors)


if __name__ == "__main__":
    unittest.main()
