"""What packages the server: Dockerfile, compose files, systemd unit, completion, and what cmake --install puts where."""
import configparser
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml
from compose_spec import PyCompose

SOURCE = Path(os.environ["PKV_SOURCE_DIR"])
BIN = Path(os.environ["PKV_BIN"])
DOCKER = SOURCE / "deploy/docker"
PROGRAMS = ("pyramidkv-server", "pyramidkv")


def output_of(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def interpolated(text):
    """Compose's ${NAME:-default}, by their defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def image_settings():
    return yaml.safe_load((DOCKER / "server.yaml").read_text())


def ports_to_publish():
    """The ports of the image's addresses that are not the loopback's."""
    addresses = (section.get("listen", "") for section in image_settings().values())
    return {address.rpartition(":")[2] for address in addresses if address and not address.startswith("127.")}


def default_of(key):
    section, name = key.split(".")
    return yaml.safe_load((SOURCE / "config/server.yaml").read_text())[section][name]


def project_version():
    return re.search(r"project\(pyramidkv VERSION (\S+)", (SOURCE / "CMakeLists.txt").read_text()).group(1)


class DockerfileTest(unittest.TestCase):
    text = (SOURCE / "Dockerfile").read_text()

    def test_hadolint_finds_nothing(self):
        output_of("hadolint", SOURCE / "Dockerfile")

    def test_copies_only_what_is_there(self):
        for words in re.findall(r"^COPY (?!--from)(.*)$", self.text, re.M):
            for source in words.split()[:-1]:
                self.assertTrue((SOURCE / source).exists(), source)

    def test_the_build_sees_everything_that_it_reads(self):
        seen = [line[1:] for line in (SOURCE / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder)
            for name in seen:
                (context / name).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (SOURCE / name).is_dir() else shutil.copy)(SOURCE / name, context / name)
            output_of("cmake", "-S", context, "-B", context / "build", "-G", "Ninja", "-DPKV_TESTS=OFF")
            installed = (context / "cmake/install.cmake").read_text() + (context / "cmake/install_files.cmake").read_text()
            paths = re.findall(r"\b(?:deploy|docs|config|cmake)/[\w./-]+", installed) + re.findall(r"scripts/\w+ ", self.text)
            self.assertIn("deploy/completion/pyramidkv.bash", paths)
            for path in paths:
                if path.strip() != "scripts/image_check":
                    self.assertTrue((context / path.strip()).exists(), path)

    def test_runs_as_a_number_and_names_its_version(self):
        self.assertRegex(self.text, r"(?m)^USER [1-9]\d*:[1-9]\d*$")
        self.assertIn(f"ARG VERSION={project_version()}\n", self.text)

    def test_the_probe_is_a_command_of_the_client(self):
        program, command, *options = self.probe()
        helped = output_of(BIN / program, "--help") + output_of(BIN / program, command, "--help")
        self.assertLessEqual({word for word in options if word.startswith("--")}, options_in(helped))

    def test_the_probe_asks_where_health_is_plain_with_tls_too(self):
        words = self.probe()
        self.assertEqual(words[words.index("--server") + 1], image_settings()["server"]["health_listen"])
        self.assertEqual(ComposeTest.compose["services"]["server"]["healthcheck"]["test"], ["CMD", *words])

    def probe(self):
        return json.loads(re.search(r"HEALTHCHECK [^\[]* CMD (\[.*\])", self.text).group(1))

    def test_every_service_can_be_reached_from_outside(self):
        self.assertEqual(ports_to_publish(), {"50051", "8000", "9464"})
        self.assertEqual(set(re.search(r"(?m)^EXPOSE (.*)$", self.text).group(1).split()), ports_to_publish())
        published = ComposeTest.compose["services"]["server"]["ports"]
        self.assertEqual({port.rpartition(":")[2] for port in published}, ports_to_publish())

    def test_the_images_configuration_is_good(self):
        output_of(BIN / "pyramidkv-server", "--check-config", "--config", DOCKER / "server.yaml", "--set", "model.path=",
                  env={"PATH": os.environ["PATH"]})


class ComposeTest(unittest.TestCase):
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())

    def test_fits_the_specification(self):
        def parse(text):
            compose = PyCompose.from_json(json.dumps(yaml.safe_load(interpolated(text))))
            compose.to_spec()
            compose.validate()

        text = (DOCKER / "compose.yaml").read_text()
        parse(text)
        parse((DOCKER / "compose.cuda.yaml").read_text())
        for good, bad in (("interval: 10s", "interval: soon"), ("stop_grace_period", "stop_grace_perid")):
            with self.assertRaises(ValueError):
                parse(text.replace(good, bad))

    def test_the_gpu_build_is_the_same_everywhere(self):
        server = yaml.safe_load((DOCKER / "compose.cuda.yaml").read_text())["services"]["server"]
        tag = f"{project_version()}-cuda"
        component = yaml.safe_load((SOURCE / "deploy/kubernetes/components/cuda/kustomization.yaml").read_text())
        self.assertEqual(server["image"], f"pyramidkv-server:{tag}")
        self.assertEqual(component["images"], [{"name": "pyramidkv-server", "newTag": tag}])
        dockerfile = DockerfileTest.text
        self.assertIn(f"-t pyramidkv-server:{tag} .", dockerfile)
        arguments = server["build"]["args"]
        self.assertEqual(arguments["CUDA"], "1")
        versions = set()
        # nvcc in one, cuBLAS in the other, which `base` images have not.
        for name, kind in (("BUILD_BASE", "devel"), ("BASE", "runtime")):
            self.assertIn(f"--build-arg {name}={arguments[name]}", dockerfile)
            self.assertRegex(dockerfile, rf"(?m)^ARG {name}=")
            versions.add(re.fullmatch(rf"nvidia/cuda:(\d+\.\d+)\.\d+-{kind}-ubuntu24\.04", arguments[name])[1])
        self.assertEqual(len(versions), 1)
        self.assertGreaterEqual(tuple(map(int, versions.pop().split("."))), (12, 8), "nvcc knows sm_100 from then on")
        self.assertIn("100", re.search(r"set\(CMAKE_CUDA_ARCHITECTURES (.*) CACHE", (SOURCE / "kernels/cuda/CMakeLists.txt").read_text())[1])

    def test_mounts_only_folders_that_are_there(self):
        for name, service in self.compose["services"].items():
            for volume in service["volumes"]:
                if volume["type"] == "volume":
                    self.assertIn(volume["source"], self.compose["volumes"])
                elif "PYRAMIDKV_MODELS" not in volume["source"]:
                    self.assertTrue((DOCKER / volume["source"]).is_dir(), f"{name}: {volume['source']}")
                    self.assertTrue(volume["read_only"])

    def test_everything_is_locked_down_and_pinned(self):
        for name, service in self.compose["services"].items():
            self.assertTrue(service["read_only"], name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertIn("no-new-privileges:true", service["security_opt"], name)
            self.assertRegex(service["image"], r":v?\d+\.\d+\.\d+$", name)
            for port in service["ports"]:
                self.assertTrue(port.startswith("127.0.0.1:"), port)
        self.assertTrue(self.compose["services"]["server"]["image"].endswith(":" + project_version()))

    def test_variables_of_the_server_are_keys(self):
        environment = {"PATH": os.environ["PATH"], **self.compose["services"]["server"]["environment"]}
        output_of(BIN / "pyramidkv-server", "--check-config", "--set", "model.path=", env=environment)

    def test_stopping_leaves_time_to_drain(self):
        grace = int(self.compose["services"]["server"]["stop_grace_period"].removesuffix("s"))
        self.assertGreater(grace, default_of("server.drain_seconds") + 5)

    def test_yaml_is_clean(self):
        rules = "{extends: default, rules: {line-length: {max: 160}, document-start: disable, braces: {max-spaces-inside: 1}}}"
        output_of("yamllint", "--strict", "--config-data", rules, DOCKER, SOURCE / "config")


class InstallTest(unittest.TestCase):
    """cmake --install into a folder of its own."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.prefix = cls.root / "opt"
        cls.install()

    @classmethod
    def install(cls):
        output_of("cmake", "--install", BIN.parent, "--prefix", cls.prefix)

    def test_installs_these_files_and_no_tests(self):
        files = {str(path.relative_to(self.prefix)) for path in self.prefix.rglob("*") if path.is_file()}
        third_party = {path for path in files if path.startswith("share/doc/pyramidkv/third_party/")}
        self.assertGreaterEqual(len(third_party), 1)
        self.assertEqual(files - third_party, {
            "bin/pkv-calibrate", "bin/pyramidkv", "bin/pyramidkv-server", "etc/default/pyramidkv", "etc/pyramidkv/server.yaml",
            "lib/systemd/system/pyramidkv.service", "share/bash-completion/completions/pyramidkv",
            "share/bash-completion/completions/pyramidkv-server", "share/doc/pyramidkv/README.md",
            *(f"share/doc/pyramidkv/{path.name}" for path in (SOURCE / "docs").glob("*.md")),
            "share/fish/vendor_completions.d/pyramidkv.fish", "share/fish/vendor_completions.d/pyramidkv-server.fish",
            "share/pyramidkv/systemd/tls.conf", "share/zsh/site-functions/_pyramidkv",
            *(f"share/pyramidkv/config/{path.name}" for path in (SOURCE / "config").glob("*.yaml")),
            *(f"share/pyramidkv/config/lane_tables/{path.name}" for path in (SOURCE / "config/lane_tables").glob("*.lanes")),
            *(f"share/pyramidkv/proto/{path.relative_to(SOURCE / 'proto')}" for path in (SOURCE / "proto").rglob("*.proto"))})

    def test_has_the_licence_of_every_package_whose_headers_are_compiled_in(self):
        included = set()
        for folder in ("server", "client"):
            for path in (*(SOURCE / folder).rglob("*.h"), *(SOURCE / folder).rglob("*.cpp")):
                included.update(re.findall(r'^#include [<"]([^>"]+/[^>"]+)[>"]', path.read_text(), re.MULTILINE))
        headers = sorted(str(path) for path in map(Path("/usr/include").joinpath, included) if path.is_file())
        self.assertGreater(len(headers), 20)
        owners = {line.split(":")[0] for line in output_of("dpkg-query", "--search", *headers).splitlines()}
        # C: declarations alone, the code is in the shared library; libgrpc-dev is of the same source as libgrpc++-dev.
        owners -= {"libc6-dev", "libgrpc-dev", "linux-libc-dev", "libssl-dev", "libpcre2-dev"}
        self.assertLessEqual(owners, {path.name for path in (self.prefix / "share/doc/pyramidkv/third_party").iterdir()})

    def test_the_programs_run_from_there(self):
        self.assertEqual(output_of(self.prefix / "bin/pyramidkv-server", "--version").strip(), f"pyramidkv-server {project_version()}")
        self.assertIn("generate", output_of(self.prefix / "bin/pyramidkv", "--help"))
        for program in PROGRAMS:
            self.assertNotRegex(output_of("readelf", "--dynamic", self.prefix / "bin" / program), "RPATH|RUNPATH")

    def test_settings_that_were_changed_stay(self):
        settings = self.prefix / "etc/pyramidkv/server.yaml"
        before = settings.read_text()
        self.assertEqual(before, (SOURCE / "config/server.yaml").read_text())
        self.addCleanup(settings.write_text, before)
        settings.write_text("# mine\n")
        self.install()
        self.assertEqual(settings.read_text(), "# mine\n")

    def test_settings_of_a_packaged_installation_lie_in_etc(self):
        stage = self.root / "stage"
        output_of("cmake", "--install", BIN.parent, "--prefix", "/usr", env={**os.environ, "DESTDIR": str(stage)})
        self.assertTrue((stage / "etc/pyramidkv/server.yaml").is_file())
        self.assertFalse((stage / "usr/etc").exists())
        unit = (stage / "usr/lib/systemd/system/pyramidkv.service").read_text()
        self.assertIn("ExecStart=/usr/bin/pyramidkv-server --config /etc/pyramidkv/server.yaml\n", unit)
        self.assertNotIn("@source", unit)

    def unit(self):
        parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
        parser.optionxform = str
        parser.read(self.prefix / "lib/systemd/system/pyramidkv.service")
        return parser

    def test_the_unit_locks_the_service_down(self):
        service = self.unit()["Service"]
        for name, value in {"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
                            "PrivateTmp": "yes", "CapabilityBoundingSet": "", "KillSignal": "SIGTERM", "Type": "exec",
                            "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "Restart": "on-failure",
                            "RestartPreventExitStatus": "2"}.items():
            self.assertEqual(service[name], value, name)
        self.assertGreater(int(service["TimeoutStopSec"]), default_of("server.drain_seconds") + 5)

    def test_the_unit_starts_what_was_installed(self):
        service = self.unit()["Service"]
        program, option, settings = service["ExecStart"].split()
        self.assertTrue(os.access(program, os.X_OK), program)
        self.assertEqual(option, "--config")
        output_of(program, "--check-config", option, settings, env={"PATH": os.environ["PATH"]})
        self.assertTrue(Path(service["EnvironmentFile"].removeprefix("-")).is_file())

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_systemd_understands_the_unit(self):
        self.assertEqual(self.faults_of_the_unit(), [])

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
    def test_systemd_understands_the_drop_in(self):
        for settings, faults in ((self.drop_in(), 0), (self.drop_in().replace("LoadCredential", "LoadCredentials"), 2)):
            self.assertEqual(len(self.faults_of_the_unit(settings)), faults)

    def faults_of_the_unit(self, drop_in=""):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        unit = Path(shutil.copy(self.prefix / "lib/systemd/system/pyramidkv.service", folder))
        (folder / "pyramidkv.service.d").mkdir()
        (folder / "pyramidkv.service.d/tls.conf").write_text(drop_in)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        return [line for line in (done.stdout + done.stderr).splitlines() if "pyramidkv" in line]

    def drop_in(self):
        return (self.prefix / "share/pyramidkv/systemd/tls.conf").read_text()

    def test_the_drop_in_hands_over_what_the_server_is_told_to_read(self):
        credentials = set(re.findall(r"(?m)^LoadCredential=([\w.]+):/", self.drop_in()))
        variables = dict(re.findall(r"(PYRAMIDKV_\w+)=%d/([\w.]+)", self.drop_in()))
        self.assertEqual(set(variables), {"PYRAMIDKV_SERVER__TLS__CERT", "PYRAMIDKV_SERVER__TLS__KEY"})
        for key in ("server.tls.cert", "server.tls.key"):
            self.assertIn(key, help_of("pyramidkv-server"))
        self.assertEqual(set(variables.values()), credentials)
        # Of two variables of one name that of the EnvironmentFile counts.
        self.assertNotIn("__TLS__", (self.prefix / "etc/default/pyramidkv").read_text())

    def test_examples_of_variables_are_keys(self):
        lines = (self.prefix / "etc/default/pyramidkv").read_text().splitlines()
        examples = dict(line[1:].split("=", 1) for line in lines if line.startswith("#PYRAMIDKV_"))
        self.assertIn("PYRAMIDKV_MODEL__PATH", examples)
        self.assertIn("server.api_keys", help_of("pyramidkv-server"))
        del examples["PYRAMIDKV_SERVER__API_KEYS"]  # a file that is read at once
        output_of(BIN / "pyramidkv-server", "--check-config", "--set", "model.path=", env={"PATH": os.environ["PATH"], **examples})


def help_of(program, *words):
    return output_of(BIN / program, *words, "--help")


def options_in(text):
    return set(re.findall(r"^ +(?:-\w,)?(--[a-z0-9-]+)", text, re.M))


def commands_in(text):
    return set(re.findall(r"^  ([a-z-]+) ", text.partition("Subcommands:")[2], re.M))


class CompletionTest(unittest.TestCase):
    def complete(self, program, *words):
        """What bash offers behind these words, the last of which is being typed."""
        script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
                  '_pyramidkv "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; printf "%s\\n" "${COMPREPLY[@]}"')
        text = output_of("bash", "-c", f"compopt() {{ :; }}; {script}", "bash", SOURCE / "deploy/completion/pyramidkv.bash",
                         BIN / program, *words)
        return set(text.split())

    def test_offers_every_command_of_the_client(self):
        commands = commands_in(help_of("pyramidkv"))
        self.assertIn("generate", commands)
        self.assertEqual(self.complete("pyramidkv", ""), commands)
        self.assertEqual(self.complete("pyramidkv", "gen"), {"generate"})
        self.assertEqual(self.complete("pyramidkv", "--server", "127.0.0.1:1", "gen"), {"generate"})

    def test_offers_every_option_of_every_command(self):
        everywhere = options_in(help_of("pyramidkv"))
        self.assertEqual(self.complete("pyramidkv", "-"), everywhere)
        for command in commands_in(help_of("pyramidkv")):
            self.assertEqual(self.complete("pyramidkv", command, "--"), everywhere | options_in(help_of("pyramidkv", command)), command)
        self.assertEqual(self.complete("pyramidkv-server", "--"), options_in(help_of("pyramidkv-server")))

    def test_offers_the_values_that_help_lists(self):
        self.assertEqual(self.complete("pyramidkv", "generate", "--report", ""), {"none", "summary", "layers", "positions"})

    def test_offers_every_key(self):
        keys = set(re.findall(r"^  (\w+\.\w+) = ", help_of("pyramidkv-server"), re.M))
        self.assertIn("cache.pool_bytes", keys)
        self.assertEqual(self.complete("pyramidkv-server", "--set", ""), {key + "=" for key in keys})
        self.assertEqual(self.complete("pyramidkv-server", "--set", "cache.po"), {"cache.pool_bytes="})

    def test_leaves_files_to_the_shell(self):
        self.assertEqual(self.complete("pyramidkv-server", "--config", ""), set())
        self.assertEqual(self.complete("pyramidkv", "generate", "--prompt-file", "x"), set())


if __name__ == "__main__":
    unittest.main()
