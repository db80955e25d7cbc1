"""The server program under a load that means it harm, and what has to hold at every moment of it."""
import re
import threading
import time
import urllib.request

import grpc
from pyramidkv.v1 import stats_pb2, stats_pb2_grpc
from real_server import Server


# Of /metrics: what callers hold. open_calls counts their mailboxes, too.
KEPT = ("open_calls", "requests_running", "requests_waiting", "waiting_prompt_tokens", "connections")


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Every call of a channel says who asks."""

    def __init__(self, key):
        self._metadata = [("authorization", f"Bearer {key}")]

    def _with_key(self, proceed, details, request):
        return proceed(details._replace(metadata=self._metadata), request)

    intercept_unary_unary = intercept_unary_stream = _with_key


def with_key(channel, key):
    return grpc.intercept_channel(channel, Bearer(key))


class WatchedServer(Server):
    """Every state that WatchStats tells is checked against the invariants; what did not hold is in `faults`. With a key, it is
    asked for its statistics by that."""

    def __init__(self, *settings, key=""):
        super().__init__("http.listen=127.0.0.1:0", *settings)
        if key:
            self.stats = stats_pb2_grpc.StatsServiceStub(with_key(self.channel, key))
        self.faults, self.states, self.most_running = [], 0, 0
        self._watch = self.stats.WatchStats(self._every(0.05))
        self._watcher = threading.Thread(target=self._check_all, daemon=True)
        self._stopping = False
        self._watcher.start()
        self.baseline = self.kept()

    @staticmethod
    def _every(seconds):
        request = stats_pb2.WatchStatsRequest()
        request.interval.FromNanoseconds(int(seconds * 1e9))
        return request

    def _check_all(self):
        try:
            for message in self._watch:
                self.states += 1
                self._check(message.stats)
            why = "without an error"
        except grpc.RpcError as error:
            why = error.details()
        if not self._stopping:
            self.faults.append(f"the watch ended after {self.states} states: {why}")

    def _check(self, stats):
        memory, scheduler = stats.memory, stats.scheduler
        self.most_running = max(self.most_running, scheduler.running)
        for good, what in ((memory.kv_pool_bytes == memory.kv_live_bytes + memory.kv_free_bytes, "pool = live + free"),
                           (memory.kv_live_bytes <= memory.kv_reserved_bytes <= memory.kv_pool_bytes, "live <= reserved <= pool"),
                           (memory.kv_held_bytes <= memory.kv_live_bytes, "held <= live"),
                           (scheduler.running <= scheduler.max_running, "running <= max_running"),
                           (scheduler.waiting <= scheduler.max_waiting, "waiting <= max_waiting"),
                           (stats.state != stats_pb2.SERVER_STATE_FAILED, "the engine works")):
            if not good:
                self.faults.append(f"{what}: {memory} {scheduler}")

    def figures(self):
        """Of /metrics, by name and labels."""
        with urllib.request.urlopen(f"http://{self.metrics}", timeout=60) as reply:
            return {name: float(value) for name, value in re.findall(r"^(\w+(?:{[^}]*})?) (\S+)$", reply.read().decode(), re.MULTILINE)}

    def kept(self):
        """What has to come back to where it was."""
        memory = self.memory()  # before the figures, so that the connection it goes by is one of theirs
        figures = self.figures()
        kept = {name: figures[f"pyramidkv_{name}"] for name in KEPT}
        kept.update({name: value for name, value in figures.items() if name.startswith("pyramidkv_calls{")})
        return kept | {"kv_live_bytes": memory.kv_live_bytes, "kv_reserved_bytes": memory.kv_reserved_bytes, "kv_held_bytes": memory.kv_held_bytes}

    def rest(self, timeout=60):
        """Waits until everything is back; what is not, as a list of sentences."""
        end = time.monotonic() + timeout
        while (kept := self.kept()) != self.baseline and time.monotonic() < end:
            time.sleep(0.05)
        return [f"{name}: {kept[name]}, not {was}" for name, was in self.baseline.items() if kept[name] != was]

    def resident(self):
        return self.figures()["process_resident_memory_bytes"]

    def stop(self):
        self._stopping = True
        self._watch.cancel()
        self._watcher.join()
        return super().stop()
