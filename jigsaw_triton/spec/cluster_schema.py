"""Models of cluster.yaml: its structure, and the type and range of each value.

The docstring of a field is its description in the JSON Schema that editors read.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from jigsaw_triton.spec.entries import ADDRESS_PATTERN, API_VERSION, IMAGE_PATTERN, Entry, Name, long_form

CERTIFICATE_FILES = ("cert.pem", "key.pem", "ca.pem")
"""Files in a folder of certificates: the certificate, its private key, and the authorities to trust."""

AGENT_PORT = 7440
"""Port of agents whose address is not given."""

LIMIT_GPUS = 16_384
LIMIT_NODES = 2048
LIMIT_COST = 1e6


def _edge(value: Any) -> Any:
    """Expands `haproxy` to `{kind: haproxy}`, and turns `none` into null."""
    return None if value == "none" else long_form("kind")(value)


class ForeignEntry(Entry):
    """A MIG instance that somebody else uses."""

    slice: str = Field(examples=["2g"])
    """Kind of the slice, with the suffix `+me` if it has the media engines."""
    start: int = Field(examples=[0])
    """Memory slice at which the instance starts."""


class GpusEntry(Entry):
    """GPUs of one model."""

    model: str = Field(examples=["A100-80GB"])
    """Name of a board of the catalog. The boards of a machine may differ."""
    count: int = Field(default=1, ge=1, le=LIMIT_GPUS, examples=[4])
    """Number of such GPUs."""
    cost: float | None = Field(default=None, gt=0, le=LIMIT_COST, examples=[2.5])
    """Cost of one of these GPUs per hour, in any currency. All GPUs of the cluster have one, or none; those of one
    model have the same."""
    foreign: list[ForeignEntry] = Field(default=[], max_length=16, examples=[[{"slice": "2g", "start": 0}]])
    """MIG instances that others have on each of these GPUs. Plans leave them alone. `deploy` finds existing ones by
    itself."""


class NodeEntry(Entry):
    """A machine of the cluster."""

    name: Name = Field(examples=["a"])
    """Name of the machine, unique in the cluster."""
    agent: str | None = Field(default=None, pattern=ADDRESS_PATTERN, examples=["10.0.0.1:7440"])
    """Host and port of the machine's agent, such as `10.0.0.1:7440` or `[fd00::1]:7440`; required with the engine
    `agents`. With `ray` it is for machines that the controller does not reach by the address that Ray has; the agent
    then listens on all networks."""
    gpus: list[GpusEntry] = Field(min_length=1, max_length=64, examples=[[{"model": "A100-80GB", "count": 4}]])
    """GPUs of the machine, in the order of their indices."""
    topology: dict[Name, Name] = Field(default={}, max_length=16, examples=[{"rack": "r1"}])
    """Labels of the machine, such as `{rack: r1}`, by which `survive` spreads replicas. Labels and their values are
    names."""


class OtlpEntry(Entry):
    """Export of traces by OpenTelemetry's protocol."""

    endpoint: str = Field(min_length=1, max_length=1024, examples=["http://localhost:4318"])
    """Address of a receiver of OTLP, such as an OpenTelemetry Collector: over HTTP (`http://HOST:4318`) or gRPC
    (`grpc://HOST:4317`)."""
    sample: float = Field(default=0.01, ge=0, le=1, examples=[0.01])
    """Share of the requests whose traces are exported. A client that sends `traceparent` decides for its request."""


class StandbyGatewayEntry(Entry):
    """Warm standby of the gateway, on another machine."""

    node: Name = Field(examples=["b"])
    """Node whose agent keeps the second gateway."""
    address: str | None = Field(default=None, examples=["0.0.0.0"])
    """IPv4 address to listen on there; that of the gateway by default. The ports are those of the gateway."""


