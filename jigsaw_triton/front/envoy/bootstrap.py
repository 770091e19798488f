"""The whole configuration of an Envoy: listeners, routes and clusters. Pure functions without side effects."""

import re
from collections.abc import Iterator
from typing import Any

from jigsaw_triton.front.envoy.clusters import STATISTICS, clusters
from jigsaw_triton.front.envoy.objects import Object, certificate, named, typed
from jigsaw_triton.front.envoy.scripts import GRAPH, grpc_script, http_script
from jigsaw_triton.front.model import Front
from jigsaw_triton.front.rules import RETRIES, SERVICE, backend
from jigsaw_triton.servers.edge.config import PROTOCOLS
from jigsaw_triton.spec.yaml_writer import Block

FILE = "envoy.yaml"

_MESSAGE_HEAD_BYTES = 64 * 1024
"""Bytes beside the largest message that Envoy buffers of a gRPC request."""


def problems(front: Front) -> Iterator[tuple[str, str]]:
    """Yields what prevents an export, each as a message and a remedy."""
    if front.edge.api_keys is not None:
        yield (
            "Envoy would accept requests without API keys",
            "remove api_keys, and let clients show certificates (tls.client_ca)",
        )
    for cell in front.cells:
        for gateway in filter(None, (cell.gateway, cell.standby)):
            if gateway.host("http") != gateway.host("grpc"):
                message = f"a gateway of cell {cell.name} has different hosts for http and grpc"
                yield message, "write the same host for both, since Envoy checks both at one"


def left_out(front: Front) -> Iterator[str]:
    """Yields what Envoy does not do as the front does, of what the file asks for."""
    limits = front.edge.limits
    for name, value in (("client_rps", limits.client_rps), ("client_connections", limits.client_connections)):
        if value is not None:
            yield f"Envoy does not enforce limits.{name}"
    if any(cell.standby is not None for cell in front.cells):
        yield "Envoy sends requests to standby gateways only while a graph has no other gateway"


def bootstrap(front: Front) -> Object:
    """Returns the configuration of an Envoy without a control plane.

    Args:
        front: Settings of the front, for which `problems` yields nothing.
    """
    admin = {"pipe": {"path": f"@jigsaw-triton-front-{front.ports.http}"}}
    # The administration interface can end Envoy, so it has no port, and others get its metrics alone.
    metrics = {"match": {"path": "/metrics"}, "route": {"cluster": "admin", "prefix_rewrite": "/stats/prometheus"}}
    manager = _manager("metrics", [metrics], [])
    return {
        "admin": {"address": admin},
        "static_resources": {
            "listeners": [
                *(_listener(protocol, front) for protocol in PROTOCOLS),
                _listening(front, "metrics", front.ports.metrics, {"filters": [named("manager", manager)]}),
            ],
            "clusters": [
                *(cluster for graph in (None, *front.graphs) for cluster in clusters(graph, front)),
                {
                    "name": "admin",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "admin",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": admin}}]}],
                    },
                },
            ],
        },
    }


def _listening(front: Front, name: str, port: int, chain: Object) -> Object:
    address = {"socket_address": {"address": front.ports.address, "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def _listener(protocol: str, front: Front) -> Object:
    limits, tls = front.edge.limits, front.edge.tls
    limited = typed(
        "filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix=protocol,
        max_connections=limits.connections,
    )
    routes = _http_routes(front) if protocol == "http" else _grpc_routes(front)
    text = http_script(limits.body_mib) if protocol == "http" else grpc_script()
    lua = typed("filters.http.lua.v3.Lua", default_source_code={"inline_string": Block(text)})
    manager = _manager(protocol, routes, [named("lua", lua)], **_client_side(protocol, front))
    chain: Object = {"filters": [named("connections", limited), named("manager", manager)]}
    if tls is not None:
        common: Object = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificates": [certificate(tls.cert, tls.key)],
            "alpn_protocols": ["h2"] if protocol == "grpc" else ["h2", "http/1.1"],
        }
        if tls.client_ca is not None:
            common["validation_context"] = {"trusted_ca": {"filename": tls.client_ca}}
        required = {"require_client_certificate": True} if tls.client_ca is not None else {}
        context = typed("transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=common, **required)
        chain["transport_socket"] = named("tls", context)
    return _listening(front, protocol, front.ports.http if protocol == "http" else front.ports.grpc, chain)


def _manager(name: str, routes: list[Object], filters: list[Object], **more: Any) -> Object:
    """Returns the part of a listener that reads requests and chooses their cluster."""
    router = typed("filters.http.router.v3.Router", suppress_envoy_headers=True)
    return typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={
            "name": name,
            "request_headers_to_remove": ["x-forwarded-for", GRAPH],
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes, "retry_policy": _retries()}],
        },
        http_filters=[*filters, named("router", router)],
        **more,
    )


