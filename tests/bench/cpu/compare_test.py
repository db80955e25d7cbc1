"""What scripts/bench makes of its figures, without running anything."""
import pathlib
import sys
import tempfile
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import compare
import limits
import page
import taxes

MODEL = {"layers": 2, "q_heads": 4, "kv_heads": 2, "head_dim": 8, "width": 32, "feed_forward": 64, "step_weight_bytes": 1e6,
         "kv_bytes_per_token": 100}
RATES = {"read": 10.0, "avx2": 100.0, "avx512_bf16": 400.0}


def report(rounds, **more):
    peers = {name: "1.0" for name in rounds[0] if name != "ours"}
    return {"model": "m.gguf", "isa": "", "fast": False, "backend": "cpu", "rounds": len(rounds), "minutes": 1, "load_before": 0, "peers": peers, "limits": RATES,
            "rows": compare.summary(rounds, MODEL, RATES), **more}


class Compare(unittest.TestCase):
    def test_ratios_are_of_each_round_and_their_median_counts(self):
        key = compare.case("prefill", "full", 512, 48)
        row, = compare.summary([{"ours": {key: mine}, "llama.cpp": {key: theirs}} for mine, theirs in ((10, 1), (20, 10), (90, 30))], MODEL, RATES)
        self.assertEqual((row["peers"]["llama.cpp"]["ratio"], row["peers"]["llama.cpp"]["ratio_min"]), (3, 2))
        self.assertEqual(row["ratio_to_llama_cpp"], 3)
        self.assertEqual(row["tokens_per_second"], 20)

    def test_what_only_we_ran_has_no_ratio_and_one_token_is_no_prompt(self):
        many, one = compare.case("decode", "uniform", 2048, 48, 16), compare.case("prefill", "full", 1, 48)
        rows = compare.summary([{"ours": {many: 5, one: 1}, "PyTorch bf16": {}}], MODEL, RATES)
        self.assertEqual([row["peers"] for row in rows], [{}])
        self.assertIn("| decode, 16 x 2,048 together, 12 % |", page.table(report([{"ours": {many: 5}, "PyTorch bf16": {}}])))

    def test_the_limits_of_a_prompt_and_of_a_step(self):
        # Of each token 32 x (2 x 32 + 2 x 16 + 3 x 64) multiply-adds a layer, and 2 x 32 for each of the 1 + 2 it attends to.
        self.assertAlmostEqual(limits.prefill_gflop(MODEL, 2), 2e-9 * 2 * (2 * 32 * 288 + 3 * 2 * 32))
        self.assertEqual(limits.arithmetic(RATES), ("avx512_bf16", 400.0))
        step = compare.case("decode", "full", 1000, 0)
        self.assertAlmostEqual(limits.most(step, MODEL, RATES), 10 / 1.1e-3)
        self.assertAlmostEqual(limits.most(compare.case("decode", "full", 1000, 0, 4), MODEL, RATES), 4 * 10 / 1.4e-3)
        self.assertAlmostEqual(limits.most(compare.case("decode", "snapkv", 1000, 0), MODEL, RATES), 10 / 1.012e-3)
        self.assertIsNone(limits.most(step, MODEL, {}))

    def test_a_path_has_what_those_before_it_have(self):
        self.assertEqual(limits.paths_up_to("avx512"), ("avx2", "avx512"))
        self.assertEqual(limits.paths_up_to(""), limits.PATHS)

    def test_kinds_of_cpus(self):
        def kind(vendor, family, model):
            return limits.kind(limits.cpu_fields(f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\nvendor_id: no\n"))
        self.assertEqual(kind("AuthenticAMD", 25, 17), "zen4")
        self.assertEqual(kind("AuthenticAMD", 25, 1), "zen3")
        self.assertEqual(kind("AuthenticAMD", 26, 2), "zen5")
        self.assertEqual(kind("GenuineIntel", 6, 143), "spr")
        self.assertEqual(kind("GenuineIntel", 6, 1), "genuineintel-6-1")
        self.assertEqual(limits.kind({}), "unknown")

    def test_a_page_has_one_table_of_each_model_and_keeps_what_else_it_has(self):
        first = report([{"ours": {compare.case("decode", "full", 1, 48): 5.0}}])
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "cpu.md"
            path.write_text("# A page\nWhat people wrote.\n")
            for model, limit in (("m.gguf", 10.0), ("n.gguf", 10.0), ("m.gguf", 77.0)):
                page.put(path, {**first, "model": model, "limits": {"read": limit}})
            page.put(path, {**first, "isa": "avx2", "limits": {"read": 55.0}})
            content = path.read_text()
        self.assertIn("What people wrote.", content)
        self.assertIn("55 GB/s", content.split("## Speed, m.gguf, no higher than avx2")[1])
        self.assertEqual((content.count("## Speed, m.gguf\n"), content.count("## Speed, n.gguf")), (1, 1))
        self.assertIn("77 GB/s", content.split("## Speed, n.gguf")[0])
        self.assertIn("| decode, empty context | 5.0 |", content)

    def test_a_round_more_only_where_its_time_is_left(self):
        program = types.SimpleNamespace(name="ours", run=dict)
        self.assertEqual(len(compare.run_rounds([program], types.SimpleNamespace(rounds=3, minutes=1))), 3)
        self.assertEqual(len(compare.run_rounds([program], types.SimpleNamespace(rounds=3, minutes=0))), 1)

    def test_taxes_are_ratios_of_what_is_left_without_loading(self):
        best = {name: (seconds, share) for name, seconds, share in [
            ("load", 1, 0), ("full", 11, 0), ("whole", 9, 0), ("one step", 2, 0), ("decode", 5, 0), ("whole one step", 3, 0),
            ("whole decode", 5, 0), ("h2o", 16, 0),
            ("snapkv", 11, 0.01), ("pyramidkv", 11, 0.03)]}
        rows = {what: value for what, value, _ in taxes.rows_of(best, 100, funnel=False)}
        self.assertEqual(rows["h2o / full, prefill of 100"], 1.5)
        self.assertEqual(rows["pages of 4 KiB / whole lanes, prefill of 100"], 1.25)
        self.assertEqual(rows["pages of 4 KiB / whole lanes, decode at 100"], 1.5)
        self.assertEqual(rows["scoring and cutting of pyramidkv, share of prefill of 100"], 0.03)
        self.assertFalse([what for what in rows if "funnel" in what])
        model = {"layers": 2, "kv_heads": 2, "kv_bytes_per_token": 1040}
        self.assertEqual(taxes.lane_bytes(model, 3), 832)  # 780 in whole lines


if __name__ == "__main__":
    unittest.main()
