"""GPUs and how they are cut: boards, MIG profiles, placements, layouts, clusters."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

SLICES = ("1g", "1gx2", "2g", "3g", "4g", "7g")
"""Kinds of MIG instance, smallest first. `1gx2` is 1g with double memory."""

Processes = Literal["streams", "mps"]

MEDIA = "+me"
"""What a placement's slice ends with where it is the media-exclusive form: `1g+me`."""


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One kind of MIG instance on one model of board.

    Attributes:
        slice: Kind, one of `SLICES`.
        name: As nvidia-smi prints it for this board; differs by driver, never an identity.
        profile_id: What nvmlDeviceCreateGpuInstance takes.
        nvml_enum: What nvmlDeviceGetGpuInstanceProfileInfo takes.
        compute_slices: Of the board's compute slices.
        memory_slices: Length of the interval that a placement takes.
        sm: Streaming multiprocessors; None where not published.
        memory_mib: None where not published.
        max_instances: Per GPU.
        starts: Where an instance may start.
        media_exclusive: The `+me` form: at most one such instance a GPU.
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
    """A model of GPU.

    Attributes:
        name: As in cluster.yaml and the `gpu` column of profiles.csv: `A100-80GB`.
        arch: `ampere`, `hopper`, `blackwell`, or `cpu` for the board that stands for this machine's processor.
        nvml_names: Names under which NVML reports it.
        compute_slices: Of a whole GPU.
        memory_slices: Of a whole GPU.
        mode_change: What a change of MIG mode needs: `gpu-reset` or `immediate`.
        profiles: Slice kind -> profile; `+me` profiles are in `media_profiles`.
        media_profiles: Slice kind -> media-exclusive profile.
    """

    name: str
    arch: str
    nvml_names: tuple[str, ...]
    compute_slices: int
    memory_slices: int
    mode_change: Literal["gpu-reset", "immediate"]
    profiles: Mapping[str, MigProfile] = field(hash=False)
    media_profiles: Mapping[str, MigProfile] = field(default_factory=dict, hash=False)

    @property
    def whole(self) -> "Placement":
        """The slice that is all of it."""
        return Placement(0, f"{self.compute_slices}g")

    def profile(self, slice_: str) -> MigProfile | None:
        """The profile of a slice kind, media-exclusive forms (`1g+me`) included; None where the board has none."""
        if slice_.endswith(MEDIA):
            return self.media_profiles.get(slice_.removesuffix(MEDIA))
        return self.profiles.get(slice_)


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """A slice at a start on a GPU; `slice` is one of `SLICES`, or ends in `+me` for the media-exclusive form."""

    start: int
    slice: str

    def __str__(self) -> str:
        return f"{self.slice}@{self.start}"


Layout = tuple[Placement, ...]
"""The placements of one GPU, sorted by start."""


@dataclass(frozen=True, slots=True, order=True)
class GpuId:
    """A GPU of a node."""

    node: str
    index: int

    def __str__(self) -> str:
        return f"{self.node}/{self.index}"


@dataclass(frozen=True, slots=True)
class Occupancy:
    """State of a GPU that decides which layouts are possible on it.

    Attributes:
        foreign: MIG instances on it that belong to others.
        whole: True if the GPU is one slice and cannot be cut.
    """

    foreign: Layout = ()
    whole: bool = False

    def kinds(self, board: Board, kinds: Collection[str]) -> frozenset[str]:
        """The kinds of slices, out of these, that the GPU can have."""
        return frozenset(kinds) & {board.whole.slice} if self.whole else frozenset(kinds)


