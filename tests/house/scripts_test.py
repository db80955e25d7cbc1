"""Every script of scripts/ that people call says what it does when asked with --help, and does nothing else."""
import os
import pathlib
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def scripts():
    for path in sorted((ROOT / "scripts").iterdir()):
        if path.is_file() and os.access(path, os.X_OK) and 'source "$(dirname "$0")/common.sh"' in path.read_text(encoding="utf-8"):
            yield path


class ScriptsTest(unittest.TestCase):
    def test_help_is_all_that_help_does(self):
        for path in scripts():
            with self.subTest(script=path.name):
                told = subprocess.run([path, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
                self.assertEqual(told.returncode, 0, told.stderr)
                if "help_if_asked" in path.read_text(encoding="utf-8"):
                    head = path.read_text(encoding="utf-8").splitlines()[1]
                    self.assertEqual(told.stdout.splitlines()[0], head.removeprefix("# "))
                else:  # it has a text of its own
                    self.assertIn(f"scripts/{path.name}", told.stdout)
                self.assertEqual(told.stderr, "")


if __name__ == "__main__":
    unittest.main()
