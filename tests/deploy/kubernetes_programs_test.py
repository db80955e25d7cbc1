"""The programs in the pods, run for real on this machine: the model's download, Envoy's TLS, and the server's view of its own file."""
import hashlib
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import zipfile

from kubernetes_support import BIN, DEPLOY, SOURCE, all_variants, base, find, objects, overlay, server_container

APPLETS = "sh unzip sha256sum mv rm cut chmod mkdir echo".split()
MODEL = b"not a model, but of a known hash\n" * 1000
MEMBER = "package/model.gguf"
MODEL_PATH = os.environ["PKV_MODEL"]
needs_model = unittest.skipIf(not MODEL_PATH, "no model: configure with -DPKV_MODEL_PATH=$(scripts/fetch_model)")


def tool(name, package):
    if shutil.which(name) is None:
        subprocess.run([SOURCE / "scripts" / "install_packages", package], check=True)
    return shutil.which(name)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    requests = []

    def log_message(self, *_):
        QuietHandler.requests.append(self.path)


class FetchModelTest(unittest.TestCase):
    """fetch-model.sh in busybox, whose shell and tools the curl image has, against a server on the loopback."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.served, self.volume, programs = (self.folder / name for name in ("served", "volume", "bin"))
        for folder in (self.served, self.volume, programs):
            folder.mkdir()
        for applet in APPLETS:
            (programs / applet).symlink_to(tool("busybox", "busybox"))
        (programs / "curl").symlink_to(tool("curl", "curl"))
        (self.served / "model.gguf").write_bytes(MODEL)
        with zipfile.ZipFile(self.served / "model.whl", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MEMBER, MODEL)
            archive.writestr("package/other", b"x")
        handler = lambda *arguments: QuietHandler(*arguments, directory=str(self.served))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        QuietHandler.requests.clear()
        self.programs = programs

    def fetch(self, file="model.gguf", host=None, **changed):
        environment = {"PATH": str(self.programs), "HOSTNAME": "pod-1", "MODEL_DIR": str(self.volume), "MODEL_FILE": "model.gguf",
                       "MODEL_URL": f"http://{host or '127.0.0.1:%d' % self.server.server_port}/{file}",
                       "MODEL_SHA256": hashlib.sha256(MODEL).hexdigest(), **changed}
        script = DEPLOY / "base" / "fetch-model.sh"
        return subprocess.run([str(self.programs / "sh"), str(script)], env=environment, capture_output=True, text=True)

    def held(self):
        return sorted(path.name for path in self.volume.iterdir())

    def test_a_file_is_fetched_once(self):
        for run in range(2):
            done = self.fetch()
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.volume / "model.gguf").read_bytes(), MODEL)
        self.assertEqual(self.held(), ["model.gguf"])
        self.assertEqual(len(QuietHandler.requests), 1)

    def test_a_member_of_an_archive(self):
        done = self.fetch("model.whl", MODEL_MEMBER=MEMBER)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.volume / "model.gguf").read_bytes(), MODEL)
        self.assertEqual(self.held(), ["model.gguf"])

    def test_a_damaged_file_is_replaced(self):
        (self.volume / "model.gguf").write_bytes(MODEL[:-1])
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual((self.volume / "model.gguf").read_bytes(), MODEL)

    def test_another_hash_leaves_nothing(self):
        for settings in ({}, {"file": "model.whl", "MODEL_MEMBER": MEMBER}):
            done = self.fetch(**settings, MODEL_SHA256="0" * 64)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(hashlib.sha256(MODEL).hexdigest(), done.stderr)
            self.assertEqual(self.held(), [])

    def test_what_cannot_be_fetched_fails(self):
        for settings in ({"file": "missing"}, {"file": "model.whl", "MODEL_MEMBER": "missing"}, {"MODEL_URL": "file:///etc/hostname"}):
            self.assertNotEqual(self.fetch(**settings).returncode, 0, settings)
            self.assertEqual(self.held(), [])

    def test_what_cannot_be_reached_names_the_network_policy(self):
        curl = self.programs / "curl"
        curl.unlink()
        for code, named in ((6, True), (7, True), (28, True), (22, False)):  # 22: an answer, but not the file
            curl.write_text(f'#!{self.programs}/sh\necho "$@"\nexit {code}\n')
            curl.chmod(0o755)
            done = self.fetch()
            self.assertEqual(done.returncode, 1)
            self.assertEqual("NetworkPolicy pyramidkv-server" in done.stderr, named, code)
            self.assertIn("--connect-timeout 10 ", done.stdout)

    def test_settings_that_make_no_sense(self):
        for settings in ({"MODEL_FILE": ""}, {"MODEL_FILE": "../model.gguf"}, {"MODEL_SHA256": ""}, {"MODEL_URL": ""}):
            done = self.fetch(**settings)
            self.assertEqual(done.returncode, 2, settings)
            self.assertIn("error: ", done.stderr)
        self.assertEqual(QuietHandler.requests, [])

    def test_a_filled_volume_needs_no_url(self):
        (self.volume / "model.gguf").write_bytes(MODEL)
        self.assertEqual(self.fetch(MODEL_URL="").returncode, 0)


@needs_model
class ServerConfigurationTest(unittest.TestCase):
    """The ConfigMap and the variables of the container, judged by the server itself."""

    def check(self, things, *settings):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "server.yaml").write_text(find(things, "ConfigMap", "pyramidkv-config")["data"]["server.yaml"], encoding="utf-8")
        variables = {variable["name"]: variable["value"] for variable in server_container(things).get("env", [])}
        command = [BIN / "pyramidkv-server", "--config", folder / "server.yaml", "--set", f"model.path={MODEL_PATH}", *settings, "--check-config"]
        return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)

    def test_every_overlay_starts_with_a_good_configuration(self):
        for name, folder in all_variants():
            done = self.check(objects(folder))
            if name != "overlays/cuda":  # there is no such device yet
                self.assertEqual(done.returncode, 0, f"{name}: {done.stderr}")

    def test_a_key_that_is_none_is_noticed(self):
        self.assertNotEqual(self.check(base(), "--set", "cache.pool=1GiB").returncode, 0)


@unittest.skipIf(shutil.which("envoy") is None, "there is no Envoy of PyPI's for this machine")
@needs_model
class EnvoyTest(unittest.TestCase):
    """The tls component: Envoy with its files, in front of the real server on the real model."""

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(shutil.rmtree, folder := tempfile.mkdtemp())
        cls.folder = pathlib.Path(folder)
        cls.make_certificates()
        cls.server_port, cls.http_port, cls.tls_port = free_ports(3)
        for file in ("envoy.yaml", "sds_server.yaml", "sds_clients.yaml"):
            text = (DEPLOY / "components" / "tls" / file).read_text(encoding="utf-8")
            for old, new in (("/etc/tls", folder), ("/etc/envoy", folder), ("0.0.0.0", "127.0.0.1"),
                             ("port_value: 50443", f"port_value: {cls.tls_port}"),
                             ("port_value: 50051", f"port_value: {cls.server_port}"),
                             ("port_value: 8000", f"port_value: {cls.http_port}"),
                             ("max_connection_duration: 300s", "max_connection_duration: 1s")):
                text = text.replace(old, new)
            (cls.folder / file).write_text(text, encoding="utf-8")
        arguments = next(c for c in overlay_envoy() if c["name"] == "envoy")["args"]
        cls.start(["envoy", *(word.replace("/etc/envoy", folder) for word in arguments)])
        cls.start([BIN / "pyramidkv-server", "--config", DEPLOY / "base" / "server.yaml", "--set", f"model.path={MODEL_PATH}",
                   "--set", f"server.listen=127.0.0.1:{cls.server_port}", "--set", f"http.listen=127.0.0.1:{cls.http_port}",
                   "--set", "metrics.listen="])
        deadline = time.monotonic() + 60
        while (done := cls.call("GenerationService/Tokenize", '{"text":"ready?"}')).returncode != 0:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.2)

    @classmethod
    def start(cls, command):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(process.wait)
        cls.addClassCleanup(process.send_signal, signal.SIGTERM)

    @classmethod
    def make_certificates(cls):
        run = lambda *words: subprocess.run(["openssl", *words], cwd=cls.folder, check=True, capture_output=True)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        for authority in ("ca", "other_ca"):
            run("req", "-x509", *key, "-days", "2", "-subj", f"/CN={authority}", "-keyout", f"{authority}.key", "-out", f"{authority}.crt")
        for name, authority in (("tls", "ca"), ("client", "ca"), ("stranger", "other_ca")):
            run("req", *key, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial",
                "-copy_extensions", "copy", "-days", "2", "-out", f"{name}.crt")

    @classmethod
    def call(cls, method, body="{}", client="client"):
        certificate = ["--cert", f"{client}.crt", "--key", f"{client}.key"] if client else []
        service, name = method.split("/")
        return subprocess.run(["buf", "curl", "--protocol", "grpc", "--schema", SOURCE / "proto", "--cacert", "ca.crt", *certificate, "-d", body,
                               f"https://localhost:{cls.tls_port}/pyramidkv.v1.{service}/{name}"], cwd=cls.folder, capture_output=True, text=True)

    def test_who_has_a_certificate_of_ours_is_served(self):
        self.assertIn('"kvHeads"', self.call("ModelService/ListModels").stdout)

    def test_openais_api_is_behind_the_same_port(self):
        self.assertIn('"max_model_len"', self.ask_openai("client").stdout)

    def ask_openai(self, client):
        certificate = ["--cert", f"{client}.crt", "--key", f"{client}.key"] if client else []
        return subprocess.run([tool("curl", "curl"), "--silent", "--noproxy", "*", "--cacert", "ca.crt", *certificate,
                               f"https://localhost:{self.tls_port}/v1/models"], cwd=self.folder, capture_output=True, text=True)

    def test_others_are_not(self):
        for client in (None, "stranger"):
            done = self.call("ModelService/ListModels", client=client)
            self.assertNotEqual(done.returncode, 0)
            self.assertNotIn("kvHeads", done.stdout)
            self.assertNotEqual(self.ask_openai(client).returncode, 0)

    def test_an_answer_outlives_its_connections_age(self):
        body = '{"prompt":"Once upon a time","sampling":{"maxTokens":1000,"temperature":0,"ignoreEos":true}}'
        done = self.call("GenerationService/GenerateStream", body)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"end"', done.stdout)


def overlay_envoy():
    return find(overlay("tls"), "Deployment")["spec"]["template"]["spec"]["initContainers"]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


if __name__ == "__main__":
    unittest.main()
