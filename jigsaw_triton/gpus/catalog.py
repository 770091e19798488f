"""Catalog of GPU models, so that a plan can be made without the GPU at hand.

The figures are what `nvidia-smi mig -lgip` printed on such a board. Names and sizes differ slightly between driver
versions, so what a driver reports overrides this table. A comment at each board names its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board, MigProfile

_Figures = Mapping[str, int | None]
"""Mapping from slice kind to number of streaming multiprocessors."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """The part of a MIG profile that all boards of a geometry share."""

    nvml_enum: int
    profile_id: int
    compute_slices: int
    memory_slices: int
    max_instances: int
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Slices of a whole GPU, and the shapes of its plain and media-exclusive (`+me`) profiles by slice kind."""

    compute_slices: int
    memory_slices: int
    shapes: Mapping[str, _Shape]
    media: Mapping[str, _Shape]


# Source: NVIDIA MIG user guide, and -lgipp of A100 and H100. Seven compute slices on eight memory slices.
_SEVEN = _Geometry(
    compute_slices=7,
    memory_slices=8,
    shapes={
        #           enum  id  compute memory max  starts
        "1g": _Shape(0, 19, 1, 1, 7, (0, 1, 2, 3, 4, 5, 6)),
        "1gx2": _Shape(9, 15, 1, 2, 4, (0, 2, 4, 6)),
        "2g": _Shape(1, 14, 2, 2, 3, (0, 2, 4)),
        "3g": _Shape(2, 9, 3, 4, 2, (0, 4)),
        "4g": _Shape(3, 5, 4, 4, 1, (0,)),
        "7g": _Shape(4, 0, 7, 8, 1, (0,)),
    },
    media={"1g": _Shape(7, 20, 1, 1, 1, (0, 1, 2, 3, 4, 5, 6))},
)

# Source: -lgip and -lgipp of an A30. Four compute slices on four memory slices.
_FOUR = _Geometry(
    compute_slices=4,
    memory_slices=4,
    shapes={
        "1g": _Shape(0, 14, 1, 1, 4, (0, 1, 2, 3)),
        "2g": _Shape(1, 5, 2, 2, 2, (0, 2)),
        "4g": _Shape(3, 0, 4, 4, 1, (0,)),
    },
    media={
        "1g": _Shape(7, 21, 1, 1, 1, (0, 1, 2, 3)),
        "2g": _Shape(8, 6, 2, 2, 1, (0, 2)),
    },
)

_AMPERE: _Figures = {"1g": 14, "1gx2": 14, "2g": 28, "3g": 42, "4g": 56, "7g": 98}
_HOPPER: _Figures = {"1g": 16, "1gx2": 26, "2g": 32, "3g": 60, "4g": 64, "7g": 132}
_B200: _Figures = {"1g": 18, "1gx2": 30, "2g": 36}


def _board(
    name: str,
    arch: str,
    mode_change: Literal["gpu-reset", "immediate"],
    geometry: _Geometry,
    *,
    nvml: tuple[str, ...],
    gb: Mapping[int, int],
    mib: Mapping[int, int],
    sm: _Figures,
    media: bool = True,
) -> Board:
    """Builds the catalog's entry for one board.

    Args:
        name: Name in the catalog.
        arch: Architecture.
        mode_change: Step that a change of MIG mode requires.
        geometry: Slices and profiles of the board.
        nvml: Names under which NVML reports the board.
        gb: Gigabytes in a profile's name, by memory slices of the profile.
        mib: Memory of a profile in MiB, by memory slices of the profile; unknown values are left out.
        sm: Streaming multiprocessors by slice kind; unknown values are left out.
        media: True if the board has media engines for `+me` profiles.
    """

    def profile(slice_: str, shape: _Shape, *, exclusive: bool) -> MigProfile:
        return MigProfile(
            slice=slice_,
            name=f"{shape.compute_slices}g.{gb[shape.memory_slices]}gb" + ("+me" if exclusive else ""),
            profile_id=shape.profile_id,
            nvml_enum=shape.nvml_enum,
            compute_slices=shape.compute_slices,
            memory_slices=shape.memory_slices,
            sm=sm.get(slice_),
            memory_mib=mib.get(shape.memory_slices),
            max_instances=shape.max_instances,
            starts=shape.starts,
            media_exclusive=exclusive,
        )

    exclusive = geometry.media if media else {}
    return Board(
        name=name,
        arch=arch,
        nvml_names=nvml,
        compute_slices=geometry.compute_slices,
        memory_slices=geometry.memory_slices,
        mode_change=mode_change,
        profiles={s: profile(s, shape, exclusive=False) for s, shape in geometry.shapes.items()},
        media_profiles={s: profile(s, shape, exclusive=True) for s, shape in exclusive.items()},
    )


