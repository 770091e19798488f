"""What a driver reports of the GPUs of a machine, and which of the catalog's slices its profiles are.

Profiles are told apart by what they are made of. Their names and sizes differ between drivers of one board.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import MEDIA, SLICES, Board, Cluster, Gpu, GpuId, MigProfile, Placement

_MEMORY_TOLERANCE = 0.15
"""By how much drivers of one board differ in a profile's memory, and more."""


@dataclass(frozen=True, slots=True)
class ReportedProfile:
    """A GPU instance profile.

    Attributes:
        nvml_enum: Number in NVML's enumeration.
        id: What creation and lists take.
        compute_slices: Of the GPU's.
        memory_slices: Length of the interval that a placement takes.
        sm: Streaming multiprocessors.
        memory_mib: Of an instance.
        max_instances: Per GPU.
        starts: Where an instance may start, ascending.
        media_engines: Decoders, JPEG and optical-flow engines together.
        name: `1g.10gb`, as this driver calls it; never an identity.
    """

    nvml_enum: int
    id: int
    compute_slices: int
    memory_slices: int
    sm: int
    memory_mib: int
    max_instances: int
    starts: tuple[int, ...]
    media_engines: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class ReportedInstance:
    """A GPU instance.

    Attributes:
        id: Of the driver, on this GPU.
        profile: Its profile's `id`.
        start: Memory slice.
        parts: UUIDs of its compute instances.
        whole: UUID of the one that has all its multiprocessors; empty where there is none.
    """

    id: int
    profile: int
    start: int
    parts: tuple[str, ...]
    whole: str


@dataclass(frozen=True, slots=True)
class MigMode:
    """Whether MIG is on: now, and after the next reset."""

    current: bool
    pending: bool


@dataclass(frozen=True, slots=True)
class ReportedGpu:
    """A GPU.

    Attributes:
        index: Of NVML.
        uuid: `GPU-...`.
        name: Of the board.
        mode: None where the board knows no MIG.
        pci_device: `0x20B210DE`, device and vendor; empty where the driver does not tell.
        profiles: Empty where MIG is off.
        instances: Sorted by start.
    """

    index: int
    uuid: str
    name: str
    mode: MigMode | None
    pci_device: str = ""
    profiles: tuple[ReportedProfile, ...] = ()
    instances: tuple[ReportedInstance, ...] = ()

    @property
    def cut(self) -> bool:
        """Whether MIG is on."""
        return self.mode is not None and self.mode.current

    def named(self, instance: ReportedInstance) -> str:
        """What an instance goes by: its UUID, or, of one that no process can use, its number on this GPU."""
        return instance.whole or f"{self.uuid}/{instance.id}"

    def placement(self, instance: ReportedInstance) -> Placement:
        """Where an instance is, in the catalog's words."""
        kinds = {profile.id: kind for kind, profile in self.kinds().items()}
        if instance.profile in kinds:
            return Placement(instance.start, kinds[instance.profile])
        # A kind that is not planned with, such as one for graphics: what it takes is what matters.
        odd = next(p for p in self.profiles if p.id == instance.profile)
        return Placement(instance.start, _kind(odd))

    def kinds(self) -> dict[str, ReportedProfile]:
        """Slice kind, with `+me` for media-exclusive forms, -> the profile that it is.

        Of profiles with the same slices the plain one has the fewest media engines, the media-exclusive one the most.
        """
        alike: dict[str, list[ReportedProfile]] = {}
        for profile in self.profiles:
            alike.setdefault(_kind(profile), []).append(profile)
        found = {}
        for kind, of in alike.items():
            if kind not in SLICES:
                continue
            ranked = sorted(of, key=lambda p: (p.media_engines, p.nvml_enum))
            found[kind] = ranked[0]
            if len(ranked) > 1 and ranked[-1].max_instances == 1 and ranked[-1].media_engines > ranked[0].media_engines:
                found[kind + MEDIA] = ranked[-1]
        return found


def _kind(profile: ReportedProfile) -> str:
    doubled = profile.compute_slices == 1 and profile.memory_slices == 2
    return f"{profile.compute_slices}g" + ("x2" if doubled else "")


