"""Every command line of README.md does what the page says: each is run as it stands, in a folder that looks like a built checkout, or stands
in NOT_RUN with the reason. A command in no table fails, and so does a row of a table that no command of the page needs."""
import os
import re
import subprocess
import tempfile
import unittest

from real_server import BIN, SOURCE, Server

# First line of the code blocks that hold no commands.
NO_COMMANDS = ("== --policy pyramidkv --budget 256", "proto/     the contract                     kernels/   operations: reference, cpu, cuda")

# Command (a pattern for all of it) | what its output must have. Standard output and error are looked at together.
RUN = [
    (r"scripts/run", r"== --policy full\n(?s:.*)Apache License, Version 2\.0(?s:.*)\npeak, prefill included( +[\d.]+ MiB){3}\n(?s:.*)\nlayer   0 (?s:.*)\nwrote \S+/build/kept\.html\n"),
    (r'pyramidkv generate "What is the capital of France\?"', r"capital of France is Paris\.(?s:.*)\nfull: kept all "),
    (r"cat \$DOC \| pyramidkv generate --question .* --policy pyramidkv .*--report layers",
     r"Apache License(?s:.*)\nsaved share +[\d.]+ %\n(?s:.*)\nlayer +0 "),
    (r"pyramidkv chat .*", r"capital of France is Paris"),
    (r"pyramidkv estimate .*", r"(?m)^snapkv:12% .*(?s:.*)\n  pyramidkv generate --prompt-file \S+ --policy \w+.*\n\Z"),
    (r"pyramidkv compare .*", r"differs at\nfull (?s:.*)\nsnapkv:256 (?s:.*)\npyramidkv:64 (?s:.*)\nfull:\n  This license"),
    (r"pyramidkv inspect .* --output kept\.html", r"(?m)^wrote kept\.html$"),
    (r"pyramidkv policies", r"(?s)streaming_llm.*tova"),
    (r"pyramidkv stats --watch", r"\A(uptime_seconds=.* state=SERVING .* saved_bytes=.*\n){3}\Z"),
    (r"mkdir -p build/python && protoc .*", r"\A\Z"),
    (r"PYTHONPATH=build/python /usr/bin/python3 client/example\.py .*",
     r"Apache License.*(?s:.*)\n\d+ prompt tokens; a full cache would hold \d+ bytes"),
    (r"build/release/bin/pyramidkv-server --check-config .*", r"\Athe configuration is good\n\Z"),
    (r"cmake --install .*", r"Installing: \S+/installed/bin/pyramidkv-server\n"),
    (r"kubectl kustomize .*", r"(?m)^kind: PodMonitor$"),
    (r"pyramidkv bench .*", r"(?m)^ +all +\w+.*\n(?s:.*)\ncompleted +[1-9](?s:.*)\nfailed +0 "),
]

# Command | why this test does not run it | what runs or checks it instead, None: nothing in the repository
NOT_RUN = [
    (r"git clone URL pyramidkv && cd pyramidkv", "this is that checkout", None),
    (r"scripts/test", "runs this test", None),
    (r"scripts/run --model qwen2\.5-coder-0\.5b", "fetches 491 MB", "tests/integration/cli/run_script_test.py"),
    (r"scripts/run --serve", "builds and may fetch the model", "tests/integration/cli/run_script_test.py"),
    (r"scripts/run --serve --set model\.path=FILE\.gguf", "builds", "tests/integration/cli/run_script_test.py"),
    (r"docker build .*", "needs Docker", "scripts/image_check"),
    (r"PYRAMIDKV_MODELS=.* docker compose .*", "needs Docker", "tests/deploy/container_test.py"),
    (r"scripts/observe", "goes on until it is stopped", "tests/deploy/observe_test.py"),
    (r"scripts/deploy_check", "takes minutes and builds an image", None),
]

