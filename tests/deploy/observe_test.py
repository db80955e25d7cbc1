# What scripts/observe does at its end, against a Prometheus made up here: verify.py notices an expression without data, a rule that is not
# loaded, an alert that fires and a metric nobody exports; draw.py makes a picture of every row of panels, with data and without.
import contextlib
import io
import os
import pathlib
import sys
import tempfile
import types
import unittest
import unittest.mock

ROOT = pathlib.Path(os.environ["PKV_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "deploy/grafana"))

import draw  # noqa: E402
import draw_panels  # noqa: E402
import expressions  # noqa: E402
import links  # noqa: E402
import verify  # noqa: E402

STATES = {"health": "ok", "state": "inactive"}


CONDITIONS = {expression.name: expression.text for expression in expressions.of_rules() if expression.kind == "alert"}


def made_up(empty=(), rules=None, true_alerts=()):
    """A Prometheus in which everything has data but for expressions that contain a word of `empty` and the conditions of alerts; of those
    only `true_alerts` do."""
    silent = {text for name, text in CONDITIONS.items() if name not in true_alerts}
    series = [({"policy": "full", "layer": "00", "component": "weights"}, [(1000 + 5 * step, 0.5 + step) for step in range(10)])]
    loaded = rules or [dict(STATES, name=rule.get("record") or rule.get("alert")) for _, rule in expressions.rules()]
    has_data = lambda text: text not in silent and not any(word in text for word in empty)  # noqa: E731
    return types.SimpleNamespace(rules=lambda: loaded, range=lambda text: series if has_data(text) else [])


def problems(prometheus):
    with contextlib.redirect_stdout(io.StringIO()):
        return verify.check_expressions(prometheus, "30s", True)


class Verify(unittest.TestCase):
    def test_nothing_is_wrong_where_everything_has_data(self):
        self.assertEqual(problems(made_up()), [])

    def test_panels_and_rules_without_data_are_named(self):
        wrong = problems(made_up(empty=["pyramidkv_kv_cache_layer_held_bytes"]))
        self.assertEqual(len(wrong), 1)
        self.assertIn("Held by layer", wrong[0])
        wrong = problems(made_up(empty=["pyramidkv_server_state"]))
        self.assertEqual({line.split(": ")[1] for line in wrong}, {"Server state A", "PyramidKVFailed", "PyramidKVNotServing"})

    def test_rules_that_are_not_loaded_broken_or_firing_are_named(self):
        names = [rule.get("record") or rule.get("alert") for _, rule in expressions.rules()]
        rules = [dict(STATES, name=name) for name in names if name != "PyramidKVPoolFull"]
        next(rule for rule in rules if rule["name"] == "PyramidKVCacheLeak")["state"] = "firing"
        next(rule for rule in rules if rule["name"] == "PyramidKVLowRecall").update(health="err", lastError="many-to-many")
        wrong = " ".join(problems(made_up(rules=rules)))
        for expected in ("PyramidKVPoolFull: not loaded", "PyramidKVCacheLeak: fires", "PyramidKVLowRecall: many-to-many"):
            self.assertIn(expected, wrong)

    def test_an_invariant_that_was_broken_for_a_moment_is_named(self):
        self.assertEqual([line.split(": ")[1:] for line in problems(made_up(true_alerts=["PyramidKVAccountingDrift", "PyramidKVPoolFull"]))],
                         [["PyramidKVAccountingDrift", "was true for a moment"]])

    def test_metrics_that_nobody_exports_are_named(self):
        recorded = {rule["record"] for _, rule in expressions.rules() if "record" in rule}
        names = set(expressions.metrics_named()) - recorded - expressions.OWN_SERIES
        self.assertEqual(verify.check_metrics(names), [])
        missing = verify.check_metrics(names - {"pyramidkv_requests_waiting"})
        self.assertEqual(len(missing), 1)
        self.assertIn("pyramidkv_requests_waiting", missing[0])


class Draw(unittest.TestCase):
    def test_every_panel_is_in_one_picture(self):
        for dashboard in expressions.dashboards().values():
            drawn = [panel["id"] for section in draw.sections(dashboard) for panel in section]
            self.assertEqual(sorted(drawn), sorted(panel["id"] for panel in dashboard["panels"]))

    def test_every_kind_of_panel_is_drawn_with_data_and_without(self):
        kinds = {}
        for dashboard in expressions.dashboards().values():
            values = expressions.variables(dashboard)
            for section in draw.sections(dashboard):
                new = [panel for panel in section if panel["type"] not in kinds]
                kinds.update({panel["type"]: (section, values) for panel in new})
        self.assertLessEqual(set(draw_panels.DRAWERS), set(kinds))
        for section, values in {section[0]["id"]: (section, values) for section, values in kinds.values()}.values():
            panels = sum(len(draw.repeated(panel, values)) for panel in section if panel["type"] != "row")
            self.assertEqual(self.blank_panels(made_up(), section, values), 0)
            self.assertEqual(self.blank_panels(made_up(empty=["pyramidkv", "ALERTS", "process"]), section, values), panels)

    def blank_panels(self, prometheus, section, values):
        """Draws a section; how many of its panels have nothing to show."""
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(draw_panels, "say_no_data") as said:
            path = pathlib.Path(folder) / "picture.png"
            draw.draw_section(prometheus, section, values, "30s", path)
            self.assertEqual(path.read_bytes()[1:4], b"PNG")
            return said.call_count

    def test_numbers_are_written_as_grafana_does(self):
        for value, unit, text in ((0, "bytes", "0 B"), (1536, "bytes", "1.5 KiB"), (256 << 20, "bytes", "256 MiB"), (0.805, "percentunit", "80%"),
                                  (0.012, "s", "12 ms"), (2.5, "s", "2.5 s"), (5.63, "suffix: x", "5.63 x"), (1200, "short", "1.2 K"),
                                  (-2048, "bytes", "-2 KiB"), (3, "reqps", "3 req/s")):
            self.assertEqual(draw_panels.show(value, unit), text)

    def test_a_panel_that_is_repeated_is_drawn_once_for_each_value(self):
        copies = draw.repeated({"repeat": "drawn", "gridPos": {"x": 0, "y": 3, "w": 6, "h": 9}}, {"drawn": "full|h2o", "job": ".*"})
        self.assertEqual([(panel["gridPos"]["x"], values["drawn"]) for panel, values in copies], [(0, "full"), (6, "h2o")])


class Links(unittest.TestCase):
    def test_matchers_that_let_everything_pass_are_left_out(self):
        self.assertEqual(links.short('sum(rate(a{job=~".*", instance=~".*", code!="OK"}[1m])) / b{job=~".*"}'), 'sum(rate(a{code!="OK"}[1m])) / b')
        self.assertEqual(links.short('a{code!="OK", job=~".*"}'), 'a{code!="OK"}')


if __name__ == "__main__":
    unittest.main()
