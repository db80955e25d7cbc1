"""The server program with the real model, for clients that know nothing of it: shared by the tests beside it."""
import os
import unittest

from started_server import StartedServer


class ServedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = StartedServer(os.path.join(os.environ["PKV_BIN"], "pyramidkv-server"), os.environ["PKV_MODEL"], "model.id=served", "metrics.listen=",
                               "http.listen=127.0.0.1:0")
        cls.process, cls.address, cls.http = server.process, server.address, server.http

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        assert cls.process.wait(timeout=60) == 0
        cls.process.stdout.close()
