"""The program `pyramidkv` as these measurements use it, and the file that keeps what was measured, so that a run can go on."""
import json
import os
import pathlib
import subprocess
import tempfile


def ask(command, *options, text):
    """The JSON reply of `pyramidkv COMMAND OPTIONS` about `text`. The server is $PYRAMIDKV_SERVER."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write(text)
        file.flush()
        arguments = [os.environ.get("PYRAMIDKV", "pyramidkv"), command, "--json", "--quiet", "--prompt-file", file.name, *options]
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}\nended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


class Records:
    """Lines of JSON by a key; what is there is not measured again."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.rows = {row["key"]: row for row in map(json.loads, lines)}

    def measure(self, key, measurement):
        """The record of `key`: from the file, or of `measurement()`, a dict."""
        if key not in self.rows:
            self.rows[key] = {"key": key, **measurement()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.rows[key]) + "\n")
        return self.rows[key]
