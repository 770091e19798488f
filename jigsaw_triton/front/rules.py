"""Rules by which requests reach cells, whichever program balances them. Pure functions without side effects."""

CONNECT_MS = 1_000
"""Milliseconds for a connection to a gateway."""

CHECK_MS, CHECK_TIMEOUT_MS, AGAIN_MS = 400, 700, 100
"""Milliseconds between health checks, for each of them, and until the next one after a failure. A gateway that does not
answer is out of service after two failures: 0.4 + 0.7 + 0.1 + 0.7 s."""

LOST_MS = 2_000
"""Milliseconds after which sent data that a machine's kernel has not acknowledged ends the connection."""

RETRIES = 3
"""Times that a request is sent again, each time because no connection was made."""

SERVICE = "/inference.GRPCInferenceService"
"""Path of the gRPC service of Triton."""

NAMED = ("ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
"""gRPC calls whose message has the name of a model as its first field."""


def backend(protocol: str, graph: str) -> str:
    """Returns the name of the backend of a graph."""
    return f"{protocol}.{graph}"


def ready_path(graph: str | None) -> str:
    """Returns the path that answers whether a gateway has the model of a graph ready; of None, all its models."""
    return f"/v2/models/{graph}/ready" if graph is not None else "/v2/health/ready"
