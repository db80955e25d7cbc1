"""Commands about the server (stats, health, version) against a server that says what a test wants: what is printed where, exit codes."""
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import unittest
from concurrent import futures

import grpc
from pyramidkv.v1 import model_pb2, model_pb2_grpc, stats_pb2, stats_pb2_grpc

CLIENT = os.path.join(os.environ["PKV_BIN"], "pyramidkv")
SERVING, NOT_SERVING = 1, 2
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


class Stats(stats_pb2_grpc.StatsServiceServicer):
    """Sends `messages`, then what `ending` does: nothing where it is None, so that the stream stays open."""

    def __init__(self):
        self.asked, self.messages, self.ending = [], 3, None
        self.left = threading.Event()

    @staticmethod
    def state(number):
        stats = stats_pb2.Stats(version="9.8.7", state=stats_pb2.SERVER_STATE_SERVING, sequence=number)
        stats.uptime.seconds = 10 + number
        stats.totals.generation_tokens = 100 * number
        stats.memory.kv_pool_bytes, stats.memory.kv_live_bytes, stats.memory.kv_free_bytes = 4 << 20, 1 << 20, 3 << 20
        stats.policies.add(policy="snapkv", running=2, held_bytes=1 << 20)
        return stats

    def GetStats(self, request, context):
        return stats_pb2.GetStatsResponse(stats=self.state(1))

    def WatchStats(self, request, context):
        self.asked.append(request)
        if request.interval.ToNanoseconds() < 50_000_000:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "interval: must be 50ms to 1h")
        if self.ending and len(self.asked) > 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        context.add_callback(self.left.set)
        for number in range(self.messages):
            yield stats_pb2.WatchStatsResponse(stats=self.state(number))
        if self.ending:
            context.abort(self.ending, "the end")
        self.left.wait(60)


class Models(model_pb2_grpc.ModelServiceServicer):
    """Serves a model on `device`; none where that is None."""

    def __init__(self):
        self.device = None

    def ListModels(self, request, context):
        return model_pb2.ListModelsResponse(models=[model_pb2.Model(id="m", device=self.device)] if self.device else [])


class Server:
    def __init__(self):
        self.stats, self.models, self.services = Stats(), Models(), {}
        self.grpc = grpc.server(futures.ThreadPoolExecutor(4))
        stats_pb2_grpc.add_StatsServiceServicer_to_server(self.stats, self.grpc)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self.models, self.grpc)
        health = grpc.unary_unary_rpc_method_handler(self.check_health)  # bytes in, bytes out
        self.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),))
        self.address = f"127.0.0.1:{self.grpc.add_insecure_port('127.0.0.1:0')}"
        self.grpc.start()

    def check_health(self, request, context):
        name = request[2:].decode()
        if name == "slow":
            self.stats.left.wait(60)
        if name not in self.services:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return bytes((8, self.services[name])) if self.services[name] else b""

    def stop(self):
        self.stats.left.set()
        self.grpc.stop(None).wait()


