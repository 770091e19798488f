"""The boards that plans can be made for, without one at hand.

Figures are what `nvidia-smi mig -lgip` printed on such a board; a driver's own answer wins over this table, since names
and sizes move a little between drivers of the same board. Where each row comes from stands beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board, MigProfile

_Figures = Mapping[str, int | None]
"""Slice kind -> streaming multiprocessors."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """A profile as all boards of a geometry have it."""

    nvml_enum: int
    profile_id: int
    compute_slices: int
    memory_slices: int
    max_instances: int
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Geometry:
    """How boards are cut: of the whole, by slice kind, and the media-exclusive forms."""

    compute_slices: int
    memory_slices: int
    shapes: Mapping[str, _Shape]
    media: Mapping[str, _Shape]


# NVIDIA MIG user guide, and -lgipp of A100 and H100. Seven compute slices on eight memory slices.
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

# -lgip and -lgipp of an A30. Four of both.
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
    """One board.

    Args:
        name: In the catalog.
        arch: Architecture.
        mode_change: What a change of MIG mode needs.
        geometry: How it is cut.
        nvml: Names under which NVML reports it.
        gb: Memory slices of a profile -> the gigabytes in its name.
        mib: Memory slices of a profile -> its memory; what is left out is not known.
        sm: Slice kind -> streaming multiprocessors; what is left out is not known.
        media: Whether it has media engines to give away.
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
    # NVIDIA MIG user guide.
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
    # A user's -lgip; another driver gives 9.75 GiB a slice instead of 9.50.
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
    # A user's -lgip and -lgipp, of the SXM board. The PCIe board has 114 multiprocessors in all.
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
    # A user's -lgip, of the H100 NVL; other drivers give up to 0.5 GiB less on the whole board.
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
    # A user's -lgip; its NVML name is from memory.
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
    # -lgip in NVIDIA/mig-parted, thread 120.
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
    # -lgip in NVIDIA/mig-parted, thread 187, which shows 1g and 2g alone: 3g, 4g and 7g are Hopper's by analogy, and
    # their figures are left out.
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
    # A user's -lgip and -lgipp.
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
    # This machine's processor cut like an A100. Its memory is a round figure that nothing reserves, and a slice of it
    # is no share of the processor: only what was measured on it says how fast it is.
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
"""Every board by name."""


def board(name: str, *, where: str = "") -> Board:
    """The board of this name.

    Args:
        name: As in `CATALOG`.
        where: Who names it, for the message.

    Raises:
        InputError: There is none; the hint names the nearest and all.
    """
    found = CATALOG.get(name)
    if found is not None:
        return found
    folded = {known.casefold(): known for known in CATALOG}
    begun = [known for fold, known in folded.items() if fold.startswith(name.casefold())] if name else []
    near = begun or [folded[close] for close in get_close_matches(name.casefold(), folded, n=1)]
    question = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(
        f"the catalog has no GPU model {name!r}", where=where, hint=f"{question}it has {', '.join(CATALOG)}"
    )
