"""Runs every expression of the dashboards and rules against a Prometheus that scrapes a server under load, and asks for data; then looks
whether the server exports every metric that dashboards, rules and autoscalers name. Exit code 1 where something is missing.

    verify.py --prometheus http://127.0.0.1:9090 --metrics http://127.0.0.1:9464/metrics [--seconds 120] [--step 5] [--all]
"""
import argparse
import dataclasses
import re
import sys
import urllib.request

import expressions
from prometheus_api import Prometheus

# What these say is never true of one snapshot, not even for a moment.
NEVER_TRUE = {"PyramidKVCacheLeak", "PyramidKVAccountingDrift"}


def check_panel(prometheus, expression):
    series = prometheus.range(expression.text)
    return f"{len(series)} series", None if series else "no data"


def check_autoscaler(prometheus, expression):
    """Where servers are scraped one by one there are no namespaces to choose by."""
    text = re.sub(r'namespace="[^"]*",? ?', "", expression.text)
    return check_panel(prometheus, dataclasses.replace(expression, text=text))


def check_inputs(prometheus, expression):
    """An alert that stays silent gives no data; what it is made of has to."""
    prometheus.range(expression.text)
    inputs = dict.fromkeys(text for name, text in expressions.selectors(expression.text) if name != "ALERTS")
    empty = [text for text in inputs if not prometheus.range(text)]
    return "inputs there", f"no data for {', '.join(empty)}" if empty else None


def check_rule(prometheus, expression):
    loaded = {rule["name"]: rule for rule in prometheus.rules()}.get(expression.name)
    if loaded is None:
        return "", "not loaded by this Prometheus"
    if loaded["health"] == "err":
        return "", loaded.get("lastError", "fails")
    if expression.kind == "recording":
        series = prometheus.range(expression.name)
        return f"{len(series)} series", None if series else "recorded nothing"
    found, wrong = check_inputs(prometheus, expression)
    if loaded["state"] == "firing":
        wrong = wrong or "fires"
    if expression.name in NEVER_TRUE and prometheus.range(expression.text):
        wrong = wrong or "was true for a moment"
    return f"{found}, {loaded['state']}", wrong


CHECKS = {"panel": check_panel, "variable": check_panel, "recording": check_rule, "alert": check_rule, "annotation": check_inputs,
          "autoscaler": check_autoscaler}


def check_expressions(prometheus, rate_interval, show_all):
    wrong = []
    for expression in expressions.every_expression(rate_interval):
        try:
            found, problem = CHECKS[expression.kind](prometheus, expression)
        except ValueError as error:
            found, problem = "", f"refused by Prometheus: {error}"
        if problem:
            wrong.append(f"{expression.place}: {problem}")
        if problem or show_all:
            print(f"{'MISSING' if problem else 'ok':8}{expression.kind:11}{expression.place:86}{problem or found}")
    return wrong


def exported(metrics_url):
    with urllib.request.urlopen(metrics_url, timeout=30) as answer:
        text = answer.read().decode()
    return set(re.findall(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)[ {]", text, re.MULTILINE))


def check_metrics(names):
    """What dashboards, rules and autoscalers name and the server does not export."""
    recorded = {rule["record"] for _, rule in expressions.rules() if "record" in rule}
    return [f"{name}, named by {place}, is not exported" for name, place in expressions.metrics_named().items()
            if name not in names | recorded | expressions.OWN_SERIES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--metrics", required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--step", type=float, default=5)
    parser.add_argument("--rate-interval", default="30s", help="takes the place of $__rate_interval; at least four scrapes long")
    parser.add_argument("--all", action="store_true", help="print what is well, too")
    options = parser.parse_args()
    wrong = check_expressions(Prometheus(options.prometheus, options.seconds, options.step), options.rate_interval, options.all)
    wrong += (missing := check_metrics(exported(options.metrics)))
    for line in missing:
        print(line)
    print(f"{len(expressions.every_expression())} expressions and {len(expressions.metrics_named())} metrics checked, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
