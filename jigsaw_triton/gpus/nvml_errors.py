"""Translates NVML's error codes to errors that say what is wrong and what to do."""

from collections.abc import Mapping
from types import MappingProxyType

from jigsaw_triton.errors import GpuLostError, InstanceInUseError, MigError, PlacementError

_RIGHTS = (
    "run as root, with CAP_SYS_ADMIN, or with the mig/config capability of /dev/nvidia-caps; in a container "
    "add --cap-add=SYS_ADMIN and NVIDIA_MIG_CONFIG_DEVICES=all"
)
_NO_DRIVER = (
    "install NVIDIA's driver, or load it (nvidia-smi shows whether it answers); in a container add --gpus all; "
    "without a GPU use --driver emulated"
)

# Keys are values of nvmlReturn_t in NVIDIA's nvml.h.
_KNOWN: Mapping[int, tuple[type[MigError], str, str]] = MappingProxyType(
    {
        1: (MigError, "the NVIDIA driver was unloaded", "try again; MIG may have to be enabled again"),
        2: (PlacementError, "the GPU has no such profile or placement", "see `jigsaw-triton mig list`"),
        3: (MigError, "the driver does not support this, or MIG is off on this GPU", "see `jigsaw-triton mig list`"),
        4: (MigError, "this user may not read or change MIG here", _RIGHTS),
        6: (MigError, "the requested object no longer exists", "another tool may have changed the GPU; try again"),
        9: (MigError, "the NVIDIA driver is not loaded", _NO_DRIVER),
        12: (MigError, "there is no NVIDIA driver: libnvidia-ml.so.1 is not found", _NO_DRIVER),
        13: (MigError, "the NVIDIA driver is too old: it lacks a function", "install driver 525 or later"),
        15: (GpuLostError, "the GPU is lost", "check dmesg; usually the machine has to be rebooted"),
        16: (
            GpuLostError,
            "the GPU must be reset first",
            "nvidia-smi --gpu-reset -i INDEX, with nothing running on it",
        ),
        18: (MigError, "the driver's library and its kernel module differ in version", "reboot after a driver update"),
        19: (
            InstanceInUseError,
            "the driver reports that it is in use",
            "stop the processes that use it, including monitoring agents",
        ),
        23: (PlacementError, "the GPU has no room for it", "see `jigsaw-triton mig list`"),
        25: (MigError, "the driver and nvidia-ml-py differ in version", "pip install --upgrade nvidia-ml-py"),
    }
)


def explained(code: int, *, where: str) -> MigError:
    """Returns the error for a return code of NVML.

    Args:
        code: Return code of NVML.
        where: Object that the call was about.
    """
    kind, message, hint = _KNOWN.get(
        code, (MigError, f"the NVIDIA driver failed with error {code}", "try again; check dmesg")
    )
    return kind(message, where=where, hint=hint)
