"""GPUs as a driver reports them, and the mapping of their profiles to the catalog's slice kinds.

Profiles are identified by their slices and engines, because names and memory sizes differ between drivers of a board.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import MEDIA, SLICES, Board, Cluster, Gpu, GpuId, MigProfile, Placement

_MEMORY_TOLERANCE = 0.15
"""Relative tolerance for a profile's memory, larger than the differences between drivers of one board."""


@dataclass(frozen=True, slots=True)
class ReportedProfile:
    """A GPU instance profile.

    Attributes:
        nvml_enum: Number in NVML's enumeration of profiles.
        id: Profile id, as NVML's calls that create and list GPU instances take it.
        compute_slices: Compute slices used by an instance.
        memory_slices: Memory slices used by an instance: the length of its interval.
        sm: Streaming multiprocessors of an instance.
        memory_mib: Memory of an instance.
        max_instances: Largest number of instances per GPU.
        starts: Memory slices at which an instance can start, ascending.
        media_engines: Number of decoders, JPEG engines and optical-flow engines together.
        name: Name that this driver uses, such as `1g.10gb`. It is not an identity.
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
        id: Driver's id of the instance, unique on its GPU.
        profile: Id of the profile.
        start: First memory slice.
        parts: UUIDs of the compute instances.
        whole: UUID of the compute instance that has all multiprocessors; empty if there is none.
    """

    id: int
    profile: int
    start: int
    parts: tuple[str, ...]
    whole: str


@dataclass(frozen=True, slots=True)
class MigMode:
    """MIG mode of a GPU: True if MIG is on now (`current`) and after the next reset (`pending`)."""

    current: bool
    pending: bool


@dataclass(frozen=True, slots=True)
class ReportedGpu:
    """A GPU.

    Attributes:
        index: NVML's index.
        uuid: UUID, which starts with `GPU-`.
        name: NVML's name of the board.
        mode: MIG mode; None if the board does not support MIG.
        pci_device: PCI device and vendor ids, such as `0x20B210DE`; empty if the driver does not report them.
        profiles: GPU instance profiles; empty if MIG is off.
        instances: GPU instances, sorted by start.
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
        """True if MIG is on."""
        return self.mode is not None and self.mode.current

    def named(self, instance: ReportedInstance) -> str:
        """Returns the name of an instance: its UUID, or `GPU-.../id` for one that no process can use as a whole."""
        return instance.whole or f"{self.uuid}/{instance.id}"

    def placement(self, instance: ReportedInstance) -> Placement:
        """Returns the placement of an instance, with the catalog's slice kinds."""
        kinds = {profile.id: kind for kind, profile in self.kinds().items()}
        if instance.profile in kinds:
            return Placement(instance.start, kinds[instance.profile])
        # Profiles that plans never use, such as those for graphics, are reported as the slice kind of the same size.
        unplanned = next(p for p in self.profiles if p.id == instance.profile)
        return Placement(instance.start, _kind(unplanned))

    def kinds(self) -> dict[str, ReportedProfile]:
        """Returns the profiles by slice kind, with the suffix `+me` for media-exclusive forms.

        Among profiles with the same slices, the plain one has the fewest media engines and the media-exclusive one the
        most.
        """
        same_slices: dict[str, list[ReportedProfile]] = {}
        for profile in self.profiles:
            same_slices.setdefault(_kind(profile), []).append(profile)
        found = {}
        for kind, profiles in same_slices.items():
            if kind not in SLICES:
                continue
            ranked = sorted(profiles, key=lambda p: (p.media_engines, p.nvml_enum))
            found[kind] = ranked[0]
            if len(ranked) > 1 and ranked[-1].max_instances == 1 and ranked[-1].media_engines > ranked[0].media_engines:
                found[kind + MEDIA] = ranked[-1]
        return found


def _kind(profile: ReportedProfile) -> str:
    doubled = profile.compute_slices == 1 and profile.memory_slices == 2
    return f"{profile.compute_slices}g" + ("x2" if doubled else "")


def surveyed(cluster: Cluster, gpus: Mapping[GpuId, ReportedGpu]) -> Cluster:
    """Returns the cluster with its GPUs' profiles as a driver reports them.

    A GPU without MIG is one whole slice, even if others of its model can be partitioned.

    Args:
        cluster: Cluster to update.
        gpus: Reported GPUs. GPUs of the cluster that are not among them stay unchanged.
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
        peer = next(g for g in cluster.gpus if g.board.name == gpu.board.name and g.id in gpus and gpus[g.id].cut)
        board = as_reported(gpu.board, gpus[peer.id])
        return replace(gpu, board=board, foreign=(), uncut=why_uncut(gpus[gpu.id], gpu.board, cut))

    return replace(cluster, gpus=tuple(map(found, cluster.gpus)))


def why_uncut(gpu: ReportedGpu, board: Board, cut: Collection[str]) -> str:
    """Returns why a GPU is one whole slice while others of its model have MIG on, with the remedy; otherwise empty.

    Args:
        gpu: GPU with this board.
        board: Model of the GPU.
        cut: Names of the boards that have MIG on anywhere on this machine.
    """
    if gpu.cut or board.name not in cut:
        return ""
    if gpu.mode is not None and gpu.mode.pending:
        return f"MIG turns on only after a reset; run `nvidia-smi --gpu-reset -i {gpu.index}`"
    return f"MIG is off, but on for others of its model; run `jigsaw-triton mig enable {gpu.index}`"


def as_reported(board: Board, gpu: ReportedGpu) -> Board:
    """Returns the board with the profiles that the driver reports for a GPU; unchanged if MIG is off on that GPU."""
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
    """Returns the board of a GPU, in the catalog or not, with the profiles that the driver reports.

    Returns:
        The board, or None if MIG is off and the GPU's name is unknown, because its profiles are unknown then.
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
    """Returns why a GPU does not have this board; None if its name or its profiles match the board."""
    if gpu.name in board.nvml_names:
        return None
    if not gpu.cut:
        return f"it is an {gpu.name}"
    for kind, profile in gpu.kinds().items():
        known = board.profile(kind)
        if known is None or (known.starts, known.memory_slices) != (profile.starts, profile.memory_slices):
            return f"it is an {gpu.name}, which has other placements of {kind}"
        if known.memory_mib and abs(profile.memory_mib / known.memory_mib - 1) > _MEMORY_TOLERANCE:
            return f"it is an {gpu.name}, whose {kind} has {profile.memory_mib} MiB, not {known.memory_mib}"
    return None


def board_of(gpu: ReportedGpu, boards: Iterable[Board]) -> Board | None:
    """Returns the board of a GPU: the one with its name, else the most similar one; None if no board matches."""
    matching = [board for board in boards if mismatch(board, gpu) is None]
    return min(matching, key=lambda board: (gpu.name not in board.nvml_names, _difference(board, gpu)), default=None)


def _difference(board: Board, gpu: ReportedGpu) -> int:
    """Returns the difference in multiprocessors, summed over all profiles."""
    kinds = gpu.kinds()
    return sum(abs((p.sm or 0) - kinds[kind].sm) for kind, p in board.profiles.items() if kind in kinds)
