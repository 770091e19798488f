"""What is told of downloads."""

from jigsaw_triton.cli.io.output import Tell
from jigsaw_triton.packages import Package, Progress

_EVERY_MIB = 10


def download_told(tell: Tell) -> Progress:
    """A download's progress in words, each ten MiB.

    Args:
        tell: Of `Output.working`.
    """
    told = -1

    def progress(package: Package, mib: float) -> None:
        nonlocal told
        if int(mib) // _EVERY_MIB > told:
            told = int(mib) // _EVERY_MIB
            tell(f"downloading {package.purpose} ({package.name} {package.version}): {mib:.0f} MiB")

    return progress
