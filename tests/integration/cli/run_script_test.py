"""scripts/run as a newcomer uses it, with programs that are built already: help, the hints when the server is ready, options passed on."""
import os
import re
import signal
import subprocess
import tempfile
import unittest

from real_server import BIN, SOURCE

RUN = os.path.join(SOURCE, "scripts", "run")


def environment(**more):
    return {**os.environ, "PKV_BIN": BIN, **more}


def run(*words, **more):
    return subprocess.run([RUN, *words], capture_output=True, text=True, timeout=60, env=environment(**more))


class RunScriptTest(unittest.TestCase):
    def serve(self, *options):
        """The output up to the last hint of a server that is then stopped as Ctrl-C does; no model can be fetched meanwhile."""
        with tempfile.TemporaryDirectory() as empty:
            process = subprocess.Popen([RUN, "--serve", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                                       env=environment(HOME="/nonexistent", XDG_CACHE_HOME=os.path.join(empty, "file"), PIP_NO_INDEX="1"))
            lines = []
            for line in process.stdout:
                lines.append(line)
                if re.search(r"pyramidkv policies$", line):
                    break
            address = re.search(r"PYRAMIDKV_SERVER=(\S+)", "".join(lines))
            answer = subprocess.run([os.path.join(BIN, "pyramidkv"), "--server", address[1], "models"], capture_output=True, text=True) if address else None
            os.killpg(process.pid, signal.SIGINT)
            rest = process.stdout.read()
            process.stdout.close()
            return process.wait(timeout=60), "".join(lines), rest, answer

    def test_hints_come_when_it_is_ready_with_the_real_port(self):
        for form in ("text", "json"):
            code, printed, rest, answer = self.serve("--set", f"model.path={os.environ['PKV_MODEL']}", "--set", "server.listen=127.0.0.1:0",
                                                     "--set", "metrics.listen=127.0.0.1:0", "--set", f"log.format={form}")
            self.assertEqual(code, 0, printed + rest)
            self.assertRegex(printed, r"(?s)ready.*address.*The server is ready.*PYRAMIDKV_SERVER=127\.0\.0\.1:[1-9]\d*\n")
            self.assertEqual(answer.returncode, 0, answer.stderr)
            self.assertIn("stopp", rest)  # the log goes on behind Ctrl-C

    def test_a_configuration_of_ones_own(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
            config.write(f"model: {{path: {os.environ['PKV_MODEL']}, id: mine}}\nserver: {{listen: '127.0.0.1:0'}}\nmetrics: {{listen: '127.0.0.1:0'}}\n")
            config.flush()
            code, printed, rest, answer = self.serve("--config", config.name)
        self.assertEqual(code, 0, printed + rest)
        self.assertRegex(answer.stdout, r"^mine:")

    def test_help_and_wrong_options(self):
        done = run("--help", PKV_BIN="/nonexistent")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("scripts/run --serve", done.stdout)
        done = run("--serve", "--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("server.listen", done.stdout)
        done = run("--model", "qwen2.5-coder-0.5b", "--help", PKV_BIN="/nonexistent")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = run("--model", "frobnicate", PKV_BIN="/nonexistent")
        self.assertEqual(done.returncode, 1)
        self.assertIn("there are: qwen2.5-coder-0.5b, smollm2-135m", done.stderr)
        for words in (("--frobnicate",), ("--set", "a=b")):
            done = run(*words, PKV_BIN="/nonexistent")
            self.assertEqual(done.returncode, 1)
            self.assertIn("--serve", done.stderr)
        done = run("--serve", "--frobnicate")
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
