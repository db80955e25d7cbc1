"""The chat as somebody at a terminal sees it, through a pseudo-terminal: editing, history, Ctrl-C, commands, errors that do not end it."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

from google.protobuf import json_format
from pyramidkv.v1 import generation_pb2
from real_server import BIN, ServerTest

CLIENT = os.path.join(BIN, "pyramidkv")
SUMMARY = r"first token [\d.]+ s"
PROMPT = "> "


class Terminal:
    def __init__(self, address, folder, *words):
        self.process_id, self.descriptor = pty.fork()
        if self.process_id == 0:
            os.environ.update(PYRAMIDKV_SERVER=address, XDG_STATE_HOME=folder, TERM="xterm", HOME=folder, LC_ALL="C.UTF-8")
            os.environ.pop("PYRAMIDKV_HISTORY", None)
            os.execv(CLIENT, [CLIENT, "chat", *words])
        self.text, self.seen = "", 0

    def expect(self, pattern, seconds=60):
        """Waits for text behind what was expected before; returns the match."""
        deadline = time.monotonic() + seconds
        while True:
            plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", self.text)
            if found := re.compile(pattern).search(plain, self.seen):
                self.seen = found.end()
                return found
            if time.monotonic() > deadline or not select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {pattern!r} in {plain[self.seen:]!r}")
            try:
                read = os.read(self.descriptor, 4096)
            except OSError:
                read = b""
            if not read:
                raise AssertionError(f"ended without {pattern!r}: {plain[self.seen:]!r}")
            self.text += read.decode(errors="replace")

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def say(self, line, pattern):
        self.type(line + "\n")
        found = self.expect(pattern)
        self.expect(PROMPT)
        return found

    def interrupt(self):
        """Ctrl-C. The terminal then drops what was just printed, a prompt among it, so an empty line asks for another one."""
        self.type("\x03")
        for _ in range(20):
            try:
                self.expect(PROMPT, seconds=2)
                return
            except AssertionError:
                self.type("\n")
        raise AssertionError(f"no prompt behind Ctrl-C: {self.text[-500:]!r}")

    def end(self, typed=""):
        """Exit code, once it has ended by itself. What is `typed` is typed again each second: what comes before the editor reads is lost."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.type(typed)
            try:
                while select.select([self.descriptor], [], [], 1)[0]:
                    if not (read := os.read(self.descriptor, 4096)):
                        break
                    self.text += read.decode(errors="replace")
            except OSError:  # the other end is closed
                _, status = os.waitpid(self.process_id, 0)
                os.close(self.descriptor)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.process_id, signal.SIGKILL)
        raise AssertionError(f"did not end: {self.text[-500:]!r}")


