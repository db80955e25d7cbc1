"""Everything that a client can do to harm others, one attack after another, beside a neighbour that reads its stream: hostile.py
[ATTACK...]. What is listed was found by reading the server or is what storms are made of."""
import concurrent.futures
import http.client
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
from google.protobuf.descriptor import FieldDescriptor as Field
from pyramidkv.v1 import cache_pb2, generation_pb2, stats_pb2
from watched_server import WatchedServer

HERE = os.path.dirname(os.path.abspath(__file__))
SENTENCE = "The quick brown fox jumps over the lazy dog. "
LONG = SENTENCE * 180  # about 1,800 tokens
MOST = SENTENCE * 790  # about 7,900: nearly all that the model takes
MAX_WAITING = 32


class Neighbour:
    def __init__(self, address):
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "neighbour.py"), address], stdout=subprocess.PIPE, text=True)
        self.lost, self._times = "", []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("LOST"):
                self.lost = line.strip()
            self._times.append(float(line) if line[0].isdigit() else None)

    def gaps(self, begin, end):
        """(largest, median) seconds between two tokens of one stream, the later of them within [begin, end]."""
        times = list(self._times)
        gaps = sorted(b - a for a, b in zip(times, times[1:]) if a and b and begin <= b <= end)
        return (gaps[-1], gaps[len(gaps) // 2]) if gaps else (math.inf, math.inf)

    def stop(self):
        self.process.kill()
        self.process.wait()


def request(prompt="hello", max_tokens=4, **fields):
    message = generation_pb2.GenerateRequest(prompt=prompt, **fields)
    message.sampling.max_tokens, message.sampling.ignore_eos = max_tokens, True
    return message


def code_of(call, *arguments, **options):
    """OK, or the name of the code; anything else than an answer of the server is a fault of the caller's."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


class Attacks:
    def __init__(self, server):
        self.server, self.generation = server, server.generation
        self.channel = server.channel

    def raw(self, method, kind="unary_unary"):
        return getattr(self.channel, kind)(f"/pyramidkv.v1.{method}", request_serializer=bytes, response_deserializer=bytes)

    @staticmethod
    def at_once(count, work):
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, range(count)))

    # ---- numbers
    def numbers_at_their_extremes(self):
        variants = []
        fill(generation_pb2.GenerateRequest.DESCRIPTOR, [], variants)
        def ask(variant):
            message = request("some words to read, and some more of them", 2)
            variant(message)
            return code_of(self.generation.Generate, message, timeout=30)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(ask, variants))
        assert not set(codes) - {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED", "NOT_FOUND", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}, set(codes)
        return f"{len(codes)} requests, {codes.count('OK')} answered"

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
            code_of(self.generation.Generate, other, timeout=60)
        return code_of(self.generation.Generate, message, timeout=240)

    def long_prompts(self):
        return self.at_once(6, lambda i: code_of(self.generation.Generate, request(f"{i} " + LONG, 2), timeout=120))

    def wide_sampling(self):
        def ask(i):
            message = request("hello", 60)
            message.sampling.temperature, message.sampling.top_p, message.sampling.repetition_penalty = 1.5, 0.99, 1.1
            message.sampling.stop_token_ids.extend(range(256))
            message.sampling.stop.extend(f"stop {i} {k}" for k in range(16))
            message.output.top_logprobs = 20
            return code_of(self.generation.Generate, message, timeout=60)
        return self.at_once(24, ask)

    def comparisons(self):
        message = generation_pb2.CompareRequest(request=request(LONG[:3000], 8))
        message.request.sampling.temperature = 0
        for _ in range(8):
            message.policies.add().snapkv.SetInParent()
        return [code_of(self.generation.Compare, message, timeout=120) for _ in range(2)]

    # ---- bytes
    def texts_too_large(self):
        channel = grpc.insecure_channel(self.server.address, options=[("grpc.max_send_message_length", -1)])
        generation = type(self.generation)(channel)
        codes = [code_of(generation.Generate, request("x" * size), timeout=60) for size in (100_000_000, 15_000_000, 4_000_000)]
        codes += [code_of(generation.Tokenize, generation_pb2.TokenizeRequest(text="word " * 3_000_000), timeout=60)]
        cut = request("word " * 3_000_000)
        cut.truncate_prompt_tokens = 100
        codes.append(code_of(generation.Generate, cut, timeout=60))
        channel.close()
        return codes

    def values_too_many(self):
        empty = bytes([0x2A]) + varint(4_000_000) + b"\x0a\x00" * 2_000_000  # chat { messages {} ... }
        stops = bytes([0x32]) + varint(4_000_000) + b"\x6a\x00" * 2_000_000  # sampling { stop: "" ... }
        return [code_of(self.raw("GenerationService/Generate"), bytes_, timeout=60) for bytes_ in (empty, stops)]

    def malformed(self):
        rng, codes = random.Random(1), set()
        good = request("hello").SerializeToString()
        for method, kind in (("GenerationService/Generate", "unary_unary"), ("GenerationService/Compare", "unary_unary"),
                             ("GenerationService/Tokenize", "unary_unary"), ("GenerationService/EstimateCache", "unary_unary"),
                             ("StatsService/GetStats", "unary_unary"), ("GenerationService/GenerateStream", "unary_stream")):
            call = self.raw(method, kind)
            for i in range(100):
                data = bytearray(good if i % 2 else rng.randbytes(rng.randint(1, 300)))
                for _ in range(rng.randint(0, 4)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                if kind == "unary_unary":
                    codes.add(code_of(call, bytes(data), timeout=30))
                else:
                    codes.add(code_of(lambda: list(call(bytes(data), timeout=30))))  # pylint: disable=cell-var-from-loop
        return sorted(codes)

    # ---- replies that take long to make
    def ask_http(self, **fields):
        host, port = self.server.http.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        connection.request("POST", "/v1/completions", json.dumps({"ignore_eos": True, **fields}))
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        assert reply.status == 200, body[:500]
        return len(body)

    def positions(self):
        message = request(MOST, 1, cache_report=cache_pb2.CACHE_REPORT_DETAIL_POSITIONS)
        return f"{self.generation.Generate(message, timeout=300).ByteSize()} bytes"

    def positions_over_http(self):
        return f"{self.ask_http(prompt=MOST, max_tokens=1, cache_report='POSITIONS')} bytes"

    def positions_streamed_over_http(self):
        return f"{self.ask_http(prompt=MOST, max_tokens=1, cache_report='POSITIONS', stream=True)} bytes"

    def scores(self):
        sizes = []
        for i in range(3):
            message = request(f"{i} " + LONG, 1)
            message.output.echo, message.output.top_logprobs = True, 20
            sizes.append(self.generation.Generate(message, timeout=300).ByteSize())
        return f"{sizes} bytes"

    def scores_over_http(self):
        return f"{[self.ask_http(prompt=f'{i} ' + LONG, max_tokens=1, echo=True, logprobs=20) for i in range(3)]} bytes"

    def scores_streamed(self):
        def ask(i):
            message = request(f"{i} " + LONG, 1)
            message.output.echo, message.output.top_logprobs = True, 20
            return sum(event.ByteSize() for event in self.generation.GenerateStream(message, timeout=300))
        return f"{self.at_once(4, ask)} bytes"

    # ---- clients that leave, or do not read
    def cancelled_streams(self):
        rng = random.Random(2)
        waits = [rng.uniform(0, 0.4) for _ in range(1000)]
        def ask(i):
            call = self.generation.GenerateStream(request(LONG[:rng.choice((10, 400, 3000))], 100))
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
        channels, calls = [], []
        for _ in range(4):
            channel = grpc.insecure_channel(self.server.address)
            channels.append(channel)
            for _ in range(3):
                message = request("hello", 300)
                message.output.top_logprobs = 20
                calls.append(type(self.generation)(channel).GenerateStream(message))
        host, port = self.server.http.split(":")
        sockets = []
        for _ in range(4):
            client = socket.create_connection((host, int(port)))
            body = json.dumps({"prompt": "hello", "max_tokens": 300, "ignore_eos": True, "stream": True, "logprobs": 20})
            client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            sockets.append(client)
        time.sleep(5)
        for channel in channels:
            channel.close()
        for client in sockets:
            client.close()
        return f"{len(calls) + len(sockets)} streams"

    def killed_clients(self):
        clients = [subprocess.Popen([sys.executable, os.path.join(HERE, "neighbour.py"), self.server.address], stdout=subprocess.DEVNULL)
                   for _ in range(4)]
        time.sleep(3)
        for client in clients:
            client.send_signal(signal.SIGKILL)
            client.wait()
        return "4 clients"

    def http_abuse(self):
        host, port = self.server.http.split(":")
        for data in (b"\x00" * 10_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000, b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            client = socket.create_connection((host, int(port)))
            try:
                client.sendall(data)
                client.settimeout(5)
                client.recv(100)
            except OSError:
                pass
            client.close()
        slow = [socket.create_connection((host, int(port))) for _ in range(200)]
        for client in slow:
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        statuses = []
        for body in ("[" * 100_000, "{\"a\":" * 100_000, "[" + "0," * 2_000_000 + "0]", "\xff"):
            connection.request("POST", "/v1/completions", body.encode("latin-1"))
            reply = connection.getresponse()
            reply.read()
            statuses.append(reply.status)
        for client in slow:
            client.close()
        assert all(400 <= status < 500 for status in statuses), statuses
        return statuses

    # ---- many at once
    def queue_limit(self):
        """The running take all places; of those that come then exactly as many are refused as there is no room for."""
        holders = [self.generation.GenerateStream(request("hold", 1500)) for _ in range(self.server.max_running - 1)]  # and the neighbour
        for call in holders:
            next(call)
        count = MAX_WAITING + 40
        calls, took = [], []
        for i in range(count):
            sent = time.monotonic()
            calls.append(self.generation.Generate.future(request(f"{i}")))
            calls[-1].add_done_callback(lambda _, sent=sent: took.append(time.monotonic() - sent))
        refused, end = [], time.monotonic() + 30
        while len(refused) < count - MAX_WAITING and time.monotonic() < end:
            refused = [call for call in calls if call.done()]
            time.sleep(0.05)
        time.sleep(0.5)
        refused, times = [call for call in calls if call.done()], sorted(took)
        codes = {call.code().name for call in refused}
        for call in holders:
            call.cancel()
        answered = sum(call.exception(timeout=120) is None for call in calls if call not in refused)
        assert (len(refused), codes, answered) == (count - MAX_WAITING, {"RESOURCE_EXHAUSTED"}, MAX_WAITING), (len(refused), codes, answered)
        return (f"{count} at once: {len(refused)} refused, after {times[len(times) // 2] * 1000:.1f} ms in the median and {times[-1] * 1000:.1f} "
                f"at most, {answered} answered")

    def statistics(self):
        watch = stats_pb2.WatchStatsRequest(include_requests=True)
        watch.interval.FromMilliseconds(50)
        watches = [self.server.stats.WatchStats(watch) for _ in range(80)]
        end = time.monotonic() + 3
        def ask(_):
            while time.monotonic() < end:
                code_of(self.server.stats.GetStats, stats_pb2.GetStatsRequest(include_requests=True), timeout=30)
                self.server.figures()
        self.at_once(4, ask)
        for call in watches:
            call.cancel()
        return "80 watches"

    def reloads(self):
        end = time.monotonic() + 3
        def ask(_):
            while time.monotonic() < end:
                assert code_of(self.generation.Generate, request("hello"), timeout=60) == "OK"
        reloader = threading.Thread(target=self.at_once, args=(4, ask))
        reloader.start()
        count = 0
        while time.monotonic() < end:
            self.server.process.send_signal(signal.SIGHUP)
            count += 1
            time.sleep(0.02)
        reloader.join()
        return f"{count} reloads"


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


INTEGERS = {Field.CPPTYPE_INT32: (31, True), Field.CPPTYPE_INT64: (63, True), Field.CPPTYPE_UINT32: (32, False), Field.CPPTYPE_UINT64: (64, False)}


def values_of(field):
    if field.cpp_type in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        return [math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e-30, 3e38]
    if field.cpp_type == Field.CPPTYPE_ENUM:
        return [0, 99, 2**31 - 1]
    if field.cpp_type in INTEGERS:
        bits, signed = INTEGERS[field.cpp_type]
        return [0, 1, 2**bits - 1, 2**24, 2**30] + ([-1, -2**bits] if signed else [])
    return []


def fill(descriptor, path, variants):
    """One function for every numeric field below a message and every extreme value of it, which sets it."""
    for field in descriptor.fields:
        here = [*path, field]
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            fill(field.message_type, here, variants)
        for value in values_of(field):
            variants.append(lambda message, here=here, value=value: put(message, here, value))


def put(message, path, value):
    for field in path[:-1]:
        inner = getattr(message, field.name)
        message = inner.add() if field.label == Field.LABEL_REPEATED else inner
    last = path[-1]
    if last.label == Field.LABEL_REPEATED:
        getattr(message, last.name).append(value)
    else:
        setattr(message, last.name, value)


def in_mid_stream(server):
    """SIGTERM: what streams ends in order, or with a code that says to go elsewhere."""
    calls = [server.generation.GenerateStream(request("hello", 40)) for _ in range(4)]
    for call in calls:
        next(call)
    server.process.send_signal(signal.SIGTERM)
    codes = [code_of(list, call) for call in calls]
    assert set(codes) <= {"OK", "UNAVAILABLE"}, codes
    return codes


def main(names):
    all_names = [name for name in vars(Attacks) if not name.startswith("_") and name not in ("raw", "at_once", "ask_http")]
    if wrong := set(names) - set(all_names):
        sys.exit(f"no such attack: {', '.join(wrong)}; there are {', '.join(all_names)}")
    return run(names or all_names)


def run(names):
    server = WatchedServer(f"scheduler.max_waiting={MAX_WAITING}", "scheduler.max_running=24", "cache.pool_bytes=2GiB", "server.max_unread_seconds=2", "http.idle_seconds=2",
                           "server.drain_seconds=20")
    server.max_running = 24
    attacks, faults = Attacks(server), []
    neighbour = Neighbour(server.address)
    time.sleep(1)
    server.baseline["open calls"] += 1  # the neighbour's; its pages come and go
    server.baseline = {name: value for name, value in server.baseline.items() if name in ("open calls", "waiting")}
    full_kept, server.kept = server.kept, lambda: {name: value for name, value in full_kept().items() if name in server.baseline}
    begin = time.monotonic()
    time.sleep(8)
    quiet = neighbour.gaps(begin, time.monotonic())
    print(f"{'(nobody)':28} largest gap {quiet[0] * 1000:7.1f} ms, median {quiet[1] * 1000:6.1f} ms")
    for name in names:
        begin = time.monotonic()
        try:
            what = getattr(attacks, name)()
        except Exception as error:  # pylint: disable=broad-except
            what = repr(error)
            faults.append(f"{name}: {what}")
        gap = neighbour.gaps(begin, time.monotonic())
        if gap[0] == math.inf:
            faults.append(f"{name}: the neighbour got no token")
        faults += [f"{name}: {fault}" for fault in server.rest()]
        print(f"{name:28} largest gap {gap[0] * 1000:7.1f} ms, median {gap[1] * 1000:6.1f} ms, {time.monotonic() - begin:5.1f} s: {what}", flush=True)
    faults += server.faults
    if neighbour.lost:
        faults.append(f"the neighbour: {neighbour.lost}")
    neighbour.stop()
    print("(SIGTERM in mid-stream)", in_mid_stream(server))
    code = server.process.wait(timeout=60)
    if code != 0:
        faults.append(f"the server ended with {code}")
    for fault in faults[:30]:
        print("FAULT:", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
