"""What the everyday commands print and how they end, against the server with the real model: a table, one case a line."""
import json
import os
import re
import shlex
import subprocess
import tempfile
import unittest

from pyramidkv.v1 import generation_pb2
from google.protobuf import json_format
from real_server import BIN, Server

CLIENT = os.path.join(BIN, "pyramidkv")
LICENSE = "/usr/share/common-licenses/Apache-2.0"
NOTHING = r"\A\Z"
ANY = r"(?s).*"
# What the summary line below an answer looks like.
SUMMARY = r"(?m)^full: kept all [\d.]+ \w+, nothing saved; first token [\d.]+ s(, then [\d.]+ tok/s)?$"

# Command line ({dir}: an empty folder, {long}: a text beyond the model's length) | exit code | stdout | stderr
CASES = [
    # Defaults: the chat template, greedy, a summary on standard error.
    ('generate "What is the capital of France?"', 0, r"\AThe capital of France is Paris\.\n\Z", SUMMARY),
    ('generate --chat "What is the capital of France?"', 0, r"capital of France is Paris", SUMMARY),
    ('generate --raw -n 3 "The capital of France is"', 0, r"(?i)\A Paris", r"cut off after 3 tokens; --max-tokens \(-n\) allows more"),
    ('generate -q -n 3 "Say hello."', 0, ANY, NOTHING),
    ('generate --raw -q -n 4 --echo "The capital"', 0, r"\AThe capital", NOTHING),
    ('generate --raw --temp 0 -s 7 -n 3 -p "The capital of France is"', 0, r"Paris", ANY),
    ('generate -n 3 -q --seed -1 "Say hello."', 0, ANY, NOTHING),
    ('generate -n 3 -q --seed 18446744073709551615 --json "Say hello."', 0, r'"seed":"18446744073709551615"', NOTHING),
    ('generate -q --system "Answer with one word." "What is the capital of France?"', 0, r"Paris", NOTHING),
    ('generate --raw -n 4 --logit-bias 42:100 --token-ids "x"', 0, ANY, r"token ids: 42 42 42 42"),
    ('generate --raw -n 9 --logit-bias 42+100 --stop-id 42 --token-ids "x"', 0, ANY, r"(?m)^token ids: 42$"),
    ('generate --raw -n 9 --logit-bias 2:100 "x"', 0, r"\A\n\Z", r"the answer is empty: .*without --raw the prompt goes in the model's chat format"),
    ('generate -n 9 --logit-bias 2:100 "x"', 0, r"\A\n\Z", r"the answer is empty: .*--min-tokens 8"),
    ('generate --raw -n 2 --logprobs "The capital of France is"', 0, r"Paris", r"(?m)^ +\d+  \" Paris\" +-\d\.\d+ +\d+\.\d %$"),
    ('generate --raw -n 1 --top-logprobs 3 "The capital of France is"', 0, r"Paris", r"(?m)(^     +\d+  \".*\n){3}"),
    ('generate --request-id mine -n 2 --json "Say hello."', 0, r'"requestId":"mine"', NOTHING),
    ('generate -n 2 "Say hello." --report', 0, ANY, r"(?m)^prompt tokens +\d+$"),
    ('generate -n 2 --report "Say hello."', 0, ANY, r"(?m)^saved +nothing\nsaved share +-$"),
    ('generate --raw -n 2 --policy snapkv --budget 16 --report=summary "Say hello."', 0, ANY, r"nothing saved, the text is too short"),
    ('generate -n 2 -q --deadline 100 "Say hello."', 0, ANY, NOTHING),
    ('generate -n 16 -f {license} --question "What is the name of this license?" --policy pyramidkv --budget 256', 0, r"Apache License",
     r"(?m)^pyramidkv 256: kept [\d.]+ MiB of [\d.]+ MiB, saved \d+\.\d %; recall \d+\.\d %; first token [\d.]+ s, then [\d.]+ tok/s$"),
    ('generate -n 2 -q --file {license} --question "Name?" --policy snapkv --budget "4 mib"', 0, ANY, NOTHING),
    ('generate -n 2 -q --policy snapkv --budget 8M "Say hello."', 0, ANY, NOTHING),
    # What the program refuses by itself, with the way out.
    ("generat x", 2, NOTHING, r"no command 'generat'; did you mean 'generate'\?"),
    ("", 2, NOTHING, r"which command\? .*generate.*chat"),
    ("generate --temprature 0 x", 2, NOTHING, r"'generate' has no option --temprature; did you mean '--temperature'\?"),
    ("help generat", 2, NOTHING, r"no command 'generat'; did you mean 'generate'\?"),
    ("chat --buget 12", 2, NOTHING, r"did you mean '--budget'\?"),
    ("generate several words", 2, NOTHING, r"in quotes"),
    ("generate", 2, NOTHING, r"no prompt: give it as an argument, with --prompt-file \(-f\) or on standard input"),
    ('generate ""', 2, NOTHING, r"the prompt is empty"),
    ("generate --prompt-file {dir}", 2, NOTHING, r"--prompt-file: cannot read .*: Is a directory"),
    ("generate -f {dir}/none", 2, NOTHING, r"--prompt-file: cannot read .*/none: No such file"),
    ("generate -f {license} x", 2, NOTHING, r"exclude each other; --question asks about a file"),
    ("generate -f {binary}", 2, NOTHING, r"no UTF-8 text \(byte 2 of 4\); iconv"),
    ("generate --seed -2 x", 2, NOTHING, r"--seed: '-2' is not a whole number from 0 to 18446744073709551615, or -1 for a random one"),
    ("generate --seed 18446744073709551616 x", 2, NOTHING, r"--seed: .*or -1 for a random one"),
    ("generate -n -1 x", 2, NOTHING, r"--max-tokens: '-1' is not a whole number from 0"),
    ("generate --temp warm x", 2, NOTHING, r"--temperature: 'warm' is not a number"),
    ("generate --deadline 0 x", 2, NOTHING, r"--deadline: '0' is not a number of seconds over 0"),
    ("generate --stop-id x y", 2, NOTHING, r"--stop-id: 'x' is no token id"),
    ("generate --logit-bias 5 x", 2, NOTHING, r"--logit-bias: '5' is not ID:VALUE"),
    ("generate --report layer x", 2, NOTHING, r"'layer' is not none, summary, layers or positions; did you mean 'layers'\?"),
    ("generate --budget 4X --policy snapkv x", 2, NOTHING, r"--budget: '4X' .*\(128\).*\(12%\).*recall:0\.95.*4MiB or 4M"),
    ("generate --budget 150% --policy snapkv x", 2, NOTHING, r"--budget: '150%' is no share of the prompt, .*at most 100%"),
    ("tokenize --ids 504,x", 2, NOTHING, r"--ids: 'x' is no token id, .*\n'pyramidkv tokenize --help'"),
    ("tokenize --ids ,", 2, NOTHING, r"--ids: no token ids are given"),
    ("generate --max-bytes lots --policy snapkv x", 2, NOTHING, r"--max-bytes: 'lots' is no size \(.*4MiB or 4M"),
    ("generate --policy snapvk x", 2, NOTHING, r"'snapvk' is no policy .*did you mean 'snapkv'\?"),
    ("generate --raw --chat x", 2, NOTHING, r"--raw and --chat exclude each other"),
    ("generate --raw --system y x", 2, NOTHING, r"--raw and --system exclude each other"),
    ("generate --save-reply {dir} x", 2, NOTHING, r"--save-reply: cannot write .*: Is a directory"),
    ("generate --save-reply {dir}/no/file x", 2, NOTHING, r"--save-reply: cannot write .*: No such file"),
    ("report {empty}", 2, NOTHING, r"is no reply saved by"),
    ("report {dir}", 2, NOTHING, r"cannot read .*: Is a directory"),
    ("tokenize --file {dir}", 2, NOTHING, r"--file: cannot read .*: Is a directory"),
    ("inspect --output {dir} x", 2, NOTHING, r"--output: cannot write .*: Is a directory"),
    # What the server refuses: the flag beside the field, and the way out.
    ("generate --temp 101 x", 1, NOTHING, r"sampling\.temperature \(--temperature\): must be in \[0, 100\], not 101 \[BAD_SAMPLING\]"),
    ("generate --top-p 2 x", 1, NOTHING, r"sampling\.top_p \(--top-p\):"),
    ("generate --top-logprobs 21 x", 1, NOTHING, r"output\.top_logprobs \(--top-logprobs\):"),
    ("generate --stop-id 99999999 x", 1, NOTHING, r"sampling\.stop_token_ids\[0\] \(--stop-id\):"),
    ("generate --logit-bias 5:101 x", 1, NOTHING, r"sampling\.logit_bias\[5\] \(--logit-bias\):"),
    ("generate --model other x", 1, NOTHING, r"model \(--model\): .*\nTry 'pyramidkv models'"),
    ("generate --policy full --budget 9 x", 1, NOTHING, r"\(--budget\): .*\nTry without --budget, or with --policy pyramidkv"),
    ("generate --policy snapkv --kernel 4 x", 1, NOTHING, r"cache_policy\.snapkv\.kernel_size \(--param kernel_size=\.\.\.\):"),
    ("generate --policy snapkv --budget 64kib -f {license}", 1, NOTHING, r"cache_policy\.budget\.bytes \(--budget\): .*\nTry --budget \d+KiB\n"),
    ("generate -f {long}", 1, NOTHING, r"\[CONTEXT_TOO_LONG\]\nTry --truncate-prompt-tokens \d+"),
    ("generate -n 8190 -f {license}", 1, NOTHING, r"sampling\.max_tokens \(--max-tokens\): .*\nTry --max-tokens \d+\n"),
    # The deadline passes, or the server is faster and says that it will.
    ("generate --deadline 0.001 -f {license}", 1, NOTHING,
     r"(deadline passed before the (first token|server answered)|\[DEADLINE_TOO_SHORT\])\nTry a longer --deadline"),
    ("estimate --prompt-tokens 8000", 0, r"admissible ever +yes", NOTHING),
    ("estimate --prompt-tokens 8000 --max-tokens 300", 1, NOTHING, r"CONTEXT_TOO_LONG\]\nTry --max-tokens 192\n"),
    # Help: defaults, groups, examples, exit codes.
    ("--help", 0, r"(?s)generate .*chat .*Examples:.*Exit codes: 0 good", NOTHING),
    ("help", 0, r"(?s)generate .*chat .*Examples:", NOTHING),
    ("help generate", 0, r"(?s)Prompt:.*Sampling:", NOTHING),
    ("tokenize --help", 0, r"(?s)--ids ID .*spaces or commas", NOTHING),
    ("generate --help", 0, r"(?s)Prompt:.*Cache policy:.*Sampling:.*Output:.*Examples:\n  pyramidkv generate.*Exit codes: 0 good; 1 .*; 2 wrong usage; 3 ", NOTHING),
    ("generate --help", 0, r"(?s)--max-tokens N .*\[256\].*--temperature X .*\[0; 1 with.*--seed N .*\[-1\]", NOTHING),
    ("chat --help", 0, r"(?s)Examples:\n  pyramidkv chat.*Exit codes", NOTHING),
]


class CommandLineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.paths = {"dir": os.path.join(folder.name, "folder"), "license": LICENSE}
        os.mkdir(cls.paths["dir"])
        for name, content in (("empty", b"{}"), ("binary", b"ab\xffc"), ("long", b"one two three four. " * 2500)):
            cls.paths[name] = os.path.join(folder.name, name)
            with open(cls.paths[name], "wb") as file:
                file.write(content)

    def run_client(self, *words, stdin=None):
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run([CLIENT, *words], capture_output=True, text=True, timeout=120, **given,
                              env={**os.environ, "PYRAMIDKV_SERVER": self.server.address})

    def test_table(self):
        for line, code, stdout, stderr in CASES:
            with self.subTest(line):
                done = self.run_client(*shlex.split(line.format(**self.paths)))
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertRegex(done.stdout, stdout)
                self.assertRegex(done.stderr, stderr)
                self.assertNotRegex(done.stderr, r"\[libprotobuf|\.cc:\d+|\x1b")

    def test_token_ids_in_every_form_are_the_text_again(self):
        ids = self.run_client("tokenize", "The name of the license").stdout.split()
        self.assertGreater(len(ids), 3)
        for form in ([*ids], [",".join(ids)], [" ".join(ids)], ["\n".join(ids)], [ids[0] + ", " + ids[1], *ids[2:]]):
            done = self.run_client("tokenize", "--ids", *form)
            self.assertEqual((done.returncode, done.stdout), (0, "The name of the license\n"), (form, done.stderr))

    def test_every_way_out_works(self):
        """The command that an error ends with, typed as it stands, succeeds."""
        for line in ("generate -q -n 2 --policy snapkv --budget 64kib -f {license}", "generate -q -n 8190 --stop-id 0 --stop . -f {license}",
                     "generate -q -n 2 --policy pyramidkv --budget 12% -f {long}"):
            words = shlex.split(line.format(**self.paths))
            refused = self.run_client(*words)
            self.assertEqual(refused.returncode, 1, line)
            fix = re.search(r"\nTry ((?:--[\w-]+ \w+ ?)+)", refused.stderr)
            self.assertTrue(fix, refused.stderr)
            for flag, value in zip(*[iter(fix[1].split())] * 2):
                for name in (flag, {"--max-tokens": "-n"}.get(flag)):
                    if name in words:
                        at = words.index(name)
                        del words[at:at + 2]
                words += [flag, value]
            done = self.run_client(*words)
            self.assertEqual(done.returncode, 0, (words, done.stderr))

    def test_the_smallest_budget_of_an_estimate_is_the_smallest_that_is_taken(self):
        for policy in ("snapkv", "pyramidkv"):
            asked = ("--policy", policy, "-f", LICENSE, "--max-tokens", "16")
            estimate = self.run_client("estimate", *asked, "--budget", "128")
            kib = int(re.search(r"(?m)^smallest budget in bytes +(\d+)KiB$", estimate.stdout)[1])
            taken, refused = (self.run_client("generate", "-q", *asked, "--budget", f"{size}KiB") for size in (kib, kib - 1))
            self.assertEqual(taken.returncode, 0, taken.stderr)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"\nTry --budget {kib}KiB\n", refused.stderr)

    def test_the_prompt_comes_from_standard_input(self):
        done = self.run_client("generate", "-q", stdin="What is the capital of France?")
        self.assertEqual((done.returncode, done.stdout), (0, "The capital of France is Paris.\n"), done.stderr)
        done = self.run_client("generate", "-q", "--question", "What is the colour of the house?", stdin="The house is green.")
        self.assertIn("green", done.stdout)
        done = self.run_client("generate", "-q", "-f", "-", stdin="What is the capital of France?")
        self.assertIn("Paris", done.stdout)
        self.assertEqual(self.run_client("generate", stdin="").returncode, 2)

    def test_the_reply_is_what_the_unary_call_answers(self):
        """`--json` puts together from a stream what Generate answers in one piece."""
        words = ("generate", "--json", "--raw", "-n", "12", "--echo", "--top-logprobs", "2", "--report", "layers", "--policy", "tova", "--budget", "8",
                 "--request-id", "same", "-s", "3", "--temp", "0", "The caf\u00e9 in the old town is")
        printed = json_format.Parse(self.run_client(*words).stdout, generation_pb2.GenerateResponse())
        request = generation_pb2.GenerateRequest(
            request_id="same", prompt=words[-1], sampling={"temperature": 0, "max_tokens": 12, "seed": 3},
            output={"echo": True, "logprobs": True, "top_logprobs": 2}, cache_report="CACHE_REPORT_DETAIL_PER_LAYER",
            cache_policy={"tova": {}, "budget": {"tokens": 8}})
        answered = self.server.generation.Generate(request)
        for reply in (printed, answered):
            reply.ClearField("timings")
            for field in ("workspace_bytes", "held_byte_seconds", "full_byte_seconds"):
                reply.cache.ClearField(field)
        self.assertEqual(printed, answered)

    def test_a_random_seed_samples_and_a_fixed_one_repeats(self):
        words = ("generate", "--json", "-n", "8", "Tell me a story.")
        reply = [json.loads(self.run_client(*words, *more).stdout) for more in (("-s", "-1"), ("-s", "-1"), ("-s", "5"), ("-s", "5"), (), ())]
        self.assertNotEqual(reply[0]["seed"], reply[1]["seed"])
        self.assertEqual(reply[2]["choices"], reply[3]["choices"])
        self.assertEqual(reply[4]["choices"], reply[5]["choices"])

    def test_progress_of_a_long_prompt(self):
        done = self.run_client("generate", "-n", "1", "--truncate-prompt-tokens", "8000", "-f", self.paths["long"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"(?m)^reading the prompt: +\d+ % \(\d+ s\)$")

    def test_a_saved_reply_is_reported(self):
        path = os.path.join(self.paths["dir"], "reply.json")
        self.assertEqual(self.run_client("generate", "-q", "-n", "2", "--save-reply", path, "Say hello.").returncode, 0)
        done = self.run_client("report", "--layers", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^layer +0 ")


if __name__ == "__main__":
    unittest.main()
