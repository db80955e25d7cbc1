# The Grafana dashboards without Grafana: the committed JSON is what the Python makes, every expression parses (types too), every metric
# is one that docs/metrics.md has, and every panel says what it shows. deploy/grafana/verify.py runs the same expressions for real.
import collections
import os
import pathlib
import re
import sys
import tempfile
import unittest
import unittest.mock

import yaml

ROOT = pathlib.Path(os.environ["PKV_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "deploy/grafana"))

import expressions  # noqa: E402
import generate  # noqa: E402


def documented_metrics():
    """The metrics in the tables of docs/metrics.md: the first word in backquotes of a row, with or without the prefix."""
    rows = re.findall(r"^\|[^|`]*`([a-z0-9_]+)", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name if name.startswith(("pyramidkv_", "process_")) else "pyramidkv_" + name for name in rows}


class Dashboards(unittest.TestCase):
    def test_committed_json_is_what_the_python_makes(self):
        self.assertEqual(generate.drift(), [])

    def test_drift_is_noticed(self):
        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(generate, "FOLDER", pathlib.Path(folder)):
            for name, text in generate.generated().items():
                (generate.FOLDER / name).write_text(text)
            self.assertEqual(generate.drift(), [])
            (generate.FOLDER / "pyramidkv-overview.json").write_text("{}")
            (generate.FOLDER / "left-over.json").write_text("{}")
            self.assertEqual([line.split()[0] for line in generate.drift()], ["left-over.json", "pyramidkv-overview.json"])

    def test_uids_and_panel_ids_are_unique(self):
        dashboards = expressions.dashboards()
        self.assertEqual(len({dashboard["uid"] for dashboard in dashboards.values()}), len(dashboards))
        for file, dashboard in dashboards.items():
            counts = collections.Counter(panel["id"] for panel in dashboard["panels"])
            self.assertEqual([panel for panel, count in counts.items() if count > 1], [], file)

    def test_every_panel_has_title_description_and_unit(self):
        for file, dashboard in expressions.dashboards().items():
            for panel in expressions.panels(dashboard):
                with self.subTest(f"{file}: {panel['title']}"):
                    self.assertGreater(len(panel["description"]), 30)
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])

    def test_every_query_goes_to_the_chosen_data_source_and_instances(self):
        for file, dashboard in expressions.dashboards().items():
            for panel in expressions.panels(dashboard):
                for target in panel["targets"]:
                    with self.subTest(f"{file}: {panel['title']} {target['refId']}"):
                        self.assertEqual(target["datasource"]["uid"], "${datasource}")
                        for name, selector in expressions.selectors(expressions.fill_in(target["expr"], {"job": "JOB", "instance": "INSTANCE"})):
                            self.assertRegex(selector, 'job=~"JOB[|]?"')
                            if name not in expressions.OWN_SERIES:
                                self.assertIn('instance=~"INSTANCE"', selector)

    def test_variables_are_defined(self):
        for file, dashboard in expressions.dashboards().items():
            known = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
            for panel in expressions.panels(dashboard):
                texts = [panel["title"]] + [target["expr"] for target in panel["targets"]]
                used = set(re.findall(r"\$\{?([A-Za-z_]+)", " ".join(texts))) | {panel.get("repeat") or "job"}
                self.assertLessEqual(used, known, f"{file}: {panel['title']}")

    def test_panels_do_not_overlap(self):
        for file, dashboard in expressions.dashboards().items():
            taken = collections.Counter()
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], 24, f"{file}: {panel['title']}")
                taken.update((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"]))
            self.assertEqual(max(taken.values()), 1, file)

    def test_links_lead_to_a_dashboard_that_is_there(self):
        uids = {dashboard["uid"] for dashboard in expressions.dashboards().values()}
        for dashboard in expressions.dashboards().values():
            self.assertEqual({link["url"] for link in dashboard["links"]} - {f"/d/{uid}" for uid in uids}, set())


class Expressions(unittest.TestCase):
    def test_each_parses(self):
        every = expressions.every_expression()
        self.assertGreater(len(every), 60)
        for expression in every:
            with self.subTest(expression.place):
                self.assertTrue(expressions.selectors(expression.text))

    def test_what_is_no_promql_is_refused(self):
        for wrong in ("sum(", "rate(pyramidkv_requests_total)", "sum by policy (up)", 'up{job="a}'):
            with self.subTest(wrong), self.assertRaises(ValueError):
                expressions.selectors(wrong)

    def test_each_metric_is_documented(self):
        known = documented_metrics()
        recorded = {rule["record"] for _, rule in expressions.rules() if "record" in rule}
        for name, place in expressions.metrics_named().items():
            with self.subTest(name, place=place):
                family = re.sub(r"_(bucket|sum|count)$", "", name)
                self.assertTrue(name in expressions.OWN_SERIES | recorded | known or family in known, f"{name} is not in docs/metrics.md")


class Provisioning(unittest.TestCase):
    def test_each_file_is_of_the_form_grafana_reads(self):
        folder = ROOT / "deploy/grafana/provisioning"
        for kind, key in (("datasources", "datasources"), ("dashboards", "providers")):
            for path in (folder / kind).glob("*.yaml"):
                content = yaml.safe_load(path.read_text())
                self.assertEqual(content["apiVersion"], 1, path.name)
                self.assertEqual(len(content[key]), 1, path.name)

    def test_data_source_expects_the_scrape_interval(self):
        source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
        prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
        self.assertEqual(source["jsonData"]["timeInterval"], prometheus["global"]["scrape_interval"])


if __name__ == "__main__":
    unittest.main()
