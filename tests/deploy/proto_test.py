"""The protos against buf: house rules, format, and that no client of the last release breaks (buf.yaml says how that is renewed)."""
import os
import shutil
import subprocess
import tempfile
import unittest

SOURCE = os.environ["PKV_SOURCE_DIR"]
RELEASED = os.path.join("proto", "released.binpb")


def buf(*words, folder=SOURCE):
    """Exit code and everything printed."""
    done = subprocess.run(["buf", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


class ProtoTest(unittest.TestCase):
    def test_lint(self):
        self.assertEqual(buf("lint"), (0, ""))

    def test_format(self):
        self.assertEqual(buf("format", "--diff", "--exit-code"), (0, ""))

    def test_clients_of_the_release_still_work(self):
        self.assertEqual(buf("breaking", "--against", RELEASED), (0, ""))

    def test_a_change_that_breaks_them_is_noticed(self):
        changes = (("string version = 4;", "string version = 40;", "version"), ("uint64 sequence = 1;", "uint32 sequence = 1;", "sequence"),
                   ("  SERVER_STATE_FAILED = 4;\n", "", "ServerState"),
                   ("rpc WatchStats(WatchStatsRequest) returns (stream WatchStatsResponse);", "rpc WatchStats(WatchStatsRequest) returns (WatchStatsResponse);",
                    "WatchStats"))
        for old, new, named in changes:
            with self.subTest(new), tempfile.TemporaryDirectory() as folder:
                shutil.copy(os.path.join(SOURCE, "buf.yaml"), folder)
                shutil.copytree(os.path.join(SOURCE, "proto"), os.path.join(folder, "proto"))
                path = os.path.join(folder, "proto", "pyramidkv", "v1", "stats.proto")
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                self.assertEqual(text.count(old), 1)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text.replace(old, new))
                code, printed = buf("breaking", "--against", RELEASED, folder=folder)
                self.assertEqual(code, 100, printed)
                self.assertIn(named, printed)


if __name__ == "__main__":
    unittest.main()
