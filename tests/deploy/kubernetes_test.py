"""deploy/kubernetes against Kubernetes' own schemas, and against what this server needs of a pod. Nothing here needs a cluster."""
import json
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

import kubernetes_support as k8s
from kubernetes_custom_fields import PICKER_CONFIG, PICKER_FLAGS, SPECS, strange_fields, strange_object
from kubernetes_support import DEPLOY, SOURCE, all_variants, combination, find, number

VERSIONS = ("1.32", "1.37")
FLUSH_SECONDS = 5  # kFlushTime of server/app.cpp: after the drain, for answers on their way
REST_MIB, STEP_MIB, AUXILIARY_SHARE = 240, 64, 0.23  # docs/scaling.md, Memory of a pod
ARRIVING_BODIES = 4  # config/server.yaml, http.max_body_bytes
JSON_MIB, JSON_BODY_MIB, BYTES_A_TEXT_BYTE, BYTES_A_TOKEN = 92, 4, 47, 4  # docs/scaling.md: what a body of so many MiB and a text need
CONNECTION_BYTES = 41 * 2**10  # docs/scaling.md
DEFAULTS = k8s.flat(yaml.safe_load((SOURCE / "config/server.yaml").read_text(encoding="utf-8")))
PICKED_BY = {"pyramidkv_requests_waiting", "pyramidkv_requests_running", "pyramidkv_kv_cache_usage_ratio"}
SCALED_BY = {"pyramidkv_requests_waiting", "pyramidkv_kv_cache_reserved_bytes", "pyramidkv_kv_cache_pool_bytes"}


