"""Objects for clients. Custom resources are compared with the fields that their documentation requires."""

from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from tests.export.kubernetes.samples import EMULATED, FULL, PLAIN, of_kind

NAME = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"}
HOSTNAME = {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def listed(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": 16}


def resource(version: str, kind: str, spec: Any) -> dict[str, Any]:
    labels = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
    metadata = closed({"name": NAME, "namespace": NAME, "labels": labels})
    return closed({"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
ROUTE = closed(
    {
        "parentRefs": listed(closed({"name": NAME}, {"namespace": NAME})),
        "rules": listed(closed({"backendRefs": listed(closed({"name": NAME, "port": PORT}))})),
    },
    {"hostnames": listed(HOSTNAME)},
)
"""Part of the specification of HTTPRoute and GRPCRoute (gateway-api.sigs.k8s.io, version v1) that is used."""

MONITOR = closed(
    {
        "selector": closed({"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}}),
        "endpoints": listed(closed({"port": {"type": "string"}, "path": {"type": "string", "pattern": "^/"}})),
    }
)
"""Part of the specification of ServiceMonitor (prometheus-operator.dev, version v1) that is used."""

SCHEMAS = {
    "HTTPRoute": resource("gateway.networking.k8s.io/v1", "HTTPRoute", ROUTE),
    "GRPCRoute": resource("gateway.networking.k8s.io/v1", "GRPCRoute", ROUTE),
    "ServiceMonitor": resource("monitoring.coreos.com/v1", "ServiceMonitor", MONITOR),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_custom_resources_have_the_documented_structure(kind: str) -> None:
    (made,) = of_kind(FULL, kind).values()
    jsonschema.validate(made, SCHEMAS[kind])


@pytest.mark.parametrize(("kind", "port"), [("HTTPRoute", 9000), ("GRPCRoute", 9001)])
def test_routes_lead_from_their_gateway_to_the_port_of_their_protocol(kind: str, port: int) -> None:
    ports = replace(FULL.ports, http=9000, grpc=9001)
    (route,) = of_kind(replace(FULL, ports=ports), kind).values()
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "infra"}]
    assert route["spec"]["hostnames"] == ["a.example", "*.b.example"]
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "gateway", "port": port}]


def test_without_a_gateway_or_prometheus_nothing_needs_their_resources() -> None:
    for kind in SCHEMAS:
        assert not of_kind(PLAIN, kind)


def test_a_gateway_of_the_same_namespace_needs_none() -> None:
    (route,) = of_kind(EMULATED, "HTTPRoute").values()
    assert route["spec"]["parentRefs"] == [{"name": "public"}]
    assert "hostnames" not in route["spec"]


def test_the_monitor_reads_all_metrics_of_the_gateways_service() -> None:
    (monitor,) = of_kind(FULL, "ServiceMonitor").values()
    service = of_kind(FULL, "Service")["gateway"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["metrics", "edge-metrics"]
    others = [made for name, made in of_kind(FULL, "Service").items() if name != "gateway"]
    assert not any(
        monitor["spec"]["selector"]["matchLabels"].items() <= made["metadata"]["labels"].items() for made in others
    )


def test_only_the_controller_reaches_agents_and_anybody_the_gateway() -> None:
    policies = {name: made["spec"] for name, made in of_kind(PLAIN, "NetworkPolicy").items()}
    assert all(policy["policyTypes"] == ["Ingress"] for policy in policies.values())
    (clients,) = policies["gateway-from-clients"]["ingress"]
    assert "from" not in clients
    assert [port["port"] for port in clients["ports"]] == ["http", "grpc"]
    (metrics,) = policies["metrics-from-cluster"]["ingress"]
    assert metrics["from"] == [{"namespaceSelector": {}}]