class GatewayEntry(Entry):
    """Address, ports and limits of the gateway, to which clients connect."""

    http: int = Field(default=8000, ge=1, le=65535)
    """Port for HTTP. The ports must differ."""
    grpc: int = Field(default=8001, ge=1, le=65535)
    """Port for gRPC."""
    metrics: int = Field(default=8002, ge=1, le=65535)
    """Port for metrics."""
    address: str = Field(default="127.0.0.1", examples=["0.0.0.0"])
    """IPv4 address to listen on."""
    image: str | None = Field(default=None, pattern=IMAGE_PATTERN, examples=["nvcr.io/nvidia/tritonserver:25.08-py3"])
    """Container image that the gateway runs from; the machine's tritonserver by default."""
    runtime: Literal["docker", "podman"] | None = None
    """Program that runs the image; `docker` if it is installed, else `podman`, by default."""
    memory_mib: int = Field(default=4096, ge=512, le=2**20, examples=[4096])
    """Heap that the gateway may allocate, in MiB. A request that needs more crashes the gateway, which restarts."""
    processors: int = Field(default=64, ge=1, le=1024, examples=[64])
    """Processors that one gateway may keep busy, by which `plan --cells` sizes cells."""
    workers: int = Field(default=128, ge=1, le=2**16, examples=[128])
    """Workers of a task that one gateway carries, by which `plan --cells` sizes cells."""
    otlp: OtlpEntry | None = Field(default=None, examples=[{"endpoint": "http://localhost:4318", "sample": 0.01}])
    """Export of traces."""
    standby: Annotated[
        StandbyGatewayEntry | None,
        BeforeValidator(long_form("node"), json_schema_input_type=StandbyGatewayEntry | Name | None),
    ] = Field(default=None, examples=["b"])
    """Node that keeps a second gateway ready, with the engine `agents`: its name, or a mapping with an address."""


class EdgeTlsEntry(Entry):
    """Certificates of the edge."""

    cert: str = Field(min_length=1, examples=["/etc/ssl/edge.pem"])
    """PEM file with the certificate for both protocols, followed by intermediate certificates. A relative path starts
    at the folder of the file that names it."""
    key: str = Field(min_length=1, examples=["/etc/ssl/edge.key"])
    """PEM file with the private key of the certificate."""
    client_ca: str | None = Field(default=None, min_length=1, examples=["/etc/ssl/clients.pem"])
    """PEM file with authorities. With it, clients need a certificate from one of them."""


class LimitsEntry(Entry):
    """Limits and timeouts that are enforced towards clients."""

    body_mib: int = Field(default=64, ge=1, le=2047, examples=[64])
    """Largest body over HTTP and largest message of a unary gRPC call, in MiB."""
    connections: int = Field(default=4096, ge=1, le=60_000, examples=[4096])
    """Connections that each protocol accepts at a time; fewer if the limit on open files is low. Further ones wait."""
    client_connections: int | None = Field(default=None, ge=1, examples=[100])
    """Connections from one client address, for each protocol; unlimited by default."""
    client_rps: int | None = Field(default=None, ge=1, examples=[500])
    """Requests per second of one client, by API key or else by address, over both protocols together; unlimited by
    default."""
    header_s: int = Field(default=10, ge=1, le=3600, examples=[10])
    """Seconds that a client may take to send the headers of a request."""
    idle_s: int = Field(default=60, ge=1, le=86_400, examples=[60])
    """Seconds after which an idle connection or a stalled upload is closed."""
    answer_s: int = Field(default=600, ge=1, le=86_400, examples=[600])
    """Seconds to wait for the gateway's answer, and longest pause between messages of a gRPC stream."""


class EdgeLimitsEntry(LimitsEntry):
    """Limits and timeouts that the edge enforces."""

    queue_s: int = Field(default=30, ge=0, le=3600, examples=[30])
    """Seconds that a request waits while the gateway restarts, before it is refused."""
    resend_kib: int = Field(default=16, ge=16, le=1024, examples=[64])
    """Approximate size, in KiB, of the largest request that is sent again if the gateway dies while handling it.
    HAProxy copies that much for each request: 128 costs 40 us of processor time."""


class EdgeEntry(Entry):
    """Proxy in front of the gateway, which takes over the public ports."""

    kind: Literal["haproxy"] = Field(examples=["haproxy"])
    """Program of the edge."""
    tls: EdgeTlsEntry | None = Field(default=None, examples=[{"cert": "edge.pem", "key": "edge.key"}])
    """TLS for both protocols; without it, they are not encrypted."""
    api_keys: str | None = Field(default=None, min_length=1, examples=["keys.txt"])
    """File with one `NAME KEY` on each line. KEY has at least 16 characters, or is `sha256:` and the digest of a key.
    Clients send `Authorization: Bearer KEY` or `X-Api-Key: KEY`, over gRPC as metadata. Health requests need no key."""
    limits: EdgeLimitsEntry = Field(default=EdgeLimitsEntry(), examples=[{"body_mib": 64}])
    """Limits and timeouts."""
    metrics: int = Field(default=8003, ge=1, le=65535, examples=[8003])
    """Port of HAProxy's Prometheus exporter, at `/metrics`. Like the gateway's metrics, it has no TLS and needs no
    key."""
    access_log: Literal["all", "problems", "none"] = "problems"
    """Requests in `edge.log`, with their ids (`jigsaw-triton logs edge`). `problems`: those that failed, were repeated
    or got a status of 500 or above. `all` costs 15 us of processor time for each request."""