def validate(text, version):
    """What kubernetes-validate finds, and the kinds it has no schema of."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(["kubernetes-validate", "--strict", "-k", version, file.name], capture_output=True, text=True)
    output = done.stdout + done.stderr
    unknown = set(re.findall(r"Couldn't find schema for kind (\w+)", output))
    return (output if done.returncode else ""), unknown


class SchemaTest(unittest.TestCase):
    def test_core_objects_are_valid(self):
        ours = {kind for _, kind in SPECS}
        for name, folder in all_variants():
            for version in VERSIONS:
                problems, unknown = validate(k8s.built(folder), version)
                self.assertEqual(problems, "", f"{name} for {version}")
                self.assertLessEqual(unknown, ours, f"{name} for {version}")

    def test_the_validator_sees_a_misspelt_field(self):
        self.assertNotEqual(validate(k8s.built(DEPLOY / "base").replace("minReadySeconds", "minReadySecond"), VERSIONS[0])[0], "")

    def test_components_go_together(self):
        for components in (("cpu", "monitoring", "autoscale-keda", "tls", "model-claim"), ("cpu", "autoscale-hpa", "inference-gateway", "model-claim")):
            for version in VERSIONS:
                self.assertEqual(validate(combination(*components), version)[0], "", components)

    def test_custom_resources_have_published_fields_only(self):
        seen = set()
        for text in (*(k8s.built(folder) for _, folder in all_variants()), combination("autoscale-keda")):
            for thing in yaml.safe_load_all(text):
                if (kind := (thing["apiVersion"], thing["kind"])) in SPECS:
                    self.assertEqual(strange_object(thing), [], kind)
                    seen.add(kind)
        self.assertEqual(seen, set(SPECS))

    def test_custom_resources_are_in_files_of_their_own(self):
        kinds = {kind for _, kind in SPECS}
        for file in DEPLOY.rglob("*.yaml"):
            documents = [d for d in yaml.safe_load_all(file.read_text(encoding="utf-8")) if isinstance(d, dict)]
            if any(d.get("kind") in kinds for d in documents):
                self.assertEqual(len(documents), 1, file)

    def test_yamllint(self):
        rules = "{extends: relaxed, rules: {line-length: {max: 160}, colons: disable, indentation: disable}}"
        done = subprocess.run(["yamllint", "--strict", "-d", rules, str(DEPLOY)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)


class PodTest(unittest.TestCase):
    """What every variant of the pod has to have."""

    def each(self):
        for name, folder in all_variants():
            with self.subTest(name):
                yield k8s.objects(folder)

    def test_grace_period_covers_sleep_and_drain(self):
        for things in self.each():
            pod, config = k8s.server_pod(things), k8s.server_config(things)
            sleep = k8s.server_container(things)["lifecycle"]["preStop"]["sleep"]["seconds"]
            self.assertGreater(sleep, 0)
            self.assertGreater(pod["terminationGracePeriodSeconds"], sleep + config["server.drain_seconds"] + FLUSH_SECONDS)

    def test_probes_ask_for_the_right_health(self):
        for things in self.each():
            server, tls = k8s.server_container(things), k8s.server_config(things)["server.listen"].startswith("127.")
            for probe, service, path in (("startupProbe", "live", "/healthz"), ("livenessProbe", "live", "/healthz"),
                                         ("readinessProbe", "pyramidkv.v1.GenerationService", "/readyz")):
                expected = {"httpGet": {"path": path, "port": "metrics"}} if tls else {"grpc": {"port": 50051, "service": service}}
                self.assertEqual({k: v for k, v in server[probe].items() if k in ("grpc", "httpGet", "exec", "tcpSocket")}, expected)

    def test_nothing_is_privileged(self):
        for things in self.each():
            for name, pod in k8s.pods(things):
                self.assertTrue(pod["securityContext"]["runAsNonRoot"], name)
                self.assertGreater(pod["securityContext"]["runAsUser"], 0, name)
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, name)
                self.assertIs(pod["enableServiceLinks"], False, name)
                for container in k8s.containers(pod):
                    context = container["securityContext"]
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, container["name"])
                    self.assertIs(context["allowPrivilegeEscalation"], False, container["name"])
                    self.assertIs(context["readOnlyRootFilesystem"], True, container["name"])
            pod = k8s.server_pod(things)
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(find(things, "ServiceAccount", "pyramidkv-server")["automountServiceAccountToken"], False)
            self.assertEqual(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsUser"])
            self.assertIn("/tmp", [m["mountPath"] for m in k8s.server_container(things)["volumeMounts"]])

    def test_images_are_pinned(self):
        for things in self.each():
            for _, pod in k8s.pods(things):
                for container in k8s.containers(pod):
                    self.assertRegex(container["image"], r"(:v?\d|:distroless-v\d)[\w.-]*$|@sha256:")
                    self.assertNotIn("latest", container["image"])

    def test_memory_limit_holds_what_the_server_may_use(self):
        for things in self.each():
            resources, config = k8s.server_container(things)["resources"], k8s.server_config(things)
            value = lambda key: number(config.get(key, DEFAULTS[key]))
            needed = (REST_MIB + STEP_MIB) * 2**20 + value("cache.pool_bytes") * (1 + AUXILIARY_SHARE) + value("runtime.workspace_bytes")
            self.assertLessEqual(value("http.max_body_bytes"), JSON_BODY_MIB * 2**20)
            prepared = max(JSON_MIB * 2**20, BYTES_A_TEXT_BYTE * value("server.max_text_bytes"))
            answer = max(value("server.max_message_bytes"), value("server.max_unread_bytes"))
            clients = (value("server.max_buffer_bytes") + value("server.max_waiting_bytes") + BYTES_A_TOKEN * value("scheduler.max_waiting_tokens")
                       + answer * value("scheduler.max_running") + ARRIVING_BODIES * value("http.max_body_bytes")
                       + prepared * value("server.preparation_threads") + CONNECTION_BYTES * value("server.max_connections"))
            self.assertLessEqual(needed + clients, number(resources["limits"]["memory"]))
            self.assertEqual(resources["limits"]["memory"], resources["requests"]["memory"])

    def test_threads_fit_the_cpu_request(self):
        for things in self.each():
            threads = int(k8s.server_config(things)["runtime.threads"])
            self.assertTrue(0 < threads <= number(k8s.server_container(things)["resources"]["requests"]["cpu"]))

    def test_only_configuration_keys_that_exist_are_set(self):
        helped = subprocess.run([k8s.BIN / "pyramidkv-server", "--help"], capture_output=True, text=True, check=True).stdout
        keys = set(re.findall(r"^ +([a-z]+\.[a-z_]+) = ", helped, re.MULTILINE))
        self.assertIn("cache.pool_bytes", keys)
        for things in self.each():
            self.assertLessEqual(set(k8s.server_config(things)), keys)
            command = k8s.server_container(things)["command"]
            self.assertLessEqual({word for word in command if word.startswith("--")}, set(re.findall(r"--[a-z-]+", helped)))

    def test_cuda_asks_for_a_gpu(self):
        server = k8s.server_container(k8s.overlay("cuda"))
        self.assertEqual(server["resources"]["limits"]["nvidia.com/gpu"], "1")

    def test_cpu_is_guaranteed_whole_cores(self):
        for container in k8s.containers(k8s.server_pod(k8s.overlay("cpu"))):
            self.assertEqual(container["resources"]["requests"], container["resources"]["limits"])
            self.assertEqual(number(container["resources"]["limits"]["cpu"]) % 1, 0)


def envoys_upstreams(things):
    config = yaml.safe_load(find(things, "ConfigMap", "pyramidkv-envoy")["data"]["envoy.yaml"])
    for cluster in config["static_resources"]["clusters"]:
        for endpoint in (e for group in cluster["load_assignment"]["endpoints"] for e in group["lb_endpoints"]):
            address = endpoint["endpoint"]["address"]["socket_address"]
            yield f"{address['address']}:{address['port_value']}"


class AroundThePodTest(unittest.TestCase):
    def test_the_service_is_headless_and_meets_the_port(self):
        for name, folder in all_variants():
            things = k8s.objects(folder)
            service = find(things, "Service", "pyramidkv")["spec"]
            self.assertEqual(service["clusterIP"], "None", name)
            self.assertEqual(service["selector"], find(things, "Deployment", "pyramidkv-server")["spec"]["selector"]["matchLabels"])
            declared = {p["name"]: p["containerPort"] for c in k8s.containers(k8s.server_pod(things)) for p in c.get("ports", [])}
            self.assertEqual([declared[p["targetPort"]] for p in service["ports"]], [p["port"] for p in service["ports"]])

    def test_clients_reach_grpc_and_openais_api(self):
        for name, folder in all_variants():
            things = k8s.objects(folder)
            config, server = k8s.server_config(things), k8s.server_container(things)
            service = {p["name"]: p["port"] for p in find(things, "Service", "pyramidkv")["spec"]["ports"]}
            admitted = {p["port"] for p in find(things, "NetworkPolicy", "pyramidkv-server")["spec"]["ingress"][0]["ports"]}
            self.assertEqual(admitted, set(service), name)
            if "grpcs" in service:  # by way of Envoy
                self.assertEqual({config["server.listen"], config["http.listen"]}, set(envoys_upstreams(things)), name)
                continue
            declared = {p["name"]: p["containerPort"] for p in server["ports"]}
            for port, key in (("grpc", "server.listen"), ("http", "http.listen"), ("metrics", "metrics.listen")):
                self.assertEqual(config[key], f"0.0.0.0:{declared[port]}", name)
            self.assertEqual(set(service), {"grpc", "http"}, name)

    def test_the_network_policy_names_ports_and_callers(self):
        for name, folder in all_variants():
            things = k8s.objects(folder)
            policy = find(things, "NetworkPolicy", "pyramidkv-server")["spec"]
            self.assertEqual(sorted(policy["policyTypes"]), ["Egress", "Ingress"], name)
            declared = {p["name"] for c in k8s.containers(k8s.server_pod(things)) for p in c.get("ports", [])}
            for rule in policy["ingress"]:
                self.assertTrue(rule["from"] and rule["ports"], name)
                self.assertLessEqual({p["port"] for p in rule["ports"]}, declared, name)
            self.assertEqual({p["port"] for rule in policy["egress"] for p in rule["ports"]}, {53, 443}, name)
            names = next(rule for rule in policy["egress"] if {"port": 53, "protocol": "UDP"} in rule["ports"])
            self.assertIn({"ipBlock": {"cidr": "169.254.20.10/32"}}, names["to"], name)  # NodeLocal DNSCache
        # With TLS the plain port is open to nobody.
        tls = find(k8s.overlay("tls"), "NetworkPolicy")["spec"]
        self.assertTrue({"grpc", "http"}.isdisjoint(p["port"] for rule in tls["ingress"] for p in rule["ports"]))

    def test_the_readmes_patch_opens_another_port(self):
        text = (DEPLOY / "README.md").read_text(encoding="utf-8")
        patches = yaml.safe_load(re.search(r"(?m)^    patches:\n(?:     .*\n)+", text)[0])["patches"]
        policy = find(list(yaml.safe_load_all(combination(patches=patches))), "NetworkPolicy")["spec"]
        self.assertIn({"ports": [{"port": 9000}]}, policy["egress"])

    def test_disruptions_are_budgeted(self):
        budget = find(k8s.base(), "PodDisruptionBudget")["spec"]
        self.assertEqual(budget["maxUnavailable"], 1)
        self.assertEqual(budget["selector"], find(k8s.base(), "Deployment")["spec"]["selector"])

    def test_the_model_is_the_default_one(self):
        name = re.search(r"^default_model=(\S+)$", (SOURCE / "scripts" / "common.sh").read_text(encoding="utf-8"), re.MULTILINE)[1]
        script = (SOURCE / "scripts" / "models" / f"{name}.sh").read_text(encoding="utf-8")
        default = dict(re.findall(r"^(\w+)=\(?(\S+?)\)?$", script, re.MULTILINE))
        model = find(k8s.base(), "ConfigMap", "pyramidkv-model")["data"]
        self.assertEqual(model["MODEL_SHA256"], default["model_sha256"])
        self.assertEqual(model["MODEL_FILE"], default["model_file"])
        self.assertEqual(model["MODEL_MEMBER"], default["model_members"])
        self.assertEqual(k8s.server_config(k8s.base())["model.path"], f"/models/{model['MODEL_FILE']}")

    def test_the_model_comes_from_the_users_url_or_claim(self):
        things = list(yaml.safe_load_all(combination("model-claim", url="https://models.example/other.whl")))
        model = find(things, "ConfigMap", "pyramidkv-model")
        self.assertEqual(model["data"]["MODEL_URL"], "https://models.example/other.whl")
        self.assertEqual(model["data"].keys(), find(k8s.base(), "ConfigMap", "pyramidkv-model")["data"].keys())
        self.assertEqual(k8s.server_pod(things)["initContainers"][0]["envFrom"], [{"configMapRef": {"name": model["metadata"]["name"]}}])
        volume = next(v for v in k8s.server_pod(things)["volumes"] if v["name"] == "model")
        claim = find(things, "PersistentVolumeClaim")["metadata"]["name"]
        self.assertEqual(volume, {"name": "model", "persistentVolumeClaim": {"claimName": claim}})

    def test_autoscalers_own_the_number_of_replicas(self):
        for component in ("autoscale-hpa", "autoscale-keda"):
            self.assertNotIn("replicas", find(list(yaml.safe_load_all(combination(component))), "Deployment")["spec"])

    def test_autoscalers_and_picker_name_our_gauges(self):
        text = "\n".join(f.read_text(encoding="utf-8") for f in DEPLOY.rglob("components/autoscale-*/*.yaml"))
        picker = (DEPLOY / "components/inference-gateway/endpoint_picker.yaml").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall(r"\bpyramidkv_\w+", text)), SCALED_BY | {"pyramidkv_kv_cache_reserved_ratio"})  # the adapter's
        self.assertEqual(set(re.findall(r"\bpyramidkv_\w+", picker)), PICKED_BY)
        catalogue = (SOURCE / "docs" / "metrics.md").read_text(encoding="utf-8")
        for gauge in PICKED_BY | SCALED_BY:
            self.assertRegex(catalogue, rf"\b(pyramidkv_)?{gauge.removeprefix('pyramidkv_')}\b")

    def test_the_adapter_serves_what_the_autoscaler_asks_for(self):
        adapter = yaml.safe_load((DEPLOY / "components/autoscale-hpa/prometheus-adapter-values.yaml").read_text(encoding="utf-8"))
        served = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
        scaler = find(k8s.overlay("autoscale"), "HorizontalPodAutoscaler")["spec"]
        self.assertEqual({m["pods"]["metric"]["name"] for m in scaler["metrics"]}, served)

    def test_the_endpoint_picker_knows_its_settings(self):
        things = k8s.overlay("inference-gateway")
        config = yaml.safe_load(find(things, "ConfigMap", "pyramidkv-endpoint-picker")["data"]["picker.yaml"])
        self.assertEqual(strange_fields(config, PICKER_CONFIG), [])
        plugins = {p["type"] for p in config["plugins"]}
        self.assertLessEqual({p["pluginRef"] for profile in config["schedulingProfiles"] for p in profile["plugins"]}, plugins)
        args = find(things, "Deployment", "pyramidkv-endpoint-picker")["spec"]["template"]["spec"]["containers"][0]["args"]
        self.assertLessEqual({a.removeprefix("--").split("=")[0] for a in args}, PICKER_FLAGS)


class ClientConfigTest(unittest.TestCase):
    """deploy/client/service_config.json against the protos and the pods that it is made for."""

    def setUp(self):
        self.config = json.loads((SOURCE / "deploy/client/service_config.json").read_text(encoding="utf-8"))

    def test_methods_exist(self):
        methods = {}
        for proto in (SOURCE / "proto/pyramidkv/v1").glob("*.proto"):
            for service, body in re.findall(r"^service (\w+) \{(.*?)^\}", proto.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
                methods[f"pyramidkv.v1.{service}"] = set(re.findall(r"^  rpc (\w+)", body, re.MULTILINE))
        for name in (n for m in self.config["methodConfig"] for n in m["name"]):
            self.assertIn(name["service"], methods)
            if "method" in name:
                self.assertIn(name["method"], methods[name["service"]])

    def test_health_is_that_of_the_readiness_probe(self):
        probe = k8s.server_container(k8s.base())["readinessProbe"]["grpc"]["service"]
        self.assertEqual(self.config["healthCheckConfig"]["serviceName"], probe)
        self.assertEqual(self.config["loadBalancingConfig"], [{"round_robin": {}}])

    def test_retries_are_bounded_and_only_of_what_was_refused(self):
        self.assertGreater(self.config["retryThrottling"]["maxTokens"], 0)
        for policy in (m["retryPolicy"] for m in self.config["methodConfig"]):
            self.assertTrue(1 < policy["maxAttempts"] <= 5)  # libraries cap it at 5
            self.assertLessEqual(set(policy["retryableStatusCodes"]), {"UNAVAILABLE", "RESOURCE_EXHAUSTED"})


class MonitoringTest(unittest.TestCase):
    def test_rules_are_those_of_deploy_prometheus(self):
        subprocess.run(["python", str(DEPLOY / "make_prometheus_rule.py"), "--check"], check=True)
        files = sorted((SOURCE / "deploy" / "prometheus").glob("*.rules.yaml"))
        groups = [g for f in files for g in yaml.safe_load(f.read_text(encoding="utf-8"))["groups"]]
        self.assertEqual(find(k8s.overlay("monitoring"), "PrometheusRule")["spec"]["groups"], groups)

    def test_runbooks_are_links_where_their_base_is_given(self):
        sys.path.insert(0, str(DEPLOY))
        import make_prometheus_rule
        made = yaml.safe_load(make_prometheus_rule.resource_text("https://git.example/pyramidkv/blob/main/"))
        urls = [rule["annotations"]["runbook_url"] for group in made["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
        self.assertIn("https://git.example/pyramidkv/blob/main/docs/runbook.md#pyramidkvfailed", urls)
        self.assertEqual([url for url in urls if not url.startswith("https://git.example/pyramidkv/blob/main/docs/runbook.md#")], [])

    def test_every_dashboard_is_in_the_map(self):
        held = find(k8s.overlay("monitoring"), "ConfigMap", "pyramidkv-dashboards")
        self.assertEqual(held["metadata"]["labels"]["grafana_dashboard"], "1")
        files = {f.name: f.read_text(encoding="utf-8") for f in (SOURCE / "deploy/grafana/dashboards").glob("*.json")}
        self.assertEqual(held["data"], files)
        for text in files.values():
            json.loads(text)
        self.assertLess(sum(map(len, files.values())), 1 << 20, "a ConfigMap holds a megabyte")

    def test_the_scraped_port_exists(self):
        things = k8s.overlay("monitoring")
        ports = {p["name"] for p in k8s.server_container(things)["ports"]}
        for endpoint in find(things, "PodMonitor")["spec"]["podMetricsEndpoints"]:
            self.assertIn(endpoint["port"], ports)


if __name__ == "__main__":
    unittest.main()
