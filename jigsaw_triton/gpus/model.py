"""Domain types for GPUs: boards, MIG profiles, placements, layouts, MIG instances and clusters."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

SLICES = ("1g", "1gx2", "2g", "3g", "4g", "7g")
"""Kinds of MIG instance, smallest first. `1gx2` is 1g with double memory."""

Processes = Literal["streams", "mps"]

MEDIA = "+me"
"""Suffix of a slice kind that marks its media-exclusive form, as in `1g+me`."""


@dataclass(frozen=True, slots=True)
class MigProfile:
    """A GPU instance profile of one board.

    Attributes:
        slice: Slice kind, one of `SLICES`.
        name: Name that nvidia-smi prints on this board. It differs between drivers, so it is not an identity.
        profile_id: Profile id, as nvmlDeviceCreateGpuInstance takes it.
        nvml_enum: Number in NVML's enumeration of profiles, as nvmlDeviceGetGpuInstanceProfileInfo takes it.
        compute_slices: Compute slices used by an instance.
        memory_slices: Memory slices used by an instance: the length of its interval.
        sm: Streaming multiprocessors of an instance; None if not published.
        memory_mib: Memory of an instance; None if not published.
        max_instances: Largest number of instances per GPU.
        starts: Memory slices at which an instance can start.
        media_exclusive: True for the `+me` form, of which a GPU holds at most one instance.
    """

    slice: str
    name: str
    profile_id: int
    nvml_enum: int
    compute_slices: int
    memory_slices: int
    sm: int | None
    memory_mib: int | None
    max_instances: int
    starts: tuple[int, ...]
    media_exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """A GPU model.

    Attributes:
        name: Name in cluster.yaml and in the `gpu` column of profiles.csv, such as `A100-80GB`.
        arch: Architecture: `ampere`, `hopper`, `blackwell`, or `cpu` for the board that represents this machine's
            processor.
        nvml_names: Names under which NVML reports the board.
        compute_slices: Compute slices of a whole GPU.
        memory_slices: Memory slices of a whole GPU.
        mode_change: Effect of a change of MIG mode: after a reset (`gpu-reset`) or at once (`immediate`).
        profiles: Plain profiles by slice kind.
        media_profiles: Media-exclusive (`+me`) profiles by slice kind.
        slice_cost: Cost of a compute slice in the whole units of a planning problem (`planner.domain.costs`); 1 if
            each compute slice counts alike.
    """

    name: str
    arch: str
    nvml_names: tuple[str, ...]
    compute_slices: int
    memory_slices: int
    mode_change: Literal["gpu-reset", "immediate"]
    profiles: Mapping[str, MigProfile] = field(hash=False)
    media_profiles: Mapping[str, MigProfile] = field(default_factory=dict, hash=False)
    slice_cost: int = 1

    @property
    def whole(self) -> "Placement":
        """Placement that covers the whole GPU."""
        return Placement(0, f"{self.compute_slices}g")

    def profile(self, slice_: str) -> MigProfile | None:
        """Returns the profile of a slice kind, plain or media-exclusive (`1g+me`); None if the board has none."""
        if slice_.endswith(MEDIA):
            return self.media_profiles.get(slice_.removesuffix(MEDIA))
        return self.profiles.get(slice_)


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """A slice at a start on a GPU. `slice` is one of `SLICES`, with the suffix `+me` for the media-exclusive form."""

    start: int
    slice: str

    def __str__(self) -> str:
        return f"{self.slice}@{self.start}"


Layout = tuple[Placement, ...]
"""The placements of one GPU, sorted by start."""


@dataclass(frozen=True, slots=True, order=True)
class GpuId:
    """Identity of a GPU: its node and its index on that node."""

    node: str
    index: int

    def __str__(self) -> str:
        return f"{self.node}/{self.index}"


@dataclass(frozen=True, slots=True)
class Occupancy:
    """State of a GPU that limits which layouts are possible on it.

    Attributes:
        foreign: Placements of MIG instances that belong to others.
        whole: True if the GPU can only be used as one whole slice.
    """

    foreign: Layout = ()
    whole: bool = False

    def kinds(self, board: Board, kinds: Collection[str]) -> frozenset[str]:
        """Returns those of the given slice kinds that the GPU can have."""
        return frozenset(kinds) & {board.whole.slice} if self.whole else frozenset(kinds)


FREE = Occupancy()
"""Occupancy of a GPU that can be partitioned and holds no instances of others."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of the cluster.

    Attributes:
        id: Node and index of the GPU.
        board: Model of the GPU.
        foreign: Placements of MIG instances that belong to others and are left alone.
        uncut: Reason why the GPU can only be used as one whole slice, with the remedy; empty if it can be partitioned.
        cost: Cost of the GPU per hour, in any currency; None if it is unknown.
    """

    id: GpuId
    board: Board
    foreign: Layout = ()
    uncut: str = ""
    cost: float | None = None

    @property
    def occupancy(self) -> "Occupancy":
        """State that limits which layouts are possible on the GPU."""
        return Occupancy(self.foreign, whole=bool(self.uncut))

    @property
    def compute_slices(self) -> int:
        """Compute slices that are not taken by others' instances."""
        profiles = (self.board.profile(placement.slice) for placement in self.foreign)
        return self.board.compute_slices - sum(profile.compute_slices for profile in profiles if profile is not None)


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
        workers: Workers of one task. A gateway's processor time for a request grows with them: by 24% at 700 workers
            (`python -m benchmarks.dataplane scale`), so by about 5% here.
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


