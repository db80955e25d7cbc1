"""What the Kubernetes tests beside it share: an overlay built by kubectl, its objects by kind, and quantities as numbers."""
import functools
import os
import pathlib
import re
import subprocess
import tempfile

import yaml

SOURCE = pathlib.Path(os.environ["PKV_SOURCE_DIR"])
BIN = pathlib.Path(os.environ["PKV_BIN"])
DEPLOY = SOURCE / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in DEPLOY.glob("overlays/*/kustomization.yaml"))


@functools.cache
def built(folder):
    """The text that `kubectl kustomize` makes of a folder."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    return done.stdout


def objects(folder):
    return list(yaml.safe_load_all(built(folder)))


def overlay(name):
    return objects(DEPLOY / "overlays" / name)


def base():
    return objects(DEPLOY / "base")


def all_variants():
    """The base and the overlays; components go through test_components_go_together."""
    yield "base", DEPLOY / "base"
    for name in OVERLAYS:
        yield f"overlays/{name}", DEPLOY / "overlays" / name


def combination(*components, url="https://models.example/model.whl", patches=()):
    """A user's own kustomization, as the README beside deploy/kubernetes has it: the base and several components."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=SOURCE / "build"))
    here = lambda *parts: os.path.relpath(DEPLOY.joinpath(*parts), folder)
    text = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [here("base")],
            "components": [here("components", name) for name in components], "namespace": "pyramidkv",
            "configMapGenerator": [{"name": "pyramidkv-model", "behavior": "merge", "literals": [f"MODEL_URL={url}"]}],
            "patches": list(patches)}
    try:
        (folder / "kustomization.yaml").write_text(yaml.dump(text))
        return built(folder)
    finally:
        (folder / "kustomization.yaml").unlink()
        folder.rmdir()


def find(things, kind, name=None):
    """The one object of a kind, or the one whose name (without a generated suffix) is `name`."""
    found = [t for t in things if t["kind"] == kind and name in (None, t["metadata"]["name"], t["metadata"]["name"].rsplit("-", 1)[0])]
    assert len(found) == 1, f"{len(found)} of kind {kind} called {name}"
    return found[0]


def pods(things):
    """The pod templates of all Deployments: their name and spec."""
    return [(t["metadata"]["name"], t["spec"]["template"]["spec"]) for t in things if t["kind"] == "Deployment"]


def server_pod(things):
    return find(things, "Deployment", "pyramidkv-server")["spec"]["template"]["spec"]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def server_container(things):
    return next(c for c in server_pod(things)["containers"] if c["name"] == "server")


def number(quantity):
    """A quantity of Kubernetes' (500m, 2Gi) or of the configuration's (1GiB) as a number."""
    found = re.fullmatch(r"([\d.]+)(m|[KMGT]i?B?)?", str(quantity))
    value, unit = float(found[1]), found[2] or ""
    if unit == "m":
        return value / 1000
    factor = 1024 if "i" in unit else 1000
    return value * factor ** (" KMGT".index(unit[0]) if unit else 0)


def flat(sections):
    """The keys of a configuration as section.key."""
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def server_config(things):
    """The configuration a server container starts with: the file's keys as section.key, then the variables over them."""
    text = yaml.safe_load(find(things, "ConfigMap", "pyramidkv-config")["data"]["server.yaml"])
    values = flat(text)
    for variable in server_container(things).get("env", []):
        values[config_key(variable["name"])] = variable["value"]
    return values


def config_key(variable):
    section, key = variable.removeprefix("PYRAMIDKV_").split("__")
    return f"{section.lower()}.{key.lower()}"
