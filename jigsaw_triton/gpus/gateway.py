"""Settings of the gateway and of the programs around it: its standby, its edge, its traces and its image."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    """Address and ports on which the gateway listens."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    address: str = "127.0.0.1"


DEFAULT_SAMPLE = 0.01
"""Share of the requests whose traces are exported by default."""


@dataclass(frozen=True, slots=True)
class Otlp:
    """Export of traces by OpenTelemetry's protocol.

    Attributes:
        endpoint: Address of the receiver: `http://localhost:4318` for OTLP over HTTP, `grpc://localhost:4317` for OTLP
            over gRPC, and `https` or `grpcs` for either behind TLS.
        sample: Share of the requests to export, of those whose client does not decide it.
    """

    endpoint: str
    sample: float = DEFAULT_SAMPLE

    @property
    def url(self) -> str:
        """Address to which traces are sent."""
        path = "/v1/traces"
        base = self.endpoint.rstrip("/")
        if base.startswith("grpc"):
            return base
        return base if base.endswith(path) else base + path


@dataclass(frozen=True, slots=True)
class StandbyGateway:
    """The standby of the gateway on another machine, which listens on the gateway's ports.

    Attributes:
        node: Name of the node whose agent keeps it.
        address: IPv4 address that it listens on.
    """

    node: str
    address: str


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Limits of one gateway, by which cells are sized.

    Attributes:
        processors: Processors of its host that it may keep busy. A convention: about half of those of a server with
            eight GPUs.
        workers: Workers of one task. A convention: about as many as 18 GPUs with seven workers each. `python -m
            benchmarks.dataplane scale` measures a gateway with 700 workers of a task.
    """

    processors: int = 64
    workers: int = 128


@dataclass(frozen=True, slots=True)
class EdgeTls:
    """Certificates of the edge, as absolute paths of PEM files.

    Attributes:
        cert: Server certificate with its intermediates.
        key: Private key of the server certificate.
        client_ca: Certificate authorities of clients; None if clients need no certificate.
    """

    cert: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Limits and timeouts that the edge enforces.

    Attributes:
        body_mib: Largest HTTP body and largest unary gRPC message, in MiB.
        connections: Largest number of concurrent connections per protocol.
        client_connections: Largest number of connections per client address and protocol; None for no limit.
        client_rps: Requests per second of one client; None for no limit.
        queue_s: Seconds that a request waits for a restarting gateway.
        resend_kib: Size in KiB of the largest request that is retried after the gateway died while handling it.
        header_s: Seconds that a client may take to send headers.
        idle_s: Seconds after which idle connections and stalled uploads are closed.
        answer_s: Seconds to wait for the gateway's answer.
    """

    body_mib: int = 64
    connections: int = 4096
    client_connections: int | None = None
    client_rps: int | None = None
    queue_s: int = 30
    resend_kib: int = 16
    header_s: int = 10
    idle_s: int = 60
    answer_s: int = 600


@dataclass(frozen=True, slots=True)
class Edge:
    """The proxy in front of the gateway.

    Attributes:
        kind: Proxy program.
        tls: Certificates; None for plain text.
        api_keys: Absolute path of the file with API keys; None if no key is required.
        limits: Limits and timeouts.
        metrics: Port of the proxy's Prometheus exporter.
        access_log: Kind of requests that are logged.
    """

    kind: Literal["haproxy"] = "haproxy"
    tls: EdgeTls | None = None
    api_keys: str | None = None
    limits: EdgeLimits = EdgeLimits()
    metrics: int = 8003
    access_log: Literal["all", "problems", "none"] = "problems"


@dataclass(frozen=True, slots=True)
class ServerImage:
    """A container image with a tritonserver.

    Attributes:
        name: Name of the image with its tag.
        runtime: Container runtime; None for whichever is installed.
    """

    name: str
    runtime: Literal["docker", "podman"] | None = None

    def __str__(self) -> str:
        return self.name if self.runtime is None else f"{self.name} by {self.runtime}"
