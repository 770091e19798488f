"""Checks of GPUs for `doctor`: the driver, MIG, the rights to change it, and other programs that change it."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from jigsaw_triton.errors import MigError, MissingDependencyError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Board
from jigsaw_triton.gpus.nvml_gpus import NvmlGpus
from jigsaw_triton.gpus.owners import running_agents, running_owners
from jigsaw_triton.gpus.reported import ReportedGpu, board_of
from jigsaw_triton.servers.checks import Check
from jigsaw_triton.servers.mps import find_control
from jigsaw_triton.spec.words import LOCAL_NODE

_CAP_SYS_ADMIN = 21
_MIG_CONFIG = "proc/driver/nvidia/capabilities/mig/config"

_OWNERS_FOLDERS = {
    "etc/nvidia-mig-manager": "mig-parted's service",
    "var/lib/kubelet/plugins/gpu.nvidia.com": "NVIDIA's DRA driver",
    "var/lib/kubelet/plugins/gpu.resource.nvidia.com": "NVIDIA's DRA driver",
}
"""Folder of a program that changes MIG -> its name. The program may run outside this container, or not now."""


def gpu_checks(*, root: Path = Path("/")) -> Iterator[Check]:
    """Yields all checks, or only that of the driver if no driver answers.

    Args:
        root: Root of the file system.
    """
    driver = NvmlGpus(LOCAL_NODE, {})
    try:
        version, gpus = driver.version(), driver.gpus()
    except MigError as error:
        yield _no_driver(error, root)
        return
    yield Check("NVIDIA driver", "ok", version)
    boards = {gpu.index: board for gpu in gpus if (board := board_of(gpu, CATALOG.values())) is not None}
    cut = {boards[gpu.index].name for gpu in gpus if gpu.cut and gpu.index in boards}
    for gpu in gpus:
        yield _gpu(gpu, boards.get(gpu.index), cut)
    if any(gpu.mode is not None for gpu in gpus):
        yield _rights(root)
        yield _owners(root)
    yield _mps()


def _no_driver(error: MigError, root: Path) -> Check:
    if not (root / "proc/driver/nvidia").exists():
        return Check("NVIDIA driver", "ok", "no driver answers: MIG is emulated, and models run on the processor")
    return Check("NVIDIA driver", "error", error.message, error.hint)


def _gpu(gpu: ReportedGpu, board: Board | None, cut: Collection[str]) -> Check:
    name = f"GPU {gpu.index}"
    known = f"{gpu.name} ({board.name})" if board is not None else gpu.name
    if gpu.mode is None:
        return Check(name, "warning", f"{known}, which does not support MIG", "it is used as one whole slice")
    if gpu.mode.current != gpu.mode.pending:
        word = "on" if gpu.mode.pending else "off"
        reset = f"nvidia-smi --gpu-reset -i {gpu.index}, with nothing running on it, or reboot"
        return Check(name, "warning", f"{known}, MIG is {word} after a reset", reset)
    if not gpu.mode.current:
        enable = f"jigsaw-triton mig enable {gpu.index}"
        beside = board is not None and board.name in cut
        others = ", while others of its model are cut" if beside else ""
        return Check(name, "warning", f"{known}, MIG is off: it is one whole slice{others}", enable)
    half = sum(not instance.whole for instance in gpu.instances)
    count = f"{len(gpu.instances)} MIG instances" + (f", {half} of them incomplete or split" if half else "")
    return Check(name, "ok", f"{known}, MIG is on, {count}")


def _rights(root: Path) -> Check:
    """Checks whether this user may change MIG, without changing anything."""
    if _capable(root) or _has_mig_config(root):
        return Check("MIG rights", "ok", "this user may change MIG")
    return Check(
        "MIG rights",
        "error",
        "this user may not change MIG",
        "run as root or with CAP_SYS_ADMIN; in a container: --cap-add=SYS_ADMIN and NVIDIA_MIG_CONFIG_DEVICES=all",
    )


def _capable(root: Path) -> bool:
    try:
        lines = (root / "proc/self/status").read_text().splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _has_mig_config(root: Path) -> bool:
    """Returns True if the device file of NVIDIA's capability `mig/config` can be read, the right to change MIG."""
    try:
        lines = (root / _MIG_CONFIG).read_text().splitlines()
    except OSError:
        return False
    minor = next((line.split()[1] for line in lines if line.startswith("DeviceFileMinor:")), "")
    return os.access(root / "dev/nvidia-caps" / f"nvidia-cap{minor}", os.R_OK)


def _mps() -> Check:
    try:
        return Check("MPS", "ok", str(find_control()))
    except MissingDependencyError as error:
        return Check("MPS", "warning", error.message, error.hint)


def _owners(root: Path) -> Check:
    """Looks for other programs that change MIG on this machine."""
    found = {*running_owners(root=root), *(what for path, what in _OWNERS_FOLDERS.items() if (root / path).exists())}
    if found:
        return Check(
            "MIG owners",
            "error",
            f"{' and '.join(sorted(found))} also changes MIG on this machine",
            "let only one program change MIG: exclude this node from the other, or use --driver emulated",
        )
    if agents := running_agents(root=root):
        return Check("MIG owners", "ok", f"no other program; {', '.join(agents)} may hold an instance for a moment")
    return Check("MIG owners", "ok", "no other program is known to change MIG here")