# What a test changes in a command: pattern | replacement. The reader's server is on the default port, for minutes, and is to stay installed.
CHANGES = [
    (r"\bFILE\.gguf\b", r'"$PKV_MODEL"'),
    (r"--prefix /usr/local\b", '--prefix "$PWD/installed"'),
    (r"--duration 60\b", "--duration 4"),
    (r"stats --watch$", "stats --watch --interval 50ms --count 3"),
    (r"^kubectl ", f"'{SOURCE}/scripts/with_tools' kubectl "),
    (r"(client/example\.py .*)", r'\1 "$PYRAMIDKV_SERVER"'),
]

ASSIGNMENT = r"[A-Z_]+=\S+"
TYPED = {"pyramidkv chat": "What is the capital of France?\n"}


def commands():
    """The command lines of the page's code blocks, in order, without comments; a line that ends in a backslash goes on in the next."""
    with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
        page = file.read()
    for block in re.findall(r"(?m)(?:^    .*\n(?:\n+(?=    ))?)+", page):
        lines = [line.strip() for line in re.sub(r"\\\n +", "", block).splitlines()]
        if lines[0] not in NO_COMMANDS:
            yield from (command for line in lines if (command := re.sub(r"(^|\s+)#.*", "", line)))


def rows_for(command, table):
    return [row for row in table if re.fullmatch(row[0], command)]


class ReadmeTest(unittest.TestCase):
    def test_every_command_has_one_row_and_every_row_a_command(self):
        page = [command for command in commands() if not re.fullmatch(ASSIGNMENT, command)]
        for command in page:
            self.assertEqual(len(rows_for(command, RUN + NOT_RUN)), 1, f"rows of RUN and NOT_RUN for: {command}")
        for row in RUN + NOT_RUN:
            self.assertTrue(any(re.fullmatch(row[0], command) for command in page), f"README.md has no such command: {row[0]}")
        for pattern, _ in CHANGES:
            self.assertTrue(any(re.search(pattern, command) for command in page if rows_for(command, RUN)), f"nothing to change: {pattern}")
        for command, _, covered in NOT_RUN:
            self.assertTrue(covered is None or os.path.exists(os.path.join(SOURCE, covered)), f"{command}: there is no {covered}")
        with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
            text = file.read()
        for line in NO_COMMANDS:
            self.assertIn(f"\n\n    {line}\n", text)

    def test_the_commands_work(self):
        server = Server()
        self.addCleanup(server.stop)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name in os.listdir(SOURCE):
            if name != "build":
                os.symlink(os.path.join(SOURCE, name), os.path.join(folder.name, name))
        os.mkdir(os.path.join(folder.name, "build"))
        os.symlink(os.path.dirname(BIN), os.path.join(folder.name, "build", "release"))
        # scripts/run takes the programs from PKV_BIN instead of building them, and finds the model fetched already.
        os.mkdir(os.path.join(folder.name, "pyramidkv"))
        os.symlink(os.environ["PKV_MODEL"], os.path.join(folder.name, "pyramidkv", os.path.basename(os.environ["PKV_MODEL"])))
        environment = {**os.environ, "PYRAMIDKV_SERVER": server.address, "XDG_STATE_HOME": folder.name, "XDG_CACHE_HOME": folder.name}
        shell = "set -euo pipefail\n"
        for command in commands():
            if re.fullmatch(ASSIGNMENT, command):
                shell += f"{command}\n"
            for _, pattern in rows_for(command, RUN):
                with self.subTest(command):
                    changed = command
                    for written, replacement in CHANGES:
                        changed = re.sub(written, replacement, changed)
                    typed = next((text for start, text in TYPED.items() if command.startswith(start)), "")
                    done = subprocess.run(["bash", "-c", shell + changed], cwd=folder.name, env=environment, input=typed, text=True, timeout=120,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                    self.assertEqual(done.returncode, 0, done.stdout[-4000:])
                    self.assertTrue(re.search(pattern, done.stdout), f"no {pattern!r} in what ends with:\n{done.stdout[-4000:]}")


if __name__ == "__main__":
    unittest.main()
