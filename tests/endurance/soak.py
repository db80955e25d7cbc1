"""A mixed load for a while, every kind of end among it: soak.py SECONDS. The invariants hold at every moment, memory is flat after a
warm-up of a third of the time, and in the end everything is back. Light: mostly it waits, so that it may run beside other things."""
import http.client
import json
import random
import sys
import threading
import time

import grpc
from pyramidkv.v1 import cache_pb2, generation_pb2
from watched_server import WatchedServer

WORKERS = 4
PAUSE = 0.25  # seconds between two requests of a worker, on average
GROWTH = 16 << 20  # bytes that the last third may hold more than the second
TEXTS = ["One, two, three, four, five, six.", "A long tale. " * 12, "def f(x):\n    return x\n", "\U0001F600 \u00e9\u00e8 " * 5]
POLICIES = ("full", "streaming_llm", "h2o", "snapkv", "pyramidkv", "ada_snapkv", "ada_pyramidkv", "funnel", "keydiff", "l2norm", "tova", "random")


def message(rng):
    request = generation_pb2.GenerateRequest(prompt=rng.choice(TEXTS))
    sampling = request.sampling
    sampling.max_tokens, sampling.ignore_eos, sampling.temperature = rng.randint(1, 12), True, rng.choice((0, 0.8))
    policy = rng.choice(POLICIES)
    getattr(request.cache_policy, policy).SetInParent()
    if policy != "full":
        request.cache_policy.budget.keep_ratio = rng.uniform(0.3, 0.9)
        if rng.random() < 0.5:
            request.cache_policy.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
    if rng.random() < 0.3:
        request.output.top_logprobs = 3
    return request


class Worker(threading.Thread):
    def __init__(self, server, seed, end):
        super().__init__()
        self.server, self.rng, self.end = server, random.Random(seed), end
        self.channel = grpc.insecure_channel(server.address)
        self.generation = type(server.generation)(self.channel)
        self.counts, self.failures = {}, []
        self.kinds = [self.unary, self.stream, self.cancelled, self.late, self.refused, self.over_http, self.left_over_http, self.tokenised]

    def run(self):
        while time.monotonic() < self.end:
            kind = self.rng.choice(self.kinds)
            try:
                kind()
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(f"{kind.__name__}: {error!r}")
            self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            time.sleep(self.rng.expovariate(1 / PAUSE))
        self.channel.close()

    def unary(self):
        request = message(self.rng)
        reply = self.generation.Generate(request)
        assert reply.usage.completion_tokens == request.sampling.max_tokens

    def stream(self):
        assert [event.WhichOneof("event") for event in self.generation.GenerateStream(message(self.rng))][-1] == "end"

    def cancelled(self):
        request = message(self.rng)
        request.sampling.max_tokens = 200
        call = self.generation.GenerateStream(request)
        for _ in range(self.rng.randint(0, 4)):
            next(call)
        call.cancel()

    def late(self):
        request = message(self.rng)
        request.sampling.max_tokens = 1000
        self.expect(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: self.generation.Generate(request, timeout=self.rng.uniform(0.001, 0.3)))

    def refused(self):
        request = message(self.rng)
        request.sampling.temperature = -1
        self.expect(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.generation.Generate(request))

    @staticmethod
    def expect(code, call):
        try:
            call()
        except grpc.RpcError as error:
            assert error.code() == code, error
        else:
            raise AssertionError(f"no {code}")

    def ask_http(self, **fields):
        host, port = self.server.http.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": self.rng.choice(TEXTS), "ignore_eos": True, **fields}))
        return connection

    def over_http(self):
        stream = self.rng.random() < 0.5
        connection = self.ask_http(max_tokens=self.rng.randint(1, 12), stream=stream)
        body = connection.getresponse().read()
        connection.close()
        assert body.endswith(b"data: [DONE]\n\n") if stream else b'"usage"' in body, body

    def left_over_http(self):
        connection = self.ask_http(max_tokens=500, stream=self.rng.random() < 0.5)
        time.sleep(self.rng.uniform(0, 0.1))
        connection.close()

    def tokenised(self):
        self.generation.Tokenize(generation_pb2.TokenizeRequest(text=self.rng.choice(TEXTS) * 50))
        self.generation.EstimateCache(generation_pb2.EstimateCacheRequest(prompt_tokens=500, max_tokens=50))


def main(seconds):
    server = WatchedServer("scheduler.max_running=8")
    begin = time.monotonic()
    workers = [Worker(server, seed, begin + seconds) for seed in range(WORKERS)]
    for worker in workers:
        worker.start()
    resident = []
    while any(worker.is_alive() for worker in workers):
        resident.append(server.resident())
        time.sleep(min(1, seconds / 60))
    third = len(resident) // 3
    faults = server.faults + [failure for worker in workers for failure in worker.failures] + server.rest()
    growth = max(resident[2 * third:]) - max(resident[third:2 * third])
    if growth > GROWTH:
        faults.append(f"memory grew by {growth} bytes from the second third to the last")
    counts = {}
    for worker in workers:
        for kind, count in worker.counts.items():
            counts[kind] = counts.get(kind, 0) + count
    if server.stop() != 0:
        faults.append("the server did not end with 0")
    print(f"{seconds} s, {sum(counts.values())} requests: {counts}")
    print(f"{server.states} states checked, at most {server.most_running} requests at once")
    print(f"resident: {resident[0] / 2**20:.1f} MiB at first, {max(resident[third:2 * third]) / 2**20:.1f} in the second third, "
          f"{max(resident[2 * third:]) / 2**20:.1f} in the last")
    for fault in faults[:20]:
        print("FAULT:", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