def _retries() -> Object:
    """Returns rules by which a request is sent to another cell only if no connection was made.

    So none is executed twice.
    """
    other = named("previous_hosts", typed("retry.host.previous_hosts.v3.PreviousHostsPredicate"))
    return {
        "retry_on": "connect-failure",
        "num_retries": RETRIES,
        "retry_host_predicate": [other],
        "host_selection_retry_max_attempts": RETRIES,
    }


def _client_side(protocol: str, front: Front) -> Object:
    """Returns the settings of a listener towards clients."""
    limits = front.edge.limits
    found: Object = {
        "codec_type": "HTTP2" if protocol == "grpc" else "AUTO",
        "server_header_transformation": "PASS_THROUGH",
        # Clients must not be able to forge the address that the gateway sees.
        "use_remote_address": True,
        "skip_xff_append": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_headers_timeout": f"{limits.header_s}s",
        "stream_idle_timeout": f"{limits.answer_s}s",
        "common_http_protocol_options": {"idle_timeout": f"{limits.idle_s}s"},
    }
    if protocol == "http":
        found["local_reply_config"] = {"body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}
    else:
        # A message is read as a whole, since its first field has the name of the model. The window is what is read.
        window = {"initial_stream_window_size": limits.body_mib * 2**20 + _MESSAGE_HEAD_BYTES}
        found["http2_protocol_options"] = window
    if front.edge.access_log != "none":
        log = named("stdout", typed("access_loggers.stream.v3.StdoutAccessLog"))
        found["access_log"] = [{**log, **(_problems_only() if front.edge.access_log == "problems" else {})}]
    return found


def _problems_only() -> Object:
    """Returns the filter of a log that lists requests with a status of 500 or more, and those that Envoy ended."""
    failed = {"op": "GE", "value": {"default_value": 500, "runtime_key": "access_log.least_status"}}
    either = [{"status_code_filter": {"comparison": failed}}, {"response_flag_filter": {}}]
    return {"filter": {"or_filter": {"filters": either}}}


def _http_routes(front: Front) -> list[Object]:
    found = []
    for graph in front.graphs:
        path = f"/v2/models/{graph}"
        statistics = {"safe_regex": {"regex": f"{re.escape(path)}(/versions/[^/]+)?/stats"}}
        found.append(_route(front, statistics, backend("http", graph) + STATISTICS))
        found.append(_route(front, {"path_separated_prefix": path}, backend("http", graph)))
    found.append(_route(front, {"safe_regex": {"regex": ".*/stats"}}, "http" + STATISTICS))
    return [*found, _route(front, {"prefix": "/"}, "http")]


def _grpc_routes(front: Front) -> list[Object]:
    found, statistics = [], {"path": f"{SERVICE}/ModelStatistics"}
    for graph in front.graphs:
        own = {"headers": [{"name": GRAPH, "string_match": {"exact": graph}}]}
        found.append(_route(front, {**statistics, **own}, backend("grpc", graph) + STATISTICS))
        found.append(_route(front, {"prefix": "/", **own}, backend("grpc", graph)))
    found.append(_route(front, statistics, "grpc" + STATISTICS))
    found.append(_route(front, {"path": f"{SERVICE}/ModelStreamInfer"}, "grpc", stream=True))
    return [*found, _route(front, {"prefix": "/"}, "grpc")]


def _route(front: Front, match: Object, cluster: str, *, stream: bool = False) -> Object:
    answer_s = f"{front.edge.limits.answer_s}s"
    route: Object = {
        "cluster": cluster,
        # A stream may be open for any time, and only a pause in it is limited.
        **({"timeout": "0s", "idle_timeout": answer_s} if stream else {"timeout": answer_s}),
    }
    if cluster.endswith(STATISTICS):
        route["hash_policy"] = [{"header": {"header_name": ":path"}}]
    return {"match": match, "route": route}
