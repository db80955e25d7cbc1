"""What a client can do to harm others. It was found by reading the server, or is what storms are made of."""
import concurrent.futures
import json
import os
import random
import signal
import subprocess
import sys
import time

import grpc
from attacks_by_numbers import AttacksByNumbers
from caller import at_once, code_of, eventually, request
from extremes import varint
from pyramidkv.v1 import cache_pb2, generation_pb2, stats_pb2

HERE = os.path.dirname(os.path.abspath(__file__))
SENTENCE = "The quick brown fox jumps over the lazy dog. "
LONG = SENTENCE * 180  # about 1,800 tokens
MOST = SENTENCE * 790  # about 7,900: nearly all that the model takes
MAX_RUNNING, MAX_WAITING, MAX_WATCHERS = 24, 32, 64
SETTINGS = (f"scheduler.max_running={MAX_RUNNING}", f"scheduler.max_waiting={MAX_WAITING}", f"server.max_watchers={MAX_WATCHERS}", "cache.pool_bytes=2GiB",
            "server.max_unread_seconds=5", "http.idle_seconds=5", "server.drain_seconds=20")


class Attacks(AttacksByNumbers):
    """Each says what became of it, or fails where that is not what has to."""

    # ---- long computing
    def evictions_at_every_token(self):
        message = request(LONG, 6)
        message.cache_policy.snapkv.window_tokens = 1500
        message.cache_policy.budget.tokens = 1600
        message.cache_policy.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
        message.cache_policy.budget.interval_tokens = 1  # 1,500 queries over 1,600 entries of every layer, for every token
        for name in ("h2o", "tova"):
            other = request(LONG, 60)
            getattr(other.cache_policy, name).SetInParent()
            other.cache_policy.budget.tokens = 1600
            other.cache_policy.budget.scope = cache_pb2.BUDGET_SCOPE_TOTAL
            self._generation.Generate(other, timeout=300)
        return f"{self._generation.Generate(message, timeout=300).cache.evicted_entries} entries evicted"

    def long_prompts(self):
        replies = at_once(6, lambda i: self._generation.Generate(request(f"{i} " + LONG, 2), timeout=300))
        return f"{len(replies)} of {replies[0].usage.prompt_tokens} tokens"

    def wide_sampling(self):
        def ask(i):
            message = request("hello", 60)
            message.sampling.temperature, message.sampling.top_p, message.sampling.repetition_penalty = 1.5, 0.99, 1.1
            message.sampling.stop_token_ids.extend(range(256))
            message.sampling.stop.extend(f"stop {i} {k}" for k in range(16))
            message.output.top_logprobs = 20
            return self._generation.Generate(message, timeout=300)
        return f"{len(at_once(24, ask))} answers"

    def comparisons(self):
        message = generation_pb2.CompareRequest(request=request(LONG[:3000], 8))
        message.request.sampling.temperature = 0
        for _ in range(8):
            message.policies.add().snapkv.SetInParent()
        return f"{[len(self._generation.Compare(message, timeout=300).comparisons) for _ in range(2)]} policies"

    # ---- bytes
    def texts_too_large(self):
        channel = grpc.insecure_channel(self._server.address, options=[("grpc.max_send_message_length", -1)])
        generation = type(self._generation)(channel)
        codes = [code_of(generation.Generate, request("x" * size), timeout=300) for size in (100_000_000, 15_000_000, 4_000_000)]
        codes += [code_of(generation.Tokenize, generation_pb2.TokenizeRequest(text="word " * 3_000_000), timeout=300)]
        cut = request("word " * 3_000_000)
        cut.truncate_prompt_tokens = 100
        codes.append(code_of(generation.Generate, cut, timeout=300))
        channel.close()
        assert codes == ["RESOURCE_EXHAUSTED"] + ["INVALID_ARGUMENT"] * 4, codes  # of the first the message is too large
        return f"{len(codes)} refused"

    def values_too_many(self):
        empty = bytes([0x2A]) + varint(4_000_000) + b"\x0a\x00" * 2_000_000  # chat { messages {} ... }
        stops = bytes([0x32]) + varint(4_000_000) + b"\x6a\x00" * 2_000_000  # sampling { stop: "" ... }
        codes = [code_of(self._raw("GenerationService/Generate"), bytes_, timeout=300) for bytes_ in (empty, stops)]
        assert codes == ["INVALID_ARGUMENT"] * 2, codes
        return f"{len(codes)} refused"

    def malformed(self):
        rng, codes = random.Random(1), set()
        good = request("hello").SerializeToString()
        for method, kind in (("GenerationService/Generate", "unary_unary"), ("GenerationService/Compare", "unary_unary"),
                             ("GenerationService/Tokenize", "unary_unary"), ("GenerationService/EstimateCache", "unary_unary"),
                             ("StatsService/GetStats", "unary_unary"), ("GenerationService/GenerateStream", "unary_stream")):
            call = self._raw(method, kind)
            for i in range(100):
                data = bytearray(good if i % 2 else rng.randbytes(rng.randint(1, 300)))
                for _ in range(rng.randint(0, 4)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                if kind == "unary_unary":
                    codes.add(code_of(call, bytes(data), timeout=300))
                else:
                    codes.add(code_of(lambda: list(call(bytes(data), timeout=300))))  # pylint: disable=cell-var-from-loop
        assert codes <= {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND"}, codes
        return sorted(codes)

    # ---- replies that take long to make
    def _ask_http(self, **fields):
        status, body = self._post("/v1/completions", json.dumps({"ignore_eos": True, **fields}))
        assert status == 200, body[:500]
        return len(body)

    def positions(self):
        message = request(MOST, 1, cache_report=cache_pb2.CACHE_REPORT_DETAIL_POSITIONS)
        return f"{self._generation.Generate(message, timeout=300).ByteSize()} bytes"

    def positions_over_http(self):
        return f"{self._ask_http(prompt=MOST, max_tokens=1, cache_report='POSITIONS')} bytes"

    def positions_streamed_over_http(self):
        return f"{self._ask_http(prompt=MOST, max_tokens=1, cache_report='POSITIONS', stream=True)} bytes"

    def scores(self):
        sizes = []
        for i in range(3):
            message = request(f"{i} " + LONG, 1)
            message.output.echo, message.output.top_logprobs = True, 20
            sizes.append(self._generation.Generate(message, timeout=300).ByteSize())
        return f"{sizes} bytes"

    def scores_over_http(self):
        return f"{[self._ask_http(prompt=f'{i} ' + LONG, max_tokens=1, echo=True, logprobs=20) for i in range(3)]} bytes"

    def scores_streamed(self):
        def ask(i):
            message = request(f"{i} " + LONG, 1)
            message.output.echo, message.output.top_logprobs = True, 20
            return sum(event.ByteSize() for event in self._generation.GenerateStream(message, timeout=300))
        return f"{at_once(4, ask)} bytes"

    # ---- clients that leave, or do not read
    def cancelled_streams(self):
        rng = random.Random(2)
        waits = [rng.uniform(0, 0.4) for _ in range(1000)]
        def ask(i):
            call = self._generation.GenerateStream(request(LONG[:rng.choice((10, 400, 3000))], 100))
            try:
                end = time.monotonic() + waits[i]
                while time.monotonic() < end:
                    if i % 3:
                        time.sleep(end - time.monotonic() if end > time.monotonic() else 0)
                    else:
                        next(call)
            except (StopIteration, grpc.RpcError):
                pass
            call.cancel()
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, range(1000)))
        return "1000 streams"

    def never_reading(self):
        """The server, not they, has to end it: but for the neighbour's no call is left."""
        channels, calls = [], []
        for _ in range(4):
            channel = grpc.insecure_channel(self._server.address, options=[("grpc.use_local_subchannel_pool", 1)])  # a connection of its own
            channels.append(channel)
            for _ in range(3):
                message = request("hello", 300)
                message.output.top_logprobs = 20
                calls.append(type(self._generation)(channel).GenerateStream(message))
        sockets = []
        for _ in range(4):
            client = self._connect()
            body = json.dumps({"prompt": "hello", "max_tokens": 300, "ignore_eos": True, "stream": True, "logprobs": 20})
            client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            sockets.append(client)
        eventually(lambda: self._server.figures()["pyramidkv_open_calls"] > 1)
        eventually(lambda: self._server.figures()["pyramidkv_open_calls"] == 1)
        for channel in channels:
            channel.close()
        for client in sockets:
            client.close()
        return f"{len(calls) + len(sockets)} streams"

    def killed_clients(self):
        clients = [subprocess.Popen([sys.executable, os.path.join(HERE, "neighbour.py"), self._server.address], stdout=subprocess.PIPE) for _ in range(4)]
        for client in clients:
            assert client.stdout.readline()[:1].isdigit()
        for client in clients:
            client.kill()
            client.wait()
            client.stdout.close()
        return f"{len(clients)} clients"

    def http_abuse(self):
        for data in (b"\x00" * 10_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000, b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            client = self._connect()
            try:
                client.sendall(data)
                answer = client.recv(100)
            except ConnectionError:  # it would not hear the rest
                answer = b""
            client.close()
            assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
        slow = [self._connect() for _ in range(200)]
        for client in slow:
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
        statuses = [self._post("/v1/completions", body.encode("latin-1"))[0]
                    for body in ("[" * 100_000, "{\"a\":" * 100_000, "[" + "0," * 2_000_000 + "0]", "\xff")]
        for client in slow:
            client.close()
        assert statuses == [400] * 4, statuses
        for address in (self._server.http, self._server.metrics.partition("/")[0]):  # more than a request, none of which is wanted
            with self._connect(address) as client:
                client.sendall(b"GET /v1/models HTTP/1.1\r\n\r\n" + b"x" * 50_000)
                assert client.recv(9) == b"HTTP/1.1 ", address
        return f"5 heads, {len(slow)} slow requests, {len(statuses)} bodies"

    # ---- many at once
    def queue_limit(self):
        """The running take all places; of those that come then exactly as many are refused as there is no room for."""
        holders = [self._generation.GenerateStream(request("hold", 1500)) for _ in range(MAX_RUNNING - 1)]  # and the neighbour
        for call in holders:
            next(call)
        count = MAX_WAITING + 40
        calls, took = [], []
        for i in range(count):
            sent = time.monotonic()
            calls.append(self._generation.Generate.future(request(f"{i}")))
            calls[-1].add_done_callback(lambda _, sent=sent: took.append(time.monotonic() - sent))
        refused, end = [], time.monotonic() + 30
        while len(refused) < count - MAX_WAITING and time.monotonic() < end:
            refused = [call for call in calls if call.done()]
            time.sleep(0.05)
        time.sleep(0.5)
        refused = [call for call in calls if call.done()]
        self.refusal_seconds = sorted(took)
        codes = {call.code().name for call in refused}
        for call in holders:
            call.cancel()
        answered = sum(call.exception(timeout=120) is None for call in calls if call not in refused)
        assert (len(refused), codes, answered) == (count - MAX_WAITING, {"RESOURCE_EXHAUSTED"}, MAX_WAITING), (len(refused), codes, answered)
        return f"{count} at once: {len(refused)} refused, after {1000 * self.refusal_seconds[len(refused) // 2]:.1f} ms in the median, {answered} answered"

    def _watch(self, count):
        """The streams, and what each came to."""
        message = stats_pb2.WatchStatsRequest(include_requests=True)
        message.interval.FromMilliseconds(50)
        calls = [self._server.stats.WatchStats(message) for _ in range(count)]
        return calls, [code_of(next, call) for call in calls]

    def statistics(self):
        room = MAX_WATCHERS - 1  # beside our own
        def all_find_room():
            calls, codes = self._watch(room)
            for call in calls:
                call.cancel()
            return codes == ["OK"] * room
        calls, codes = self._watch(80)
        assert sorted(codes) == ["OK"] * room + ["RESOURCE_EXHAUSTED"] * (80 - room), codes  # gRPC brings them in no order
        end = time.monotonic() + 3
        def ask(_):
            while time.monotonic() < end:
                self._server.stats.GetStats(stats_pb2.GetStatsRequest(include_requests=True), timeout=300)
                self._server.figures()
        at_once(4, ask)
        for call in calls:
            call.cancel()
        eventually(all_find_room)
        return f"{len(calls)} watches, {room} of them let in"

    def reloads(self):
        end = time.monotonic() + 3
        def do(i):
            count = 0
            while time.monotonic() < end:
                count += 1
                if i == 0:
                    self._server.process.send_signal(signal.SIGHUP)
                    time.sleep(0.02)
                else:
                    self._generation.Generate(request("hello"), timeout=300)
            return count
        reloads, *answers = at_once(5, do)
        return f"{reloads} reloads, {sum(answers)} answers"