FREE = Occupancy()
"""Occupancy of a GPU without instances of others that can be cut."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of the cluster.

    Attributes:
        id: Which.
        board: Its model.
        foreign: MIG instances on it that are others', and are left alone.
        uncut: Why it can only be used as one whole slice, with what to do about that; empty where it can be cut.
    """

    id: GpuId
    board: Board
    foreign: Layout = ()
    uncut: str = ""

    @property
    def occupancy(self) -> "Occupancy":
        """What decides how it can be cut."""
        return Occupancy(self.foreign, whole=bool(self.uncut))

    @property
    def compute_slices(self) -> int:
        """That others have not taken."""
        profiles = (self.board.profile(placement.slice) for placement in self.foreign)
        return self.board.compute_slices - sum(profile.compute_slices for profile in profiles if profile is not None)


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    """Where clients reach the gateway."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class EdgeTls:
    """Certificates of the edge: absolute paths of PEM files.

    Attributes:
        cert: Server certificate with its intermediates.
        key: Private key of the server certificate.
        client_ca: Certificate authorities of clients; None where clients need no certificate.
    """

    cert: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Limits and timeouts that the edge enforces.

    Attributes:
        body_mib: Largest HTTP body and largest unary gRPC message.
        connections: Connections of each protocol at a time.
        client_connections: Connections of one client address for each protocol; None for no limit.
        client_rps: Requests per second of one client; None for no limit.
        queue_s: Seconds that a request waits for a gateway that restarts.
        resend_kib: Largest request that is sent again after the gateway died under it.
        header_s: Seconds that a client may take to send headers.
        idle_s: Seconds after which idle connections and stalled uploads end.
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
        kind: Program that runs.
        tls: Certificates; None for plain text.
        api_keys: Absolute path of the file with API keys; None where none is required.
        limits: Limits and timeouts.
        metrics: Port of its Prometheus exporter.
        access_log: Requests that are logged.
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
        name: With its tag.
        runtime: That runs it; None for whichever is there.
    """

    name: str
    runtime: Literal["docker", "podman"] | None = None

    def __str__(self) -> str:
        return self.name if self.runtime is None else f"{self.name} by {self.runtime}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines a plan is made for.

    Attributes:
        gpus: Sorted by id.
        driver: Of MIG.
        engine: That starts workers.
        processes: What the instances of a segment are: Triton's, which overlap by streams in one server, or a server
            each, under MPS.
        gateway: Ports.
        image: That workers run from; None for the tritonserver of the machine.
        edge: Proxy in front of the gateway; None where clients talk to the gateway itself.
        gateway_image: Image that the gateway runs from; None for the tritonserver of the machine.
        gateway_memory_mib: Heap that the gateway may allocate.
    """

    gpus: tuple[Gpu, ...]
    driver: Literal["nvml", "emulated"] = "emulated"
    engine: Literal["local", "ray"] = "local"
    processes: Processes = "streams"
    gateway: GatewayPorts = GatewayPorts()
    image: ServerImage | None = None
    edge: Edge | None = None
    gateway_image: ServerImage | None = None
    gateway_memory_mib: int = 4096

    @property
    def compute_slices(self) -> int:
        """Of all GPUs together, without what others have taken."""
        return sum(g.compute_slices for g in self.gpus)


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A MIG instance as a driver reports it.

    Attributes:
        gpu: Where it is.
        placement: On that GPU.
        uuid: `MIG-...`; `GPU-...` of a GPU without MIG, which is one instance; `GPU-.../3` of a half-made one.
    """

    gpu: GpuId
    placement: Placement
    uuid: str

    @property
    def half_made(self) -> bool:
        """Whether it lacks the compute instance by which processes reach it: a creation or destruction broke off."""
        return "/" in self.uuid


class CreationStage(IntEnum):
    """How far the creation of an instance may have got: by that it is known what it may have left at its place.

    NOTED: Nothing was asked of the driver yet.
    PART: A GPU instance was asked for, no compute instance: what is whole there is somebody else's.
    WHOLE: The rest was asked for, too.
    """

    NOTED = 0
    PART = 1
    WHOLE = 2

    def may_have_made(self, instance: MigInstance) -> bool:
        """Whether an instance at the creation's place may be what it has made."""
        return self is CreationStage.WHOLE or (self is CreationStage.PART and instance.half_made)


Reached = Callable[[CreationStage], None]
"""Is told of a stage before it is entered."""


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """How much of a MIG instance, or of a GPU without MIG, is in use.

    Attributes:
        memory_mib: Of all processes on it.
        memory_total_mib: That it has.
        busy: Share of its multiprocessors' time since it was asked for last; None where the driver does not tell.
    """

    memory_mib: int
    memory_total_mib: int
    busy: float | None
