#!/usr/bin/env python3
"""Writes components/monitoring/prometheus_rule.yaml from deploy/prometheus/*.rules.yaml, or with --check says whether it is up to date.

The rule files are the source: promtool checks and tests them. The Prometheus operator wants the same groups inside a resource of its
own, which kustomize cannot make from a file. --runbook-base is the address under which your people read this tree: it goes before the
path in every runbook_url, which stays a path without it. Needs PyYAML:

    scripts/with_tools deploy/kubernetes/make_prometheus_rule.py [--check] [--runbook-base https://HOST/pyramidkv/blob/main/]
"""
import argparse
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
RULES = HERE.parent / "prometheus"
TARGET = HERE / "components" / "monitoring" / "prometheus_rule.yaml"
HEAD = "# Made from deploy/prometheus/*.rules.yaml by deploy/kubernetes/make_prometheus_rule.py: change those and run it.\n"


class Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, no aliases: what a person would have written."""

    def ignore_aliases(self, data):
        return True


def show_text(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, show_text)


def rule_groups():
    files = sorted(RULES.glob("*.rules.yaml"))
    if not files:
        sys.exit(f"{RULES}: no *.rules.yaml there")
    return [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]


def resource_text(runbook_base=""):
    groups = rule_groups()
    for annotations in (rule["annotations"] for group in groups for rule in group["rules"] if "annotations" in rule):
        annotations["runbook_url"] = runbook_base + annotations["runbook_url"]
    resource = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
                "metadata": {"name": "pyramidkv"}, "spec": {"groups": groups}}
    return HEAD + yaml.dump(resource, Dumper=Dumper, sort_keys=False, width=140, allow_unicode=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--runbook-base", default="", metavar="URL")
    options = parser.parse_args()
    text = resource_text(options.runbook_base)
    if options.check:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit(f"{TARGET.relative_to(HERE.parent.parent)} is out of date: run deploy/kubernetes/make_prometheus_rule.py")
    else:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