class ServerEntry(Entry):
    """Container image for workers, in place of the machine's own tritonserver."""

    image: str = Field(pattern=IMAGE_PATTERN, examples=["nvcr.io/nvidia/tritonserver:24.10-py3"])
    """Container image with tritonserver and its Python backend."""
    runtime: Literal["docker", "podman"] | None = None
    """Program that runs the image; `docker` if it is installed, else `podman`, by default."""


class SurviveEntry(Entry):
    """Loss that a plan must survive."""

    loss_of: Name = Field(examples=["rack"])
    """Loss: `node`, or a label that all nodes have, such as `rack`. The nodes with the same value of the label may be
    lost together."""
    share: float = Field(default=0.5, gt=0, le=1, examples=[0.5])
    """Share of each graph's demand that must still be served within its SLO."""


class RayEntry(Entry):
    """Ray cluster whose raylets are the machines, with the engine `ray`."""

    address: str = Field(default="auto", min_length=1, max_length=1024, examples=["ray://10.0.0.1:10001"])
    """Address of the Ray cluster, as `ray.init` takes it: `ray://HOST:10001`, `HOST:6379`, or `auto` for the cluster
    that the controller's machine belongs to."""
    port: int = Field(default=AGENT_PORT, ge=1, le=65535, examples=[AGENT_PORT])
    """Port on which the agents listen, unless `agent` of the node has another one."""
    state: str | None = Field(default=None, pattern=r"^/", max_length=1024, examples=["/var/lib/jigsaw-triton"])
    """Folder in which each machine keeps its state, an absolute path; by default one in the home folder of the user who
    runs the raylet."""


class ClusterSpec(Entry):
    """Specification of the cluster."""

    driver: Literal["nvml", "emulated"] | None = None
    """Driver that cuts the GPUs into MIG instances; `nvml` by default if a GPU answers, else `emulated`. With the
    engines `agents` and `ray` the default is `emulated` if all boards are `cpu`, else `nvml`."""
    engine: Literal["local", "agents", "ray"] = "local"
    """Engine that starts the workers. `local`: the controller, on its own machine. `agents`: an agent on each machine,
    which you start. `ray`: the same, but Ray starts the agents."""
    certificates: str | None = Field(default=None, min_length=1, examples=["certificates/controller"])
    """Folder with `cert.pem`, `key.pem` and `ca.pem` of the controller, which the engine `agents` needs; relative to
    this file. With the engine `ray`, the folders of the nodes lie beside it; by default the controller makes all
    certificates itself."""
    ray: RayEntry | None = Field(default=None, examples=[{"address": "ray://10.0.0.1:10001"}])
    """Settings of the engine `ray`, and of no other."""
    processes: Literal["streams", "mps"] = "streams"
    """Form of several instances of a model on a slice. `streams`: one server, where they overlap by CUDA streams.
    `mps`: one server each, under MPS."""
    server: ServerEntry | None = Field(default=None, examples=[{"image": "nvcr.io/nvidia/tritonserver:24.10-py3"}])
    """Container image that workers run from; the machine's tritonserver by default."""
    nodes: list[NodeEntry] = Field(
        min_length=1, max_length=LIMIT_NODES, examples=[[{"name": "a", "gpus": [{"model": "A100-80GB", "count": 4}]}]]
    )
    """Machines of the cluster, together with at most 16,384 GPUs."""
    survive: Annotated[
        SurviveEntry | None,
        BeforeValidator(long_form("loss_of"), json_schema_input_type=SurviveEntry | Name | None),
    ] = Field(default=None, examples=["node"])
    """Loss that plans must survive: `node`, a label of all nodes, or a mapping with the share that must be left."""
    gateway: GatewayEntry = Field(default=GatewayEntry(), examples=[{"http": 8000, "grpc": 8001, "metrics": 8002}])
    """Address, ports and limits of the gateway."""
    edge: Annotated[
        EdgeEntry | None,
        BeforeValidator(_edge, json_schema_input_type=EdgeEntry | Literal["haproxy", "none"] | None),
    ] = Field(default=None, examples=["haproxy"])
    """Proxy in front of the gateway: `none`, `haproxy`, or a mapping with its settings; none by default."""


class ClusterDocument(Entry):
    """cluster.yaml: the machines to plan for and run on."""

    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    """Version of this format."""
    kind: Literal["Cluster"] = Field(examples=["Cluster"])
    """Kind of the document."""
    spec: ClusterSpec
    """Specification of the cluster."""
