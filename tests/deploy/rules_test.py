# Prometheus' configuration and rules, with Prometheus' own promtool: they are valid, the unit tests in deploy/prometheus/tests pass, and
# those show every alert firing and staying silent and every recording rule's value. The runbook has a section for each alert.
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(os.environ["PKV_SOURCE_DIR"])
FOLDER = ROOT / "deploy/prometheus"
sys.path.insert(0, str(ROOT / "deploy/grafana"))

import expressions  # noqa: E402

ALERTS = {rule["alert"]: rule for _, rule in expressions.rules() if "alert" in rule}
RECORDS = {rule["record"] for _, rule in expressions.rules() if "record" in rule}
TESTS = [test for path in FOLDER.glob("tests/*.test.yaml") for test in yaml.safe_load(path.read_text())["tests"]]


def setUpModule():
    if shutil.which("promtool") is None:
        subprocess.run([ROOT / "scripts/install_packages"], check=True)


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)


class Promtool(unittest.TestCase):
    def assert_accepts(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_rules_are_valid(self):
        self.assert_accepts(promtool("check", "rules", *sorted(FOLDER.glob("*.rules.yaml"))))

    def test_configuration_is_valid_and_finds_the_rules(self):
        result = promtool("check", "config", FOLDER / "prometheus.yaml")
        self.assert_accepts(result)
        self.assertIn(f"{len(list(FOLDER.glob('*.rules.yaml')))} rule files found", result.stdout + result.stderr)

    def test_unit_tests_of_the_rules_pass(self):
        self.assert_accepts(promtool("test", "rules", *sorted(FOLDER.glob("tests/*.test.yaml"))))


class Autoscalers(unittest.TestCase):
    """Of two pods, one has promised nine tenths of its pool and one a tenth; little of either is in use."""

    def evaluate(self, expression, values):
        series = [{"series": f'pyramidkv_kv_cache_{name}{{namespace="pyramidkv", pod="{pod}"}}', "values": f"{value}x10"}
                  for pod, reserved in (("a", 900), ("b", 100)) for name, value in (("reserved_bytes", reserved), ("pool_bytes", 1000),
                                                                                    ("usage_ratio", 0.02))]
        samples = [{"labels": labels, "value": value} for labels, value in values]
        test = {"interval": "15s", "input_series": series, "promql_expr_test": [{"expr": expression, "eval_time": "2m", "exp_samples": samples}]}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"tests": [test]}, file)
            file.flush()
            result = promtool("test", "rules", file.name)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_keda_adds_the_reserved_shares(self):
        queries = [expression.text for expression in expressions.of_autoscalers() if "kv_cache" in expression.text]
        self.assertEqual(len(queries), 1)
        self.evaluate(queries[0], [("{}", 1.0)])

    def test_the_adapter_gives_the_reserved_share_of_each_pod(self):
        values = yaml.safe_load((expressions.AUTOSCALERS / "components/autoscale-hpa/prometheus-adapter-values.yaml").read_text())
        rule = next(rule for rule in values["rules"]["custom"] if rule["name"]["as"] == "pyramidkv_kv_cache_reserved_ratio")
        query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].partition("{")[0]).replace("<<.GroupBy>>", "pod")
        self.evaluate(query.replace("<<.LabelMatchers>>", 'namespace="pyramidkv",pod=~"a|b"'), [('{pod="a"}', 0.9), ('{pod="b"}', 0.1)])


class Coverage(unittest.TestCase):
    def test_every_alert_is_shown_to_fire_and_to_stay_silent(self):
        fires, silent = set(), set()
        for test in TESTS:
            for case in test.get("alert_rule_test", []):
                (fires if case["exp_alerts"] else silent).add(case["alertname"])
        self.assertEqual(fires, set(ALERTS))
        self.assertEqual(silent, set(ALERTS))

    def test_every_recording_rule_has_a_value_worked_out(self):
        asked = " ".join(case["expr"] for test in TESTS for case in test.get("promql_expr_test", []) if case["exp_samples"])
        self.assertEqual({name for name in RECORDS if name not in asked}, set())

    def test_recorded_series_that_alerts_use_are_recorded(self):
        used = {name for rule in ALERTS.values() for name, _ in expressions.selectors(rule["expr"]) if ":" in name}
        self.assertLessEqual(used, RECORDS)


class Annotations(unittest.TestCase):
    def test_each_alert_says_what_it_means_and_how_bad_it_is(self):
        for name, rule in ALERTS.items():
            with self.subTest(name):
                self.assertEqual(set(rule["annotations"]), {"summary", "description", "runbook_url"})
                self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))

    def test_the_runbook_has_a_section_for_each_and_no_other(self):
        sections = [line[3:].strip() for line in (ROOT / "docs/runbook.md").read_text().splitlines() if line.startswith("## ")]
        self.assertEqual(sections, list(ALERTS))
        for name, rule in ALERTS.items():
            self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbook.md#{name.lower()}")


if __name__ == "__main__":
    unittest.main()