class ChatTest(ServerTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start(self, *words):
        terminal = Terminal(self.server.address, self.folder, *words)
        terminal.expect(r"/help lists the commands")
        terminal.expect(PROMPT)
        return terminal

    def leave(self, terminal):
        self.assertEqual(terminal.end("\x04"), 0)

    def test_it_remembers_and_control_d_leaves(self):
        chat = self.start("-n", "24")
        chat.say("My name is Ada.", SUMMARY)
        chat.say("What is my name?", SUMMARY)
        chat.say("", "")
        chat.say("/stats", r"2 exchanges, \d+ of at most 8192 tokens\n[^>]*prompt tokens")
        saved = os.path.join(self.folder, "chat.json")
        chat.say(f"/save {saved}", r"saved 2 exchanges")
        self.leave(chat)
        with open(saved, encoding="utf-8") as file:
            said = json_format.ParseDict(json.load(file), generation_pb2.ChatInput()).messages
        self.assertEqual([m.role for m in said], ["user", "assistant"] * 2)
        for turn in (1, 3):  # each answer is the one to everything said before
            request = generation_pb2.GenerateRequest(chat={"messages": said[:turn]}, sampling={"temperature": 0, "max_tokens": 24})
            self.assertEqual(self.server.generation.Generate(request).choices[0].text, said[turn].content)

    def test_editing_and_history(self):
        chat = self.start("-n", "4")
        chat.type("/badget\x02\x02\x02\x02\x7f")  # to behind the b-a, then the a goes
        chat.type("u\x05 16\n")
        chat.expect(r"cache policy: [^\n]*budget 16")
        chat.expect(PROMPT)
        chat.type("/forget 3\n")
        chat.expect(r"dropped 0, 0 exchanges left")
        chat.expect(PROMPT)
        self.leave(chat)
        again = self.start("-n", "4")
        again.type("\x1b[A\n")
        again.expect(r"dropped 0, 0 exchanges left")
        again.expect(PROMPT)
        self.leave(again)
        mode = os.stat(os.path.join(self.folder, "pyramidkv", "chat_history")).st_mode
        self.assertEqual(mode & 0o077, 0)

    def test_control_c_stops_the_answer_and_keeps_the_conversation(self):
        chat = self.start("--ignore-eos", "-n", "6000")
        chat.type("Write a long story about a dog.\n")
        chat.expect(r"dog\.\n")
        chat.expect(r"(\w+ ){5}")
        chat.interrupt()
        chat.type("typed but not sent")
        chat.interrupt()
        saved = os.path.join(self.folder, "chat.json")
        chat.say(f"/save {saved}", r"saved 1 exchanges")
        with open(saved, encoding="utf-8") as file:
            messages = json.load(file)["messages"]
        self.assertEqual([m["role"] for m in messages], ["user", "assistant"])
        self.assertEqual(messages[0]["content"], "Write a long story about a dog.")
        self.assertTrue(messages[1]["content"])
        self.assertLess(len(messages[1]["content"].split()), 3000)  # not all of the 6000 tokens
        deadline = time.monotonic() + 20
        while self.server.memory().kv_live_bytes and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(self.server.memory().kv_live_bytes, 0)
        self.leave(chat)

    def test_stats_of_an_answer_that_was_stopped(self):
        """Nothing of the answer before it: usage and report come with an answer's end."""
        chat = self.start("--ignore-eos", "-n", "3000")
        chat.say("/stats", r"0 exchanges, no answer yet\n")
        with open(saved := os.path.join(self.folder, "short.json"), "w", encoding="utf-8") as file:
            json.dump({"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]}, file)
        chat.say(f"/load {saved}", r"loaded 1 exchanges")
        chat.say("/stats", r"1 exchanges, no answer since /load\n")
        chat.type("Write a long story about a dog.\n")
        chat.expect(r"dog\.\n")
        chat.expect(r"(\w+ ){5}")
        chat.interrupt()
        tokens = chat.say("/stats", r"2 exchanges, the last answer was stopped after (\d+) tokens, so there is no report of it\n")[1]
        self.assertGreater(int(tokens), 4)
        self.leave(chat)
        chat = self.start("-n", "8")
        chat.say("Hello.", SUMMARY)
        chat.say("/stats", r"1 exchanges, \d+ of at most")
        chat.say("/forget", r"dropped 1")
        chat.say("/stats", r"0 exchanges, no answer since /forget\n")
        chat.say("/reset", r"forgotten")
        chat.say("/stats", r"0 exchanges, no answer yet\n")
        self.leave(chat)

    def test_errors_do_not_end_it(self):
        chat = self.start("-n", "8")
        chat.say("My name is Ada.", SUMMARY)
        chat.say("/policy snapkv 16KiB", r"cache policy: snapkv, budget 16KiB")
        refused = chat.say("What is my name?", r"\[CACHE_NEVER_FITS\]\n?Try (/budget \d+KiB)[^>]*/retry sends it again")
        chat.say(refused[1], r"cache policy: snapkv, budget \d+KiB")
        chat.say("/retry", SUMMARY)
        chat.say("/policy snapvk", r"did you mean 'snapkv'")
        chat.say("/polcy snapkv", r"no command /polcy; did you mean '/policy'")
        chat.say("/budget much", r"--budget: 'much'")
        chat.say("/policy", r"cache policy: snapkv, budget \d+KiB")
        chat.say("/policy full", r"cache policy: full\n")
        chat.say("/retry", r"every question has been answered")
        chat.say(f"/save {self.folder}", r"/save: cannot write .*Is a directory")
        chat.say("/load /nowhere", r"/load: cannot read .*No such file")
        chat.say("/stats", r"2 exchanges")
        chat.say("/reset", r"forgotten")
        chat.say("/stats", r"0 exchanges")
        chat.type("/quit\n")
        self.assertEqual(chat.end(), 0)

    def test_a_conversation_that_no_longer_fits_says_so(self):
        saved = os.path.join(self.folder, "long.json")
        messages = [{"role": "user", "content": "one two three four. " * 1700}, {"role": "assistant", "content": "yes"}]
        with open(saved, "w", encoding="utf-8") as file:
            json.dump({"messages": messages}, file)
        chat = self.start("-n", "2048")
        chat.say(f"/load {saved}", r"loaded 1 exchanges")
        chat.say("And now?", r"CONTEXT_TOO_LONG\]\n?Try /forget")
        chat.say("/forget", r"dropped 1, 0 exchanges left")
        chat.say("/retry", SUMMARY)
        self.leave(chat)

    def test_without_a_terminal_every_line_is_a_message(self):
        def chat(lines):
            return subprocess.run([CLIENT, "chat", "-n", "24"], input=lines, capture_output=True, text=True, timeout=120,
                                  env={**os.environ, "PYRAMIDKV_SERVER": self.server.address})
        done = chat("Hello.\n\nWhat is the capital \\\nof France?\n/quit\nnever sent\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count("first token"), 2)
        self.assertIn("Paris", done.stdout)
        done = chat("/policy snapkv 16KiB\nhello\n/policy full\nWhat is the capital of France?\n")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("Paris", done.stdout)

    def test_no_server(self):
        done = subprocess.run([CLIENT, "--server", "127.0.0.1:1", "chat"], input="hello\n", capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (3, ""))


if __name__ == "__main__":
    unittest.main()
