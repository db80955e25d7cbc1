"""The fields of the custom resources under deploy/kubernetes, from the published definitions of the versions named here.

Only those that are used or near: a field that is not here fails the test, and is looked up and added by hand. A dict lists what an
object may have, a list is a list of such objects, a type is a value of that type, FREE is anything (names are the user's).
"""
FREE = object()
NAME = {"name": str}
METADATA = {"name": str, "namespace": str, "labels": FREE, "annotations": FREE}

RULE = {"alert": str, "record": str, "expr": str, "for": str, "keep_firing_for": str, "labels": FREE, "annotations": FREE}
SCALING = {"stabilizationWindowSeconds": int, "selectPolicy": str, "tolerance": str, "policies": [{"type": str, "value": int, "periodSeconds": int}]}

SPECS = {
    # Prometheus operator 0.8x
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": {"matchLabels": FREE}, "namespaceSelector": {"any": bool, "matchNames": [str]}, "sampleLimit": int, "jobLabel": str,
        "podMetricsEndpoints": [{"port": str, "path": str, "interval": str, "scrapeTimeout": str, "scheme": str, "honorLabels": bool}]},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "groups": [{"name": str, "interval": str, "limit": int, "labels": FREE, "rules": [RULE]}]},
    # cert-manager 1.1x
    ("cert-manager.io/v1", "Certificate"): {
        "secretName": str, "issuerRef": {"group": str, "kind": str, "name": str}, "dnsNames": [str], "usages": [str], "duration": str,
        "renewBefore": str, "privateKey": {"algorithm": str, "size": int, "rotationPolicy": str, "encoding": str}},
    # KEDA 2.17
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "scaleTargetRef": {"apiVersion": str, "kind": str, "name": str}, "minReplicaCount": int, "maxReplicaCount": int, "pollingInterval": int,
        "cooldownPeriod": int, "fallback": {"failureThreshold": int, "replicas": int, "behavior": str},
        "advanced": {"horizontalPodAutoscalerConfig": {"name": str, "behavior": {"scaleUp": SCALING, "scaleDown": SCALING}}},
        "triggers": [{"type": str, "name": str, "metricType": str, "metadata": {
            "serverAddress": str, "query": str, "threshold": str, "activationThreshold": str, "ignoreNullValues": str}}]},
    # Gateway API inference extension 1.5.0
    ("inference.networking.k8s.io/v1", "InferencePool"): {
        "selector": {"matchLabels": FREE}, "targetPorts": [{"number": int}], "appProtocol": str,
        "endpointPickerRef": {"group": str, "kind": str, "name": str, "port": {"number": int}, "failureMode": str}},
    # Gateway API 1.2
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): {
        "parentRefs": [{"group": str, "kind": str, "name": str, "namespace": str, "sectionName": str, "port": int}], "hostnames": [str],
        "rules": [{"name": str, "matches": [{"path": {"type": str, "value": str}, "method": str}], "timeouts": {"request": str, "backendRequest": str},
                   "backendRefs": [{"group": str, "kind": str, "name": str, "namespace": str, "port": int, "weight": int}]}]},
}

# The configuration that the endpoint picker 1.5.0 reads from a file; it is no object of the cluster.
PICKER_CONFIG = {
    "apiVersion": str, "kind": str, "featureGates": [str], "plugins": [{"name": str, "type": str, "parameters": FREE}],
    "schedulingProfiles": [{"name": str, "plugins": [{"pluginRef": str, "weight": int}]}], "parser": {"pluginRef": str}}

# Flags of the endpoint picker 1.5.0 that name what it scrapes and whom it serves.
PICKER_FLAGS = {
    "pool-name", "pool-namespace", "pool-group", "config-file", "model-server-metrics-port", "model-server-metrics-path",
    "total-queued-requests-metric", "total-running-requests-metric", "kv-cache-usage-percentage-metric", "lora-info-metric",
    "cache-info-metric", "metrics-endpoint-auth", "tracing"}


def strange_fields(value, fields, where=""):
    """Where a value has what `fields` does not: a list of paths."""
    if fields is FREE:
        return []
    if isinstance(fields, dict):
        if not isinstance(value, dict):
            return [f"{where}: not a mapping"]
        return [path for key, item in value.items()
                for path in (strange_fields(item, fields[key], f"{where}.{key}") if key in fields else [f"{where}.{key}: no such field"])]
    if isinstance(fields, list):
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [path for i, item in enumerate(value) for path in strange_fields(item, fields[0], f"{where}[{i}]")]
    return [] if type(value) is fields else [f"{where}: {type(value).__name__} where {fields.__name__} belongs"]


def strange_object(thing):
    """The same for a whole custom resource."""
    return strange_fields(thing, {"apiVersion": str, "kind": str, "metadata": METADATA, "spec": SPECS[thing["apiVersion"], thing["kind"]]})
