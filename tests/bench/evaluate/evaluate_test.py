"""What scripts/evaluate makes of its figures, without a server."""
import pathlib
import re
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import client
import divergence
import documents
import evaluate
import formats
import needles
import origin
import recall
import tasks
import variants


class Evaluate(unittest.TestCase):
    def test_sixteen_documents_and_each_has_a_question(self):
        held_out = documents.held_out()
        self.assertGreaterEqual(len({name for name, _, _ in held_out}), 16)
        for name, text, question in held_out:
            self.assertGreater(len(text), 4000, name)
            self.assertTrue(question.endswith("?"), name)

    def test_smaller_entries_are_more_in_the_same_bytes(self):
        self.assertEqual(divergence.notation("snapkv", "128", 64), "snapkv:128::f16")
        self.assertEqual(divergence.notation("funnel k8v4", "128", 64), "funnel:313::k8v4")  # 128 x 260 / 106
        self.assertEqual(divergence.notation("funnel k8v4", "20%", 64), "funnel:49.0566%::k8v4")

    def test_an_interval_lies_around_its_ratio_and_one_of_equal_documents_is_narrow(self):
        rows = [{"kl": kl} for kl in (0.1, 0.2, 0.4, 0.8)]
        low, high = divergence.interval(rows, [{"kl": 2 * row["kl"]} for row in rows])
        self.assertAlmostEqual(low, 0.5)
        self.assertAlmostEqual(high, 0.5)
        low, high = divergence.interval(rows, list(reversed(rows)))
        self.assertLess(low, 1)
        self.assertGreater(high, 1)

    def test_a_missed_demand_is_said(self):
        table = {("plain", "20%"): {"snapkv": [{"kl": 1.0}], "funnel f16": [{"kl": 0.3}]}}
        lines = {most: divergence.verdicts(table, {("funnel f16", "snapkv"): {"plain": {"20%": most}}}) for most in (0.2, 0.4)}
        self.assertIn("**missed**", lines[0.2])
        self.assertIn("| met |", lines[0.4])

    def test_the_page_says_what_is_billed_where_entries_are_equal(self):
        row = {"kl": 0.1, "top1": 1, "same": True, "peak": 0, "recall": None, "entries": 128}
        table = {("plain", "128"): {"snapkv": [{**row, "bytes": 2 << 20}], "pyramidkv": [{**row, "bytes": 3 << 20}]}}
        self.assertIn("| 128 f16 | `pyramidkv` | 128 | 3.00 | 1.50 | 0.1000 |", divergence.page(table))

    def test_every_demand_is_of_policies_that_are_measured(self):
        for demands in evaluate.DEMANDS.values():
            self.assertLessEqual({policy for pair in demands for policy in pair}, set(divergence.POLICIES))
            self.assertIn(("funnel k8v4", "snapkv k8v4"), demands)

    def test_every_change_is_of_variants_that_are_measured(self):
        for part, (_, policies, changes) in variants.PARTS.items():
            self.assertLessEqual({policy for change in changes for policy in change}, set(policies))
            rows = {policy: [{"kl": 0.1 * (i + 1)}, {"kl": 0.3 * (i + 1)}] for i, policy in enumerate(policies)}
            page = variants.page(part, {("plain", "20%"): rows})
            self.assertIn(f"| `{policies[1]}` | 0.4000 |", page)
            self.assertIn(f"| `{policies[1]}` to `{policies[0]}` | 2.00 [2.00, 2.00] |", page)

    def test_a_format_that_loses_more_than_asked_is_said(self):
        row = {"top1": 1, "same": True, "bytes": 1 << 20}
        page = formats.page([{**row, "kl": 0.001}, {**row, "kl": 0.002}])
        self.assertIn("| 1.00 | 0.00150 | 0.00100 to 0.00200 | 100.0 % | 2 of 2 | 0.002 | met |", page)
        self.assertIn("**missed**", formats.page([{**row, "kl": 0.0021}]))

    def test_the_answer_of_a_task_is_scored_and_follows_from_its_document(self):
        for name, task in tasks.TASKS.items():
            for index in range(tasks.PER_TASK):
                text, question, expected, score = task(index)
                self.assertGreater(len(expected.strip()), 3, name)
                self.assertEqual(score(expected, expected), 1, name)
                self.assertLess(score("no idea", expected), 0.5, name)
                self.assertTrue(name == "code" or expected in text, name)
                self.assertNotIn(expected, question or "", name)

    def test_pages_have_a_row_of_every_budget_and_task(self):
        shares = {64: {policy: [{"mean": 0.5, "min": 0.25}, {"mean": 1.0, "min": 0.75}] for policy in recall.POLICIES}}
        self.assertIn("| 64 | 0.750, 0.500 |", recall.page(shares))
        scores = dict.fromkeys(("full", *tasks.POLICIES), 0.5)
        page = tasks.page({"copy": [scores], "code": [dict.fromkeys(scores, 1.0)] * 3})
        self.assertIn("| code | 3 | 100 |", page)
        self.assertIn("| mean | 4 | 75 |", page)

    def test_a_needle_lies_at_its_depth_and_nowhere_else(self):
        for index, depth in enumerate((0, 0.5, 1)):
            text, question, code = needles.prompt(1000, index, depth)
            self.assertEqual(text.count(code), 1)
            self.assertNotIn(code, question)
            before = len(re.findall("\n", text[:text.index(code)]))
            self.assertAlmostEqual(before / text.count("\n"), depth, delta=0.02)
        self.assertEqual(len({needles.needle(i) for i in range(20)}), 20)

    def test_a_needle_more_than_one_that_funnel_misses_is_said(self):
        rows = [{"tokens": 9, "depth": 0, "found": {"full": True, "funnel:12.5%": hit}} for hit in (False, False, True)]
        self.assertIn("| 9 | 3 | 1 | **missed** |", needles.verdicts({9: rows}))
        self.assertIn("| 9 | 2 | 1 | met |", needles.verdicts({9: rows[1:]}))

    def test_records_of_another_origin_are_gone_on_with_only_where_that_is_asked_for(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            program = folder / "server"
            program.write_text("one")
            first = origin.of([program], "c1")
            self.assertEqual(origin.claim(folder, first, False), [first])
            self.assertEqual(origin.claim(folder, {**first, "commit": "c2"}, False), [first])
            program.write_text("two")
            second = origin.of([program], "c2")
            with self.assertRaisesRegex(SystemExit, "commit c1; since then these differ: server. Remove the folder .* --resume-anyway"):
                origin.claim(folder, second, False)
            self.assertEqual(origin.claim(folder, second, True), [first, second])
            self.assertEqual(origin.claim(folder, second, False), [first, second])
            self.assertIn("Records of 2 origins are mixed", origin.page([first, second]))
            self.assertNotIn("mixed", origin.page([second]))

    def test_records_that_do_not_say_what_they_were_measured_with_are_refused(self):
        with tempfile.TemporaryDirectory() as name:
            (pathlib.Path(name) / "needles.jsonl").write_text("")
            with self.assertRaisesRegex(SystemExit, "commit unknown"):
                origin.claim(pathlib.Path(name), origin.of([], "c1"), False)

    def test_a_text_that_is_not_the_recorded_one_is_named(self):
        entries = [{**documents.entries()[0], "sha256": "0"}]
        with mock.patch.object(documents, "entries", lambda: entries):
            self.assertEqual(documents.differing(), [entries[0]["name"]])
            self.assertIn(f"otherwise than held_out.json: {entries[0]['name']}.", origin.page([]))

    def test_what_was_measured_is_not_measured_again(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "records.jsonl"
            self.assertEqual(client.Records(path).measure("a", lambda: {"x": 1}), {"key": "a", "x": 1})
            self.assertEqual(client.Records(path).measure("a", lambda: self.fail("measured again"))["x"], 1)


if __name__ == "__main__":
    unittest.main()