class ServerCommandsTest(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)

    def run_client(self, *words):
        done = subprocess.run([CLIENT, "--server", self.server.address, *words], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def start_client(self, *words):
        process = subprocess.Popen([CLIENT, "--server", self.server.address, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_on_terminal(self, columns, *words, **environment):
        """The client on a pseudo-terminal; what it writes is read from the returned descriptor."""
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        settings = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | environment
        process = subprocess.Popen([CLIENT, "--server", self.server.address, *words], stdin=other, stdout=other, stderr=other, env=settings)
        os.close(other)
        self.addCleanup(os.close, main)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, main

    @staticmethod
    def read_until(descriptor, wanted, times=1):
        text = b""
        while text.count(wanted) < times:
            try:
                text += os.read(descriptor, 4096)
            except OSError:  # the other side is closed
                break
        return text

    def test_stats_say_what_computes_once_a_model_is_served(self):
        self.assertNotIn("computes on", self.run_client("stats")[1])
        self.server.models.device = "cpu (2 threads); measured: prompt products bf16 (1.92x avx512)"
        code, printed, _ = self.run_client("stats")
        self.assertEqual(code, 0)
        self.assertIn("computes on cpu (2 threads); measured: prompt products bf16 (1.92x avx512)\n", printed)
        self.assertEqual(list(json.loads(self.run_client("stats", "--json")[1])), ["stats"])

    def test_a_line_a_message_where_there_is_no_terminal(self):
        code, printed, _ = self.run_client("stats", "--watch", "--count", "2", "--interval", "250ms")
        lines = printed.splitlines()
        self.assertEqual((code, len(lines)), (0, 2))
        self.assertEqual(lines[1].split()[:2], ["uptime_seconds=11.0", "state=SERVING"])
        self.assertIn(" generated_tokens_per_second=100.0 ", lines[1])
        self.assertNotIn("\x1b", printed)
        self.assertEqual(self.server.stats.asked[0].interval.ToMilliseconds(), 250)
        self.assertTrue(self.server.stats.left.wait(60))  # the stream was ended, not forgotten

    def test_json_is_one_message_a_line(self):
        code, printed, _ = self.run_client("stats", "--watch", "--json", "--requests", "--count", "3")
        messages = [json.loads(line) for line in printed.splitlines()]
        self.assertEqual(code, 0)
        self.assertEqual([message["stats"]["uptime"] for message in messages], ["10s", "11s", "12s"])
        self.assertTrue(self.server.stats.asked[0].include_requests)
        self.assertEqual(self.server.stats.asked[0].interval.ToMilliseconds(), 1000)

    def test_an_interrupt_is_a_good_end(self):
        for sent, code in ((signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)):
            process = self.start_client("stats", "--watch")
            for _ in range(3):
                self.assertIn("state=SERVING", process.stdout.readline())
            process.send_signal(sent)
            self.assertEqual(process.wait(60), code)

    def test_a_server_that_goes_away(self):
        process = self.start_client("stats", "--watch")
        process.stdout.readline()
        self.server.stop()
        said = process.stderr.read()
        self.assertEqual(process.wait(60), 3, said)
        self.assertIn("the server has gone", said)

    def test_a_closed_connection_is_made_anew_once(self):
        self.server.stats.ending = grpc.StatusCode.UNAVAILABLE
        code, printed, message = self.run_client("stats", "--watch")
        self.assertEqual((code, len(printed.splitlines()), len(self.server.stats.asked)), (3, 3, 2))
        self.assertIn("the server has gone: the server is stopping", message)

    def test_an_error_of_the_server_ends_it(self):
        self.server.stats.ending = grpc.StatusCode.INTERNAL
        code, printed, message = self.run_client("stats", "--watch")
        self.assertEqual((code, len(printed.splitlines())), (1, 3))
        self.assertIn("the end", message)
        code, _, message = self.run_client("stats", "--watch", "--interval", "1ms")
        self.assertEqual(code, 1)
        self.assertIn("interval: must be", message)

    def test_wrong_usage(self):
        for words in (("--interval", "1s"), ("--count", "3"), ("--watch", "--interval", "soon"), ("--watch", "--count", "0"), ("--watch", "--count", "-1")):
            self.assertEqual(self.run_client("stats", *words)[0], 2, words)
        self.assertEqual(self.run_client("health", "--timeout", "0")[0], 2)
        self.assertEqual(self.server.stats.asked, [])

    def test_on_a_terminal_it_is_drawn_in_place(self):
        process, terminal = self.start_on_terminal(72, "stats", "--watch")
        drawn = self.read_until(terminal, b"\x1b[J", times=3)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 0)
        drawn += self.read_until(terminal, SHOW)
        self.assertEqual((drawn.count(HIDE), drawn.count(SHOW)), (1, 1))
        self.assertTrue(drawn.endswith(SHOW))
        self.assertEqual(len(re.findall(rb"\r\x1b\[9A", drawn)), 2)  # over the 9 lines of the one before
        self.assertIn(b"\x1b[32mSERVING\x1b[0m", drawn)
        for line in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", drawn).replace(b"\r", b"").split(b"\n"):
            self.assertLessEqual(len(line), 72)

    def test_the_cursor_is_back_after_the_last_message_and_after_an_error(self):
        for words in (("--count", "2"), ("--interval", "1ms")):
            process, terminal = self.start_on_terminal(80, "stats", "--watch", *words)
            drawn = self.read_until(terminal, SHOW)
            self.assertIn(SHOW, drawn)
            self.assertIn(process.wait(60), (0, 1))

    def test_no_color_and_a_dumb_terminal(self):
        process, terminal = self.start_on_terminal(80, "stats", "--watch", "--count", "2", NO_COLOR="1")
        drawn = self.read_until(terminal, SHOW)
        self.assertEqual(process.wait(60), 0)
        self.assertNotRegex(drawn, rb"\x1b\[[0-9]+m")
        self.assertIn(b"\x1b[2K", drawn)
        process, terminal = self.start_on_terminal(80, "stats", "--watch", "--count", "2", TERM="dumb")
        drawn = self.read_until(terminal, b"\n", times=2)
        self.assertEqual(process.wait(60), 0)
        self.assertNotIn(b"\x1b", drawn)
        self.assertEqual(drawn.count(b"uptime_seconds="), 2)

    def test_health(self):
        self.server.services = {"": SERVING, "pyramidkv.v1.GenerationService": NOT_SERVING, "new": 9, "unset": 0}
        for words, expected in (((), (0, "SERVING\n")), (("--service", "pyramidkv.v1.GenerationService"), (1, "NOT_SERVING\n")),
                                (("--service", "another"), (1, "SERVICE_UNKNOWN\n")), (("--service", "new"), (1, "UNKNOWN\n")),
                                (("--service", "unset"), (1, "UNKNOWN\n"))):
            code, printed, message = self.run_client("health", *words)
            self.assertEqual(((code, printed), message), (expected, ""), words)
        code, printed, message = self.run_client("health", "--service", "slow", "--timeout", "0.2")
        self.assertEqual((code, printed), (3, ""))
        self.assertIn("within 200ms", message)

    def test_version(self):
        _, printed, _ = self.run_client("--version")
        self.assertRegex(printed, r"^pyramidkv \d+\.\d+\.\d+\n$")
        self.assertEqual(self.run_client("version")[:2], (0, f"{printed}server {self.server.address}: 9.8.7\n"))

    def test_no_server(self):
        self.server.stop()
        for words in (("health",), ("stats",), ("stats", "--watch")):
            code, printed, message = self.run_client(*words)
            self.assertEqual((code, printed), (3, ""), words)
            self.assertIn("no server at", message)
        code, printed, _ = self.run_client("version")
        self.assertEqual(code, 0)
        self.assertIn("no server at", printed)


if __name__ == "__main__":
    unittest.main()