NODE = "node"
"""Failure domain of a single node; all others are labels of nodes."""


@dataclass(frozen=True, slots=True)
class Survive:
    """Loss that a plan must survive.

    Attributes:
        loss_of: `node`, or the label of nodes whose values are failure domains, such as `rack`.
        share: Share of each graph's demand that the loss of any one of these domains must leave, above 0.
    """

    loss_of: str = NODE
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The Ray cluster that starts the agents.

    Attributes:
        address: Address of the cluster, as `ray.init` takes it.
        port: Port of agents whose address is not given.
        state: Folder of the state of each machine; empty for that of the user there.
    """

    address: str = "auto"
    port: int = 7440
    state: str = ""


@dataclass(frozen=True, slots=True)
class Agents:
    """The agents of the nodes, which start the workers there.

    Attributes:
        addresses: Name of each node, and the host and port of its agent; empty if Ray has the address.
        certificates: Folder with the controller's certificates, as an absolute path; empty if it makes them itself.
        ray: Ray cluster that starts the agents; None if somebody else does.
    """

    addresses: tuple[tuple[str, str], ...]
    certificates: str
    ray: RayCluster | None = None

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return "agents" if self.ray is None else "ray"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines that a plan is made for.

    Attributes:
        gpus: GPUs sorted by id.
        driver: MIG driver.
        processes: Implementation of a segment's instances: Triton instances of one server, which overlap by CUDA
            streams (`streams`), or one server per instance under MPS (`mps`).
        gateway: Address and ports of the gateway.
        image: Image that workers run from; None for the machine's own tritonserver.
        edge: Proxy in front of the gateway; None if clients talk to the gateway directly.
        gateway_image: Image that the gateway runs from; None for the machine's own tritonserver.
        gateway_memory_mib: Largest heap of the gateway.
        agents: Agents that start the workers; None if the controller does, on its own machine.
        gateway_limits: Limits of the gateway of a cell.
        processors: Processors that slices of the board `cpu` share on each node; None if there is no such board, or if
            their number is not known.
        topology: Node -> label -> value, such as that of its rack; nodes without labels may be absent.
        survive: Loss that a plan must survive; None for none.
        gateway_node: Node that the gateway runs on; empty if it is unknown.
        otlp: Export of traces; None for none.
        standby_gateway: Standby of the gateway; None for none.
    """

    gpus: tuple[Gpu, ...]
    driver: Literal["nvml", "emulated"] = "emulated"
    processes: Processes = "streams"
    gateway: GatewayPorts = GatewayPorts()
    image: ServerImage | None = None
    edge: Edge | None = None
    gateway_image: ServerImage | None = None
    gateway_memory_mib: int = 4096
    agents: Agents | None = None
    gateway_limits: GatewayLimits = GatewayLimits()
    processors: float | None = None
    topology: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    survive: Survive | None = None
    gateway_node: str = ""
    otlp: Otlp | None = None
    standby_gateway: StandbyGateway | None = None

    @property
    def compute_slices(self) -> int:
        """Compute slices of all GPUs that are not taken by others' instances."""
        return sum(g.compute_slices for g in self.gpus)


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A MIG instance as a driver reports it.

    Attributes:
        gpu: GPU that holds the instance.
        placement: Placement on that GPU.
        uuid: `MIG-...` for a MIG instance; `GPU-...` for a GPU without MIG, which counts as one instance; `GPU-.../3`
            for a half-made instance.
    """

    gpu: GpuId
    placement: Placement
    uuid: str

    @property
    def half_made(self) -> bool:
        """True if the GPU instance lacks the compute instance through which processes use it.

        An interrupted creation or destruction leaves such an instance behind.
        """
        return "/" in self.uuid


class CreationStage(IntEnum):
    """Progress of the creation of a MIG instance, which bounds what an interrupted creation can have left behind.

    NOTED: The driver was not called yet.
    PART: The GPU instance was requested, but not its compute instance. A complete instance at the placement belongs to
        somebody else.
    WHOLE: The compute instance was requested, too.
    """

    NOTED = 0
    PART = 1
    WHOLE = 2

    def may_have_made(self, instance: MigInstance) -> bool:
        """Returns True if the creation may have made this instance, which is at the creation's placement."""
        return self is CreationStage.WHOLE or (self is CreationStage.PART and instance.half_made)


StageCallback = Callable[[CreationStage], None]
"""Callback that receives each stage of a creation before the stage is entered."""


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """Utilisation of a MIG instance, or of a GPU without MIG.

    Attributes:
        memory_mib: Memory used by all processes.
        memory_total_mib: Memory of the instance.
        busy: Utilisation of its multiprocessors since the last reading, from 0 to 1; None if the driver does not
            report it.
    """

    memory_mib: int
    memory_total_mib: int
    busy: float | None
