"""A mixed load for a while, every kind of end among it, by callers with keys, and reloads meanwhile: soak.py SECONDS. The invariants
hold at every moment, memory is flat after a warm-up of a third of the time, and in the end everything is back. Light: mostly it
waits, so that it may run beside other things."""
import hashlib
import http.client
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time

import grpc
from judgement import Memory
from pyramidkv.v1 import cache_pb2, generation_pb2
from watched_server import WatchedServer, with_key

WORKERS = 4
PAUSE = 0.25  # seconds between two requests of a worker, on average
RELOADS = 10  # in all
TEXTS = ["One, two, three, four, five, six.", "A long tale. " * 12, "def f(x):\n    return x\n", "\U0001F600 \u00e9\u00e8 " * 5]
POLICIES = ("full", "streaming_llm", "h2o", "snapkv", "pyramidkv", "ada_snapkv", "ada_pyramidkv", "funnel", "keydiff", "l2norm", "tova", "random")


def policy(rng):
    message, name = cache_pb2.CachePolicy(), rng.choice(POLICIES)
    getattr(message, name).SetInParent()
    if name != "full":
        message.budget.keep_ratio = rng.uniform(0.3, 0.9)
        if rng.random() < 0.5:
            message.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
    return message


def message(rng):
    request = generation_pb2.GenerateRequest(cache_policy=policy(rng))
    if rng.random() < 0.3:
        request.chat.messages.add(role="system", content="Be brief.")
        request.chat.messages.add(role="user", content=rng.choice(TEXTS))
    else:
        request.prompt = rng.choice(TEXTS)
    sampling = request.sampling
    sampling.max_tokens, sampling.ignore_eos, sampling.temperature = rng.randint(1, 12), True, rng.choice((0, 0.8))
    if rng.random() < 0.3:
        request.output.top_logprobs = 3
    return request


class Keys:
    """The server's file of keys; that of `guest` comes and goes with every reload."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "keys")
        self.caller, self.watcher, self.guest = (secrets.token_hex(32) for _ in range(3))
        self.has_guest = False
        self._write()

    def _write(self):
        lines = [(self.caller, "caller"), (self.watcher, "watcher scope=stats"), (self.guest, "guest")][:3 if self.has_guest else 2]
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.writelines(f"{hashlib.sha256(key.encode()).hexdigest()} {rest}\n" for key, rest in lines)
        os.replace(self.path + ".new", self.path)

    def reload(self, server):
        """A sentence where it had no effect."""
        self.has_guest = not self.has_guest
        self._write()
        server.process.send_signal(signal.SIGHUP)
        generation, end = type(server.generation)(with_key(server.channel, self.guest)), time.monotonic() + 60
        while True:
            try:
                generation.Tokenize(generation_pb2.TokenizeRequest(text="hello"))
                let_in = True
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                    return f"a reload: {error!r}"
                let_in = False
            if let_in == self.has_guest:
                return ""
            if time.monotonic() > end:
                return f"a reload: the guest's key {'opens nothing' if self.has_guest else 'still opens'}"
            time.sleep(0.05)


class Worker(threading.Thread):
    def __init__(self, server, key, seed, end):
        super().__init__()
        self.server, self.key, self.rng, self.end = server, key, random.Random(seed), end
        self.channel = grpc.insecure_channel(server.address)
        self.generation = type(server.generation)(with_key(self.channel, key))
        self.counts, self.failures = {}, []
        self.kinds = [self.unary, self.stream, self.cancelled, self.late, self.refused, self.unknown, self.compared, self.over_http, self.left_over_http,
                      self.tokenised]

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

    def unknown(self):
        stranger = type(self.generation)(with_key(self.channel, secrets.token_hex(32)))
        self.expect(grpc.StatusCode.UNAUTHENTICATED, lambda: stranger.Generate(message(self.rng)))

    @staticmethod
    def expect(code, call):
        try:
            call()
        except grpc.RpcError as error:
            assert error.code() == code, error
        else:
            raise AssertionError(f"no {code}")

    def compared(self):
        request = message(self.rng)
        request.sampling.temperature = 0
        request.ClearField("output")
        reply = self.generation.Compare(generation_pb2.CompareRequest(request=request, policies=[policy(self.rng) for _ in range(2)]))
        assert [len(comparison.kl) for comparison in reply.comparisons] == [request.sampling.max_tokens] * 2

    def ask_http(self, **fields):
        path, asked = self.rng.choice((("completions", {"prompt": self.rng.choice(TEXTS)}),
                                       ("chat/completions", {"messages": [{"role": "user", "content": self.rng.choice(TEXTS)}]})))
        host, port = self.server.http.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request("POST", f"/v1/{path}", json.dumps({"ignore_eos": True, **asked, **fields}), {"Authorization": f"Bearer {self.key}"})
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


def soak(seconds, keys):
    # A small pool, all of whose pages are soon used once: a fresh page is memory that grows, too.
    server = WatchedServer("scheduler.max_running=8", "cache.pool_bytes=64MiB", f"server.api_keys={keys.path}", key=keys.watcher)
    begin = time.monotonic()
    workers = [Worker(server, keys.caller, seed, begin + seconds) for seed in range(WORKERS)]
    for worker in workers:
        worker.start()
    resident, reloads = [], []
    while any(worker.is_alive() for worker in workers):
        resident.append(server.resident())
        if time.monotonic() - begin > seconds / RELOADS * (len(reloads) + 1):
            reloads.append(keys.reload(server))
        time.sleep(min(1, seconds / 60))
    memory = Memory(resident)
    faults = server.faults + [failure for worker in workers for failure in worker.failures] + [reload for reload in reloads if reload] + server.rest()
    faults += memory.faults()
    counts = {}
    for worker in workers:
        for kind, count in worker.counts.items():
            counts[kind] = counts.get(kind, 0) + count
    if server.stop() != 0:
        faults.append("the server did not end with 0")
    print(f"{seconds} s, {sum(counts.values())} requests: {counts}")
    print(f"{server.states} states checked, at most {server.most_running} requests at once, {len(reloads)} reloads")
    print(memory)
    for fault in faults[:20]:
        print("FAULT:", fault)
    return 1 if faults else 0


def main(seconds):
    with tempfile.TemporaryDirectory() as folder:
        return soak(seconds, Keys(folder))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
