"""What a server says that is loading, ending or broken, and one whose model is not as it should be."""
import os
import signal
import tempfile

from edited_model import edited_model
from google.protobuf import duration_pb2
from pyramidkv.v1 import generation_pb2, stats_pb2
from real_server import Server, request
from refusals import RefusalTest, refusal_of

ENDLESS = {"max_tokens": 8000, "ignore_eos": True}
UNAVAILABLE = "UNAVAILABLE"


class ErrorsOfServers(RefusalTest):
    def start(self, *settings, **options):
        server = Server("scheduler.max_running=1", *settings, **options)
        self.addCleanup(server.process.kill)  # where it cannot be stopped: one whose device never comes
        self.addCleanup(server.stop)
        return server

    def start_stream(self, server):
        call = server.generation.GenerateStream(request("short_chat", **ENDLESS))
        self.addCleanup(call.cancel)
        next(call)
        return call

    def folder(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def test_while_the_model_is_being_loaded(self):
        pipe = os.path.join(self.folder(), "device")
        os.mkfifo(pipe)
        server = self.start(program="failing-server", device_after=pipe)
        for call in (server.generation.Generate, lambda message: list(server.generation.GenerateStream(message))):
            self.assert_refusal(refusal_of(call, request("short_chat")), UNAVAILABLE, "LOADING")
        self.assert_refusal(refusal_of(server.generation.Tokenize, generation_pb2.TokenizeRequest(text="hello")), UNAVAILABLE, "LOADING")
        self.assertEqual(self.stats(server).state, stats_pb2.SERVER_STATE_LOADING)
        with open(pipe, "wb"):
            pass
        self.eventually(lambda: self.stats(server).state == stats_pb2.SERVER_STATE_SERVING)
        self.assertEqual(server.generation.Generate(request("short_chat", max_tokens=1)).usage.completion_tokens, 1)

    def test_when_the_engine_has_failed(self):
        server = self.start(program="failing-server")
        running = self.start_stream(server)
        waiting = server.generation.Generate.future(request("short_chat"))
        self.eventually(lambda: self.stats(server).scheduler.waiting == 1)
        server.process.send_signal(signal.SIGUSR1)
        self.assert_refusal(refusal_of(list, running), "INTERNAL", "ENGINE_FAILED")
        self.assert_refusal(refusal_of(waiting.result), UNAVAILABLE, "ENGINE_FAILED")
        self.assertEqual(server.process.wait(timeout=60), 1)

    def test_without_memory_for_a_prompt(self):
        server = self.start(program="failing-server")
        generate, message = server.generation.Generate, request("short_chat", max_tokens=1)
        server.process.send_signal(signal.SIGRTMIN)
        self.eventually(lambda: refusal_of(generate, message))
        for call in (generate, lambda asked: list(server.generation.GenerateStream(asked))):
            self.assert_refusal(refusal_of(call, message), "RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
        server.process.send_signal(signal.SIGRTMIN)
        self.eventually(lambda: not refusal_of(generate, message))

    def test_while_it_drains(self):
        server = self.start("server.drain_seconds=3600")
        running = self.start_stream(server)
        server.process.send_signal(signal.SIGTERM)
        self.eventually(lambda: self.stats(server).state == stats_pb2.SERVER_STATE_DRAINING)
        self.assert_refusal(refusal_of(server.generation.Generate, request("short_chat")), UNAVAILABLE, "DRAINING")
        running.cancel()
        self.assertEqual(server.process.wait(timeout=60), 0)

    def test_what_runs_when_the_time_to_drain_is_up(self):
        server = self.start("server.drain_seconds=0")
        running, watching = self.start_stream(server), server.stats.WatchStats(stats_pb2.WatchStatsRequest(interval=duration_pb2.Duration(seconds=3600)))
        next(watching)
        waiting = server.generation.Generate.future(request("short_chat"))
        self.eventually(lambda: self.stats(server).scheduler.waiting == 1)
        server.process.send_signal(signal.SIGTERM)
        for call, *arguments in ((list, running), (waiting.result,), (list, watching)):
            self.assert_refusal(refusal_of(call, *arguments), UNAVAILABLE, "DRAINING")
        self.assertEqual(server.process.wait(timeout=60), 0)

    def serve_edited(self, edit):
        """The model, with `edit` done to its file."""
        path = os.path.join(self.folder(), "edited.gguf")
        with edited_model(path) as model:
            edit(model)
        return self.start(f"model.path={path}", "model.lane_table=")

    def assert_chat_is_refused(self, server, reason):
        chat = generation_pb2.ChatInput(messages=[generation_pb2.ChatMessage(role="user", content="hello")])
        for call, message in ((server.generation.Generate, generation_pb2.GenerateRequest), (server.generation.Tokenize, generation_pb2.TokenizeRequest)):
            self.assert_refusal(refusal_of(call, message(chat=chat)), "FAILED_PRECONDITION", reason, "chat")

    def test_a_model_without_a_chat_template(self):
        server = self.serve_edited(lambda model: model.lose("tokenizer.chat_template"))
        self.assert_chat_is_refused(server, "NO_CHAT_TEMPLATE")
        self.assertEqual(server.generation.Generate(request("short_chat", max_tokens=1)).usage.completion_tokens, 1)

    def test_a_chat_template_that_fails(self):
        server = self.serve_edited(lambda model: model.set_text("tokenizer.chat_template", "{{ messages[0].x.y }}"))
        self.assert_chat_is_refused(server, "CHAT_TEMPLATE_FAILED")
        self.assertEqual(server.generation.Generate(request("short_chat", max_tokens=1)).usage.completion_tokens, 1)

    def test_weights_that_are_no_numbers(self):
        server = self.serve_edited(lambda model: model.spoil("output_norm.weight"))
        for call in (server.generation.Generate, lambda message: list(server.generation.GenerateStream(message))):
            self.assert_refusal(refusal_of(call, request("short_chat")), "INTERNAL", "NOT_A_NUMBER")
        self.assertEqual(self.stats(server).state, stats_pb2.SERVER_STATE_SERVING)
