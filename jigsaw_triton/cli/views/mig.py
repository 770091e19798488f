"""Tables, drawings and JSON of GPUs, their MIG instances and changes of them, for `mig`."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from jigsaw_triton.cli.inputs.mig_machine import FoundGpu
from jigsaw_triton.cli.io.output import drawing
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.gpus.board import Piece, Strip, draw_text
from jigsaw_triton.gpus.rearrangement import Rearrangement
from jigsaw_triton.gpus.reported import MigMode

_STATES = {0: " (incomplete)", 1: " (in part)"}
"""Number of compute instances of a MIG instance that no process can use as a whole -> its mark in the table."""

_HEADER = ("GPU", "model", "MIG", "instance", "profile", "UUID", "created by", "processes")


def mode_words(mode: MigMode | None) -> str:
    """Returns a MIG mode in words."""
    if mode is None:
        return "not supported"
    now = "on" if mode.current else "off"
    return now if mode.current == mode.pending else f"{now}, {'on' if mode.pending else 'off'} after a reset"


def gpus_table(gpus: Sequence[FoundGpu]) -> Table:
    """Returns a table with a row for each instance, and one for each GPU without instances."""
    rows: list[Sequence[object]] = []
    for gpu in gpus:
        columns = (gpu.reported.index, gpu.reported.name, mode_words(gpu.reported.mode))
        rows += [
            (
                *columns,
                f"{i.instance.placement}{_STATES.get(i.parts, ' (split)') if i.instance.half_made else ''}",
                i.profile,
                i.instance.uuid,
                i.owner,
                ", ".join(map(str, i.processes)),
            )
            for i in gpu.instances
        ]
        if not gpu.instances:
            rows.append((*columns, "none", None, gpu.reported.uuid, None, None))
    return Table.of(_HEADER, rows)


def drawn(gpus: Sequence[FoundGpu], width: int) -> Iterator[Text]:
    """Yields a drawing of the GPUs whose MIG mode is on."""
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
    """Returns a GPU as JSON."""
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
    """Returns a table with a row for each instance that stays, is destroyed or is created."""
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
    """Returns a change as JSON."""
    return {
        "index": change.gpu.index,
        "stay": [str(i.placement) for i in change.stay],
        "destroy": [str(i.placement) for i in change.destroy],
        "create": [str(placement) for placement in change.create],
    }
