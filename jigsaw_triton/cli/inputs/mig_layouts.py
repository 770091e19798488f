"""From what `mig apply` and `mig assert` are given to the layout of each GPU."""

from collections.abc import Iterator, Mapping, Sequence

from jigsaw_triton.cli.inputs.mig_machine import FoundGpu
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.arrangement import arrange, parse_slice_request
from jigsaw_triton.gpus.model import Layout
from jigsaw_triton.spec.mig_layouts import LayoutEntry, load_layouts

_LAYOUT = "--layout"


def read_entries(
    file: str | None, config: str | None, layout: str | None, gpus: Sequence[int]
) -> tuple[LayoutEntry, ...]:
    """What is wanted, as it is written.

    Args:
        file: FILE.
        config: --config.
        layout: --layout: `3g@0,3g@4`, `none` for an empty GPU.
        gpus: --gpu, to which --layout applies.

    Raises:
        InputError: Not exactly one of the two is given, or what is given is wrong.
    """
    if (file is None) == (layout is None):
        raise InputError("give a file or --layout", where=_LAYOUT, hint="such as --layout 3g@0,3g@4 --gpu 0")
    if file is not None:
        if gpus:
            raise InputError("the file says which GPUs", where="--gpu", hint="leave the option out")
        return load_layouts(file, config)
    assert layout is not None
    if not gpus or config is not None:
        hint = "add --gpu 0, several times for several, and no --config"
        raise InputError("it does not say of which GPUs", where=_LAYOUT, hint=hint)
    pieces = tuple(piece.strip() for piece in layout.split(",")) if layout != "none" else ()
    return (LayoutEntry(_LAYOUT, tuple(dict.fromkeys(gpus)), (), True, pieces),)


def wanted_layouts(entries: Sequence[LayoutEntry], gpus: Sequence[FoundGpu]) -> Mapping[int, Layout]:
    """GPU index -> the layout that it is to have; of those that the entries speak of.

    Where an entry leaves starts open, as much as possible of what is there stays.

    Raises:
        InputError: A GPU is not there, or cannot be cut so.
        StateError: The MIG mode of a GPU is not the one that is wanted.
    """
    wanted: dict[int, Layout] = {}
    for entry in entries:
        for gpu in _meant(entry, gpus):
            _check_mode(entry, gpu)
            wanted[gpu.reported.index] = _layout(entry, gpu) if entry.enabled else ()
    return wanted


def _meant(entry: LayoutEntry, gpus: Sequence[FoundGpu]) -> Iterator[FoundGpu]:
    by_index = {gpu.reported.index: gpu for gpu in gpus}
    for index in by_index if entry.indices is None else entry.indices:
        if index not in by_index:
            hint = f"this machine has {len(gpus)}; list them with `jigsaw-triton mig list`"
            raise InputError(f"there is no GPU {index}", where=entry.where, hint=hint)
        filters = {text.casefold() for text in entry.filters}
        if not filters or by_index[index].reported.pci_device.casefold() in filters:
            yield by_index[index]


def _check_mode(entry: LayoutEntry, gpu: FoundGpu) -> None:
    if gpu.reported.cut and not entry.enabled:
        raise StateError(
            f"MIG is on on GPU {gpu.reported.index}, and is to be off",
            where=entry.where,
            hint=f"this tool never turns it off; nvidia-smi -i {gpu.reported.index} -mig 0 does, on an empty GPU",
        )
    if entry.enabled and not gpu.reported.cut:
        raise StateError(
            f"MIG is off on GPU {gpu.reported.index}, and is to be on",
            where=entry.where,
            hint=f"turn it on with `jigsaw-triton mig enable {gpu.reported.index}`",
        )


def _layout(entry: LayoutEntry, gpu: FoundGpu) -> Layout:
    assert gpu.board is not None
    requests = [parse_slice_request(piece, gpu.board, where=entry.where) for piece in entry.pieces]
    layout = arrange(gpu.board, requests, present=gpu.layout)
    if layout is None:
        raise InputError(
            f"{', '.join(entry.pieces)} cannot all be on GPU {gpu.reported.index}, an {gpu.board.name}",
            where=entry.where,
            hint="docs/reference/gpus.md says what can stand on a GPU",
        )
    return layout
