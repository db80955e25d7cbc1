"""Servers that are not there, are no server, or go away: what the client says, and that it ends with 3."""
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

from real_server import BIN, Server

CLIENT = os.path.join(BIN, "pyramidkv")


def ask(target, *words):
    started = time.monotonic()
    done = subprocess.run([CLIENT, "--server", target, *(words or ("models",))], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return done, time.monotonic() - started


class Listener:
    """A port that answers every connection with `reply` (None: never, b"": hangs up), under TLS where there is a context."""

    def __init__(self, reply, context=None):
        self.reply, self.context = reply, context
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.open = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.open.append(connection)
            if self.reply is None:
                continue
            try:
                if self.context:
                    connection = self.context.wrap_socket(connection, server_side=True)
                connection.recv(64)
                connection.sendall(self.reply)
            except OSError:
                pass  # what a TLS server makes of plain text
            connection.close()

    def close(self):
        self.socket.close()
        for connection in self.open:
            connection.close()


class ConnectionTest(unittest.TestCase):
    def check(self, target, code, pattern, *words):
        done, _ = ask(target, *words)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertNotRegex(done.stderr, r"\.cc:\d+")  # a library's log line

    def test_the_address_as_it_is_written(self):
        self.check("localhost", 2, r"--server: 'localhost' has no port; try --server localhost:50051")
        self.check("localhost:http", 2, r"'http' is no port")
        self.check("http://localhost:50051", 2, r"try --server localhost:50051")

    def test_nobody_there(self):
        self.check("nowhere.invalid:50051", 3, r"the name 'nowhere\.invalid' does not resolve")
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        self.check(f"127.0.0.1:{port}", 3, r"nothing listens there \(connection refused\)\nIs it running\? 'pyramidkv-server ")

    def test_somebody_else_there(self):
        for reply, pattern in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", r"a web server answers there"), (b"SSH-2.0-OpenSSH_9\r\n", r"an SSH server"),
                               (b"220 mail\r\n", r"something else than a gRPC server"), (b"", r"hangs up"), (None, r"does not answer")):
            listener = Listener(reply)
            self.addCleanup(listener.close)
            self.check(listener.target, 3, pattern)

    def test_a_server_that_expects_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            key, certificate = os.path.join(folder, "key"), os.path.join(folder, "cert")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
                           check=True, capture_output=True)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            listener = Listener(b"hello", context)
            self.addCleanup(listener.close)
            self.check(listener.target, 3, r"expects TLS.*\nTry --tls, or --ca FILE .*\n\Z")
            self.check(listener.target, 3, r"certificate verify failed.*\nTry --ca FILE with the authority .*\n\Z", "--tls", "models")

    def test_a_server_killed_in_the_middle_of_an_answer(self):
        server = Server()
        client = subprocess.Popen([CLIENT, "--server", server.address, "generate", "--stream", "--ignore-eos", "-n", "4000", "Tell me a story."],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.assertTrue(client.stdout.read(8))
        server.process.kill()
        _, stderr = client.communicate(timeout=60)
        server.channel.close()
        server.process.wait()
        server.process.stdout.close()
        self.assertEqual(client.returncode, 3, stderr)
        self.assertRegex(stderr.decode(), r"the server closed the connection after \d+ tokens")


if __name__ == "__main__":
    unittest.main()