def surveyed(cluster: Cluster, gpus: Mapping[GpuId, ReportedGpu]) -> Cluster:
    """The cluster with its GPUs' profiles as a driver reports them.

    A GPU without MIG is one whole slice, also beside others of its model that can be cut.

    Args:
        cluster: The machines.
        gpus: What is reported; those of the cluster that are not among them stay as they are.
    """
    cut = {gpu.board.name for gpu in cluster.gpus if gpu.id in gpus and gpus[gpu.id].cut}

    def found(gpu: Gpu) -> Gpu:
        if gpu.id not in gpus:
            return gpu
        if gpus[gpu.id].cut:
            return replace(gpu, board=as_reported(gpu.board, gpus[gpu.id]))
        if gpu.board.name not in cut:
            whole = gpu.board.whole.slice
            only = {whole: gpu.board.profiles[whole]}
            return replace(gpu, board=replace(gpu.board, profiles=only, media_profiles={}))
        alike = next(g for g in cluster.gpus if g.board.name == gpu.board.name and g.id in gpus and gpus[g.id].cut)
        board = as_reported(gpu.board, gpus[alike.id])
        return replace(gpu, board=board, foreign=(), uncut=why_uncut(gpus[gpu.id], gpu.board, cut))

    return replace(cluster, gpus=tuple(map(found, cluster.gpus)))


def why_uncut(gpu: ReportedGpu, board: Board, cut: Collection[str]) -> str:
    """Why a GPU is one whole slice where others of its model are cut, with what to do about that; else empty.

    Args:
        gpu: Of this board.
        board: Its model.
        cut: Names of the boards that are cut on this machine.
    """
    if gpu.cut or board.name not in cut:
        return ""
    if gpu.mode is not None and gpu.mode.pending:
        return f"MIG will be on after a reset, as it is on others of its model: nvidia-smi --gpu-reset -i {gpu.index}"
    return f"MIG is off, and on on others of its model: `jigsaw-triton mig enable {gpu.index}`"


def as_reported(board: Board, gpu: ReportedGpu) -> Board:
    """The board with its profiles as the driver of a GPU has them; as it is where MIG is off there."""
    if not gpu.cut:
        return board

    def profiles(kinds: Iterable[str]) -> Mapping[str, MigProfile]:
        reported = gpu.kinds()
        return {kind.removesuffix(MEDIA): _merged(board, kind, reported[kind]) for kind in kinds if kind in reported}

    return replace(board, profiles=profiles(SLICES), media_profiles=profiles(kind + MEDIA for kind in SLICES))


def _merged(board: Board, kind: str, reported: ReportedProfile) -> MigProfile:
    known = board.profile(kind)
    return MigProfile(
        slice=kind.removesuffix(MEDIA),
        name=reported.name or (known.name if known is not None else kind),
        profile_id=reported.id,
        nvml_enum=reported.nvml_enum,
        compute_slices=reported.compute_slices,
        memory_slices=reported.memory_slices,
        sm=reported.sm,
        memory_mib=reported.memory_mib,
        max_instances=reported.max_instances,
        starts=reported.starts,
        media_exclusive=kind.endswith(MEDIA),
    )


def described(gpu: ReportedGpu, boards: Iterable[Board]) -> Board | None:
    """The board of a GPU with its profiles as its driver has them, also one that is not in the catalog.

    Returns:
        None where MIG is off and the name is not known: what it can be cut into cannot be told then.
    """
    known = board_of(gpu, boards)
    if known is not None:
        return as_reported(known, gpu)
    if not gpu.cut:
        return None
    compute = max(profile.compute_slices for profile in gpu.profiles)
    memory = max(max(profile.starts) + profile.memory_slices for profile in gpu.profiles)
    return as_reported(Board(gpu.name, "", (gpu.name,), compute, memory, "gpu-reset", {}), gpu)


def mismatch(board: Board, gpu: ReportedGpu) -> str | None:
    """Why a GPU is not of this board; None where it is, whatever its driver calls it."""
    if gpu.name in board.nvml_names:
        return None
    if not gpu.cut:
        return f"it is an {gpu.name}"
    for kind, profile in gpu.kinds().items():
        known = board.profile(kind)
        if known is None or (known.starts, known.memory_slices) != (profile.starts, profile.memory_slices):
            return f"it is an {gpu.name}, whose {kind} is another"
        if known.memory_mib and abs(profile.memory_mib / known.memory_mib - 1) > _MEMORY_TOLERANCE:
            return f"it is an {gpu.name}, whose {kind} has {profile.memory_mib} MiB, not {known.memory_mib}"
    return None


def board_of(gpu: ReportedGpu, boards: Iterable[Board]) -> Board | None:
    """The board that a GPU is of: by its name, else the one that is most like it; None where none is."""
    alike = [board for board in boards if mismatch(board, gpu) is None]
    return min(alike, key=lambda board: (gpu.name not in board.nvml_names, _difference(board, gpu)), default=None)


def _difference(board: Board, gpu: ReportedGpu) -> int:
    """In multiprocessors, of all profiles together."""
    kinds = gpu.kinds()
    return sum(abs((p.sm or 0) - kinds[kind].sm) for kind, p in board.profiles.items() if kind in kinds)