_BOARDS = (
    # Source: NVIDIA MIG user guide.
    _board(
        "A100-40GB",
        "ampere",
        "gpu-reset",
        _SEVEN,
        nvml=("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
        gb={1: 5, 2: 10, 4: 20, 8: 40},
        mib={1: 4864, 2: 9856, 4: 19968, 8: 40192},
        sm=_AMPERE,
    ),
    # Source: a user's -lgip. Another driver reports 9.75 GiB per slice instead of 9.50.
    _board(
        "A100-80GB",
        "ampere",
        "gpu-reset",
        _SEVEN,
        nvml=("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
        gb={1: 10, 2: 20, 4: 40, 8: 80},
        mib={1: 9728, 2: 19968, 4: 40192, 8: 80896},
        sm=_AMPERE,
    ),
    # Source: a user's -lgip and -lgipp, of the SXM board. The PCIe board has 114 multiprocessors in total.
    _board(
        "H100-80GB",
        "hopper",
        "immediate",
        _SEVEN,
        nvml=("NVIDIA H100 80GB HBM3",),
        gb={1: 10, 2: 20, 4: 40, 8: 80},
        mib={1: 9984, 2: 20096, 4: 40448, 8: 81152},
        sm=_HOPPER,
    ),
    # Source: a user's -lgip, of the H100 NVL. Other drivers report up to 0.5 GiB less for the whole board.
    _board(
        "H100-94GB",
        "hopper",
        "immediate",
        _SEVEN,
        nvml=("NVIDIA H100 NVL",),
        gb={1: 12, 2: 24, 4: 47, 8: 94},
        mib={1: 11008, 2: 22144, 4: 47488, 8: 95360},
        sm=_HOPPER,
    ),
    # Source: a user's -lgip. The NVML name has no published source.
    _board(
        "GH200-96GB",
        "hopper",
        "immediate",
        _SEVEN,
        nvml=("NVIDIA GH200 480GB",),
        gb={1: 12, 2: 24, 4: 48, 8: 96},
        mib={1: 11264, 2: 23552, 4: 47616, 8: 95232},
        sm=_HOPPER,
    ),
    # Source: -lgip in NVIDIA/mig-parted, thread 120.
    _board(
        "H200-141GB",
        "hopper",
        "immediate",
        _SEVEN,
        nvml=("NVIDIA H200",),
        gb={1: 18, 2: 35, 4: 71, 8: 141},
        mib={1: 16384, 2: 33024, 4: 71168, 8: 143104},
        sm=_HOPPER,
    ),
    # Source: -lgip in NVIDIA/mig-parted, thread 187, which shows only 1g and 2g. The shapes of 3g, 4g and 7g are taken
    # from Hopper by analogy; their figures are left out.
    _board(
        "B200-180GB",
        "blackwell",
        "immediate",
        _SEVEN,
        nvml=("NVIDIA B200",),
        gb={1: 23, 2: 45, 4: 90, 8: 180},
        mib={1: 20992, 2: 45312},
        sm=_B200,
    ),
    # Source: a user's -lgip and -lgipp.
    _board(
        "A30-24GB",
        "ampere",
        "gpu-reset",
        _FOUR,
        nvml=("NVIDIA A30",),
        gb={1: 6, 2: 12, 4: 24},
        mib={1: 5952, 2: 11968, 4: 24000},
        sm=_AMPERE,
    ),
    # This machine's processor, partitioned like an A100. The memory is a round figure that nothing reserves. A slice is
    # not a share of the processor, so only measurements on the machine say how fast it is.
    _board(
        "cpu",
        "cpu",
        "immediate",
        _SEVEN,
        nvml=(),
        gb={1: 8, 2: 16, 4: 32, 8: 64},
        mib={1: 8192, 2: 16384, 4: 32768, 8: 65536},
        sm={},
        media=False,
    ),
)

CATALOG: Mapping[str, Board] = MappingProxyType({b.name: b for b in _BOARDS})
"""All known boards by name."""


def board(name: str, *, where: str = "") -> Board:
    """Returns the board with this name.

    Args:
        name: Key of `CATALOG`.
        where: Source of the name, for the error message.

    Raises:
        InputError: The catalog has no such board. The hint lists the closest names, then all names.
    """
    found = CATALOG.get(name)
    if found is not None:
        return found
    folded = {known.casefold(): known for known in CATALOG}
    completions = [known for fold, known in folded.items() if fold.startswith(name.casefold())] if name else []
    near = completions or [folded[close] for close in get_close_matches(name.casefold(), folded, n=1)]
    question = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(
        f"the catalog has no GPU model {name!r}", where=where, hint=f"{question}it has {', '.join(CATALOG)}"
    )
