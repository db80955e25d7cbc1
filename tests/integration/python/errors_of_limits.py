"""What is refused or ended because there is too much of it, or too little time."""
import urllib.request

import grpc
from pyramidkv.v1 import generation_pb2_grpc, stats_pb2
from real_server import Server, request
from refusals import RefusalTest, refusal_of

EXHAUSTED = "RESOURCE_EXHAUSTED"
ENDLESS = {"max_tokens": 8000, "ignore_eos": True}


def has_slow_reader(server):
    with urllib.request.urlopen(f"http://{server.metrics}", timeout=60) as reply:
        return b'\npyramidkv_requests_rejected_total{reason="SLOW_READER"} 1\n' in reply.read()


class ErrorsOfLimits(RefusalTest):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("scheduler.max_running=1", "scheduler.max_waiting=2", "scheduler.max_waiting_tokens=100", "server.max_watchers=1")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def setUp(self):
        self.generate, self.stream = self.server.generation.Generate, self.server.generation.GenerateStream
        self.rest()

    def rest(self):
        """Until nothing of earlier calls is left, which would be in the queue's way."""
        self.eventually(lambda: not (scheduler := self.scheduler()).running and not scheduler.waiting)

    def scheduler(self):
        return self.stats(self.server).scheduler

    def run_and_wait(self, waiting):
        """A stream that runs, and so many calls that wait for its end."""
        running = self.stream(request("short_chat", **ENDLESS))
        self.addCleanup(running.cancel)
        next(running)
        calls = [self.generate.future(request("short_chat", max_tokens=2)) for _ in range(waiting)]
        self.eventually(lambda: self.scheduler().waiting == waiting)
        return running, calls

    def test_a_full_queue_says_when_to_come_back(self):
        running, waiting = self.run_and_wait(2)
        self.assert_refusal(refusal_of(self.generate, request("short_chat")), EXHAUSTED, "QUEUE_FULL")
        running.cancel()
        self.assertEqual([call.result().usage.completion_tokens for call in waiting], [2, 2])

    def test_a_queue_full_of_tokens_says_how_many_it_takes(self):
        running, (waiting,) = self.run_and_wait(1)
        refusal = self.assert_refusal(refusal_of(self.generate, request("needles_chat")), EXHAUSTED, "QUEUE_FULL", None, ("max", "got"))
        self.assertEqual(refusal.figures, {"max": "100", "got": "1046"})
        running.cancel()
        self.assertEqual(waiting.result().usage.completion_tokens, 2)
        self.assertEqual(self.generate(request("needles_chat", max_tokens=1)).usage.prompt_tokens, 1046)  # where nobody else waits

    def test_deadlines(self):
        running, _ = self.run_and_wait(0)
        for call in (self.generate, lambda *asked, **options: list(self.stream(*asked, **options))):
            self.assertEqual(refusal_of(call, request("short_chat"), timeout=0.3).code, "DEADLINE_EXCEEDED")  # in the queue
        running.cancel()
        self.rest()
        self.assertEqual(refusal_of(self.generate, request("short_chat", **ENDLESS), timeout=0.3).code, "DEADLINE_EXCEEDED")

    def test_a_deadline_that_cannot_be_met_is_refused_at_once(self):
        message = request("gpl2_chat", max_tokens=1)
        for _ in range(10):  # where the machine stands still meanwhile, that was no measurement, or time is up before the refusal comes
            seconds = self.generate(message).timings.prefill.ToMilliseconds() / 1000
            refusal = refusal_of(self.generate, message, timeout=seconds / 4)
            if refusal and refusal.reason:
                break
        self.assert_refusal(refusal, "DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT", None, ("estimated_seconds", "remaining_seconds", "tokens_per_second"))
        self.assertGreater(float(refusal.figures["estimated_seconds"]), float(refusal.figures["remaining_seconds"]))
        self.assertGreater(float(refusal.figures["tokens_per_second"]), 0)

    def refusal_of_unread(self, *settings):
        """How a stream ends of which the server has more to say than its client takes unread."""
        server = Server(*settings)
        self.addCleanup(server.stop)
        message = request("gpl3_text", max_tokens=50, ignore_eos=True)
        message.output.echo, message.output.top_logprobs = True, 20  # half a megabyte before the answer begins
        with grpc.insecure_channel(server.address, options=[("grpc.http2.bdp_probe", 0)]) as channel:  # otherwise it reads megabytes ahead
            call = generation_pb2_grpc.GenerationServiceStub(channel).GenerateStream(message)
            self.eventually(lambda: has_slow_reader(server))
            return refusal_of(list, call)

    def test_a_stream_that_is_not_read_is_cut_off(self):
        refusal = self.refusal_of_unread("server.max_unread_bytes=1KiB", "server.max_unread_seconds=3600")
        self.assert_refusal(refusal, EXHAUSTED, "SLOW_READER", None, ("max", "got"))
        self.assertEqual(refusal.figures["max"], "1024")
        self.assertGreater(int(refusal.figures["got"]), 1024)

    def test_a_message_that_is_not_taken_in_time_ends_its_call(self):
        self.assertEqual(self.refusal_of_unread("server.max_unread_seconds=0.5").code, "CANCELLED")

    def test_watchers_beyond_their_number(self):
        watching = self.server.stats.WatchStats(stats_pb2.WatchStatsRequest())
        next(watching)
        refusal = refusal_of(list, self.server.stats.WatchStats(stats_pb2.WatchStatsRequest()))
        self.assert_refusal(refusal, EXHAUSTED, "TOO_MANY_WATCHERS", None, ("max",))
        self.assertEqual(refusal.figures, {"max": "1"})
        watching.cancel()
