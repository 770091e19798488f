"""How `mig` shows GPUs, their instances and changes of them."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from jigsaw_triton.cli.inputs.mig_machine import FoundGpu
from jigsaw_triton.cli.io.output import drawing
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.gpus.board import Piece, Strip, draw_text
from jigsaw_triton.gpus.rearrangement import Rearrangement
from jigsaw_triton.gpus.reported import MigMode

_STATES = {0: " (half made)", 1: " (part of it)"}
"""Compute instances of one that no process can use as a whole -> what is said of it."""

_HEADER = ("GPU", "model", "MIG", "instance", "profile", "UUID", "made by", "processes")


def mode_words(mode: MigMode | None) -> str:
    """A MIG mode as the tables have it."""
    if mode is None:
        return "not known"
    now = "on" if mode.current else "off"
    return now if mode.current == mode.pending else f"{now}, {'on' if mode.pending else 'off'} after a reset"


def gpus_table(gpus: Sequence[FoundGpu]) -> Table:
    """A line an instance, or a GPU that has none."""
    rows: list[Sequence[object]] = []
    for gpu in gpus:
        of = (gpu.reported.index, gpu.reported.name, mode_words(gpu.reported.mode))
        rows += [
            (
                *of,
                f"{i.instance.placement}{_STATES.get(i.parts, ' (split)') if i.instance.half_made else ''}",
                i.profile,
                i.instance.uuid,
                i.owner,
                ", ".join(map(str, i.processes)),
            )
            for i in gpu.instances
        ]
        if not gpu.instances:
            rows.append((*of, "none", None, gpu.reported.uuid, None, None))
    return Table.of(_HEADER, rows)


def drawn(gpus: Sequence[FoundGpu], width: int) -> Iterator[Text]:
    """The GPUs that can be cut, as boards."""
    strips = [
        Strip(f"GPU {gpu.reported.index}", gpu.board, tuple(_piece(gpu)))
        for gpu in gpus
        if gpu.board is not None and gpu.reported.cut
    ]
    if strips:
        yield drawing(draw_text(strips, width=width))


def _piece(gpu: FoundGpu) -> Iterator[Piece]:
    assert gpu.board is not None
    for found in gpu.instances:
        if gpu.board.profile(found.instance.placement.slice) is not None:
            yield Piece(found.instance.placement, found.profile, found.owner)


def gpu_json(gpu: FoundGpu) -> dict[str, Any]:
    """A GPU for programs."""
    mode = gpu.reported.mode
    return {
        "index": gpu.reported.index,
        "uuid": gpu.reported.uuid,
        "name": gpu.reported.name,
        "model": gpu.board.name if gpu.board is not None else None,
        "mig": None if mode is None else {"current": mode.current, "pending": mode.pending},
        "instances": [
            {
                "slice": i.instance.placement.slice,
                "start": i.instance.placement.start,
                "profile": i.profile,
                "uuid": i.instance.uuid,
                "half_made": i.instance.half_made,
                "parts": i.parts,
                "owner": i.owner,
                "processes": list(i.processes),
            }
            for i in gpu.instances
        ],
    }


def rearrangements_table(changes: Sequence[Rearrangement]) -> Table:
    """A line an instance: what stays, goes and comes."""
    rows = [
        (change.gpu.index, word, placement)
        for change in changes
        for word, placements in (
            ("stays", [i.placement for i in change.stay]),
            ("is destroyed", [i.placement for i in change.destroy]),
            ("is created", change.create),
        )
        for placement in placements
    ]
    return Table.of(("GPU", "", "instance"), rows)


def rearrangement_json(change: Rearrangement) -> dict[str, Any]:
    """A change for programs."""
    return {
        "index": change.gpu.index,
        "stay": [str(i.placement) for i in change.stay],
        "destroy": [str(i.placement) for i in change.destroy],
        "create": [str(placement) for placement in change.create],
    }
