"""The server program with the real model, for clients that know nothing of it: shared by the tests beside it."""
import os
import re
import signal
import subprocess
import threading
import unittest

READY = re.compile(r" ready address=(\S+) .* http=(\S+)")


class ServedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        command = [os.path.join(os.environ["PKV_BIN"], "pyramidkv-server")]
        for setting in (f"model.path={os.environ['PKV_MODEL']}", "model.id=served", "server.listen=127.0.0.1:0", "metrics.listen=",
                        "http.listen=127.0.0.1:0"):
            command += ["--set", setting]
        cls.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in cls.process.stdout:
            if found := READY.search(line):
                cls.address, cls.http = found.groups()
                break
        else:
            raise RuntimeError("the server ended before it was ready")
        threading.Thread(target=cls.process.stdout.read, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        if cls.process.poll() is None:
            cls.process.send_signal(signal.SIGTERM)
        assert cls.process.wait(timeout=60) == 0
        cls.process.stdout.close()
