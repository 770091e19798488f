"""Clusters of an Envoy: one for each graph and protocol, with the gateways of its cells. Pure functions.

An endpoint is healthy if its gateway has the graph's model ready, which is checked over HTTP for both protocols.
"""

from collections.abc import Iterator, Mapping

from jigsaw_triton.front.envoy.objects import Object, certificate, named, seconds, typed
from jigsaw_triton.front.model import Front, FrontCell, GatewayAddress
from jigsaw_triton.front.rules import (
    AGAIN_MS,
    CHECK_MS,
    CHECK_TIMEOUT_MS,
    CONNECT_MS,
    LOST_MS,
    backend,
    ready_path,
)
from jigsaw_triton.front.shares import weights
from jigsaw_triton.servers.edge.config import PROTOCOLS

STATISTICS = ".statistics"
"""Suffix of the clusters that send requests for statistics to one gateway."""

_NO_LIMIT = 2**31 - 1
"""Number of connections and requests that no cell ever gets. Envoy refuses what exceeds 1,024 by default."""

_ANY_IS_ENOUGH = 1_000_000
"""Percentage of its capacity that Envoy expects of a cell: a single one carries all, before standby gateways do."""

_IPPROTO_TCP, _TCP_USER_TIMEOUT = 6, 18


def clusters(graph: str | None, front: Front) -> Iterator[Object]:
    """Yields the clusters of a graph; of None those of requests that name no graph, or may name any."""
    cells = front.cells_of(graph) if graph is not None else front.complete_cells
    check = ready_path(graph)
    by_cell = weights({cell.name: cell.shares[graph] for cell in cells}) if graph is not None else {}
    for protocol in PROTOCOLS:
        name = backend(protocol, graph) if graph is not None else protocol
        yield _cluster(name, protocol, check, cells, by_cell, front)
        # Statistics are counters of one gateway, so that all requests for them go to the same one.
        yield {**_cluster(name + STATISTICS, protocol, check, cells, {}, front), "lb_policy": "MAGLEV"}


def _cluster(
    name: str, protocol: str, check: str, cells: tuple[FrontCell, ...], by_cell: Mapping[str, int], front: Front
) -> Object:
    """Returns a cluster.

    Args:
        name: Name of the cluster.
        protocol: Protocol of its endpoints.
        check: Path of the health check.
        cells: Cells whose gateways are endpoints.
        by_cell: Weight of each cell; 1 by default.
        front: Settings of the front.
    """
    first = [_endpoint(protocol, cell.gateway, front, by_cell.get(cell.name, 1)) for cell in cells]
    last = [_endpoint(protocol, cell.standby, front, by_cell.get(cell.name, 1)) for cell in cells if cell.standby]
    spoken: Object = {"http2_protocol_options" if protocol == "grpc" else "http_protocol_options": {}}
    options = typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config=spoken)
    return {
        "name": name,
        # Names of hosts are looked up every five seconds.
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": seconds(CONNECT_MS),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 1, "keepalive_interval": 1, "keepalive_probes": 2}
        },
        "upstream_bind_config": {
            "socket_options": [
                {
                    "description": "end connections whose data is not acknowledged",
                    "level": _IPPROTO_TCP,
                    "name": _TCP_USER_TIMEOUT,
                    "int_value": LOST_MS,
                }
            ]
        },
        "circuit_breakers": {
            "thresholds": [
                dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _NO_LIMIT)
            ]
        },
        # Without a healthy cell, requests are refused; none is sent to a cell that is not healthy.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [_health_check(protocol, check, front)],
        "outlier_detection": _outliers(),
        **_gateway_tls(protocol, front),
        "load_assignment": {
            "cluster_name": name,
            "policy": {"overprovisioning_factor": _ANY_IS_ENOUGH},
            "endpoints": [
                {"priority": 0, "lb_endpoints": first},
                *([{"priority": 1, "lb_endpoints": last}] if last else []),
            ],
        },
    }


def _health_check(protocol: str, path: str, front: Front) -> Object:
    found: Object = {
        "timeout": seconds(CHECK_TIMEOUT_MS),
        "interval": seconds(CHECK_MS),
        "no_traffic_interval": seconds(CHECK_MS),
        "unhealthy_edge_interval": seconds(AGAIN_MS),
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"host": "front", "path": path},
    }
    if protocol == "grpc" and front.gateway_tls is not None:
        found["tls_options"] = {"alpn_protocols": ["http/1.1"]}
    return found


def _outliers() -> Object:
    """Returns rules by which a cell is out of service as soon as a connection to it fails, until a check succeeds.

    Answers with errors do not count: a gateway refuses what would be late, and the others may be as busy.
    """
    off = ("consecutive_5xx", "success_rate", "local_origin_success_rate", "consecutive_gateway_failure")
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 1,
        "enforcing_consecutive_local_origin_failure": 100,
        **{f"enforcing_{name}": 0 for name in off},
        "interval": "1s",
        "base_ejection_time": "1s",
        "max_ejection_time": "1s",
        "max_ejection_percent": 100,
    }


def _endpoint(protocol: str, gateway: GatewayAddress, front: Front, weight: int) -> Object:
    port = int(gateway.of(protocol).rpartition(":")[2])
    host = gateway.host(protocol)
    endpoint: Object = {"address": {"socket_address": {"address": host, "port_value": port}}}
    if protocol == "grpc":
        endpoint["health_check_config"] = {"port_value": int(gateway.http.rpartition(":")[2])}
    found: Object = {"endpoint": endpoint, "load_balancing_weight": weight}
    if front.gateway_tls is not None:
        name = {"server_name": front.gateway_tls.name_of(host)}
        found["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": name}}
    return found


def _gateway_tls(protocol: str, front: Front) -> Object:
    """Returns the TLS settings for each name that the certificate of a gateway carries."""
    tls = front.gateway_tls
    if tls is None:
        return {}
    matches = []
    for name in sorted({tls.name_of(host) for host in front.hosts}):
        common: Object = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2" if protocol == "grpc" else "http/1.1"],
            "validation_context": {
                "trusted_ca": {"filename": tls.ca},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
            },
        }
        if tls.cert is not None and tls.key is not None:
            common["tls_certificates"] = [certificate(tls.cert, tls.key)]
        context = typed("transport_sockets.tls.v3.UpstreamTlsContext", sni=name, common_tls_context=common)
        matches.append({"name": name, "match": {"server_name": name}, "transport_socket": named("tls", context)})
    return {"transport_socket_matches": matches}
