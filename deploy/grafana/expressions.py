"""Every PromQL expression of the dashboards, the rules and the autoscalers, with where it stands, and the metrics they name. What the
tests parse is thereby what verify.py runs against a real Prometheus."""
import dataclasses
import json
import pathlib
import re

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
RULES = ROOT / "deploy/prometheus"
AUTOSCALERS = ROOT / "deploy/kubernetes"

# Series that Prometheus itself makes.
OWN_SERIES = {"up", "ALERTS"}


@dataclasses.dataclass(frozen=True)
class Expression:
    place: str  # for messages: file, panel or rule
    kind: str  # panel, annotation, variable, recording, alert, autoscaler
    text: str  # as Prometheus gets it, variables filled in
    name: str = ""  # of the rule


def dashboards():
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def variables(dashboard):
    """Name -> pattern that stands for what is chosen when the dashboard opens; everything is .*"""
    found = {}
    for variable in dashboard["templating"]["list"]:
        chosen = variable.get("current", {}).get("value", "$__all")
        chosen = [chosen] if isinstance(chosen, str) else chosen
        found[variable["name"]] = ".*" if "$__all" in chosen else "|".join(chosen)
    return found


def fill_in(text, values, rate_interval="1m"):
    """Puts the variables' values into an expression, a title or a legend. $1 of label_replace stays."""
    values = dict(values, __rate_interval=rate_interval)
    return re.sub(r"\$\{?([A-Za-z_]+)\}?", lambda found: values.get(found.group(1), found.group(0)), text)


def of_dashboards(rate_interval="1m"):
    found = []
    for file, dashboard in dashboards().items():
        values = variables(dashboard)
        for panel in panels(dashboard):
            for target in panel["targets"]:
                found.append(Expression(f"{file}: {panel['title']} {target['refId']}", "panel", fill_in(target["expr"], values, rate_interval)))
        for annotation in dashboard["annotations"]["list"]:
            found.append(Expression(f"{file}: annotation {annotation['name']}", "annotation", fill_in(annotation["expr"], values)))
        for variable in dashboard["templating"]["list"]:
            if query := re.fullmatch(r"label_values\((.+), \w+\)", str(variable.get("query"))):
                found.append(Expression(f"{file}: variable {variable['name']}", "variable", fill_in(query.group(1), values)))
    return found


def rules():
    """(file name, rule) of every recording rule and alert."""
    return [(path.name, rule) for path in sorted(RULES.glob("*.rules.yaml"))
            for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def of_rules():
    return [Expression(f"{file}: {rule.get('record') or rule.get('alert')}", "recording" if "record" in rule else "alert", rule["expr"],
                       rule.get("record") or rule.get("alert")) for file, rule in rules()]


def _values_of(node, key):
    """The texts under `key`, however deep in a YAML document."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == key and isinstance(value, str))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _values_of(child, key)


def of_autoscalers():
    """The `query` of every trigger (KEDA) under deploy/kubernetes."""
    found = []
    for path in sorted(AUTOSCALERS.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            found += [Expression(str(path.relative_to(ROOT)), "autoscaler", query) for query in _values_of(document, "query")
                      if "pyramidkv_" in query]
    return found


def every_expression(rate_interval="1m"):
    return of_dashboards(rate_interval) + of_rules() + of_autoscalers()


def selectors(text):
    """The vector selectors of an expression, as (metric name, selector as text). ValueError where it does not parse."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, node.prettify()))

    promql_parser.walk(promql_parser.parse(text), visit)
    return found


def made_by_the_adapter():
    """Metrics that prometheus-adapter makes out of others, and so no server exports."""
    values = yaml.safe_load((AUTOSCALERS / "components/autoscale-hpa/prometheus-adapter-values.yaml").read_text())
    return {rule["name"]["as"] for rule in values["rules"]["custom"] if not rule["seriesQuery"].startswith(rule["name"]["as"] + "{")}


def metrics_named():
    """Metric -> a place that names it: from expressions, and from any other mention under deploy/kubernetes (HPA metrics, pickers)."""
    found = {}
    for expression in every_expression():
        for name, _ in selectors(expression.text):
            found.setdefault(name, expression.place)
    for path in sorted(AUTOSCALERS.rglob("*.yaml")):
        text = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
        for name in re.findall(r"(?<![\w:./-])pyramidkv_[a-z0-9_]*[a-z0-9]\b(?![:./-])", text):
            found.setdefault(name, str(path.relative_to(ROOT)))
    return {name: place for name, place in found.items() if name not in made_by_the_adapter()}
