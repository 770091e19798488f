"""The namespace, the service accounts, and what lets clients, controller and agents reach each other."""

from jigsaw_triton.export.kubernetes.settings import (
    AGENT,
    CONTROLLER,
    GATEWAY,
    NAME_LABEL,
    RAY,
    RAY_LABELS,
    Object,
    Settings,
    labels,
    metadata,
)

GATEWAY_API = "gateway.networking.k8s.io/v1"
MONITORING = "monitoring.coreos.com/v1"


def namespace(settings: Settings) -> list[Object]:
    """Returns the namespace, whose pods may be privileged if MIG is real, and the service accounts without rights."""
    level = "privileged" if settings.driver == "nvml" else "restricted"
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": settings.namespace,
                "labels": {**NAME_LABEL, "pod-security.kubernetes.io/enforce": level},
            },
        },
        *(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": metadata(settings, name, name),
                "automountServiceAccountToken": False,
            }
            for name in (CONTROLLER, AGENT)
        ),
    ]


def network(settings: Settings) -> list[Object]:
    """Returns the Service of the gateway and the NetworkPolicies."""
    ports = settings.ports
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(settings, GATEWAY, GATEWAY),
            "spec": {
                "selector": labels(CONTROLLER),
                "ports": [
                    {"name": "http", "port": ports.http, "targetPort": "http", "appProtocol": "http"},
                    {"name": "grpc", "port": ports.grpc, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
                    {"name": "metrics", "port": ports.metrics, "targetPort": "metrics"},
                    *_edge_port(settings),
                ],
            },
        },
        _policy(settings, "gateway-from-clients", CONTROLLER, [{"ports": [{"port": "http"}, {"port": "grpc"}]}]),
        _policy(settings, "metrics-from-cluster", CONTROLLER, [_metrics_rule(settings)]),
        _policy(
            settings,
            "agents-from-controller",
            AGENT,
            [{"from": [_pods(labels(CONTROLLER))], "ports": [{"port": AGENT}]}],
        ),
        *_ray_policies(settings),
    ]


def _ray_policies(settings: Settings) -> list[Object]:
    """Returns the policies by which the pods of Ray reach each other, and the controller reaches the head."""
    if not settings.ray:
        return []
    client = [{"from": [_pods(labels(CONTROLLER))], "ports": [{"port": "client"}]}]
    among = _policy(settings, "ray-from-ray", RAY, [{"from": [_pods(RAY_LABELS)]}])
    among["spec"]["podSelector"] = {"matchLabels": RAY_LABELS}
    return [_policy(settings, "ray-from-controller", RAY, client), among]


def _pods(chosen: dict[str, str]) -> Object:
    return {"podSelector": {"matchLabels": chosen}}


def routes(settings: Settings) -> list[Object]:
    """Returns the routes of the Gateway API; none if there is no Gateway to attach them to."""
    if settings.parent is None:
        return []
    parent_namespace, parent = settings.parent
    reference = {"name": parent, **({"namespace": parent_namespace} if parent_namespace else {})}
    names = {"hostnames": list(settings.hostnames)} if settings.hostnames else {}
    return [
        {
            "apiVersion": GATEWAY_API,
            "kind": kind,
            "metadata": metadata(settings, GATEWAY, GATEWAY),
            "spec": {
                "parentRefs": [reference],
                **names,
                "rules": [{"backendRefs": [{"name": GATEWAY, "port": port}]}],
            },
        }
        for kind, port in (("HTTPRoute", settings.ports.http), ("GRPCRoute", settings.ports.grpc))
    ]


def monitor(settings: Settings) -> list[Object]:
    """Returns the ServiceMonitor of the Prometheus Operator, if it is wanted."""
    if not settings.monitor:
        return []
    names = ["metrics", *(["edge-metrics"] if settings.ports.edge_metrics is not None else [])]
    return [
        {
            "apiVersion": MONITORING,
            "kind": "ServiceMonitor",
            "metadata": metadata(settings, GATEWAY, GATEWAY),
            "spec": {
                "selector": {"matchLabels": labels(GATEWAY)},
                "endpoints": [{"port": name, "path": "/metrics"} for name in names],
            },
        }
    ]


def _edge_port(settings: Settings) -> list[Object]:
    port = settings.ports.edge_metrics
    return [{"name": "edge-metrics", "port": port, "targetPort": "edge-metrics"}] if port is not None else []


def _metrics_rule(settings: Settings) -> Object:
    edge = [{"port": "edge-metrics"}] if settings.ports.edge_metrics is not None else []
    return {"from": [{"namespaceSelector": {}}], "ports": [{"port": "metrics"}, *edge]}


def _policy(settings: Settings, name: str, component: str, rules: list[Object]) -> Object:
    """Returns a policy by which pods of a component take these connections and no others."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(settings, name, component),
        "spec": {"podSelector": {"matchLabels": labels(component)}, "policyTypes": ["Ingress"], "ingress": rules},
    }
