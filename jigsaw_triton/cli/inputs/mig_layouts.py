"""Layouts that `mig apply` and `mig assert` are given, for each GPU."""

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
    """Reads the layouts from a file or from --layout.

    Args:
        file: Path of a file with layouts; None if `layout` is given.
        config: Name of the configuration in the file.
        layout: Value of --layout: `3g@0,3g@4`, or `none` for an empty GPU.
        gpus: Indices of the GPUs that `layout` is for.

    Raises:
        InputError: Neither or both of `file` and `layout` are given, or the layouts are wrong.
    """
    if (file is None) == (layout is None):
        raise InputError("give a file or --layout", where=_LAYOUT, hint="such as --layout 3g@0,3g@4 --gpu 0")
    if file is not None:
        if gpus:
            raise InputError("the file names the GPUs itself", where="--gpu", hint="leave the option out")
        return load_layouts(file, config)
    assert layout is not None
    if not gpus or config is not None:
        hint = "add --gpu 0, once for each GPU, and leave out --config"
        raise InputError("it is not clear for which GPUs", where=_LAYOUT, hint=hint)
    pieces = tuple(piece.strip() for piece in layout.split(",")) if layout != "none" else ()
    return (LayoutEntry(_LAYOUT, tuple(dict.fromkeys(gpus)), (), True, pieces),)


def wanted_layouts(entries: Sequence[LayoutEntry], gpus: Sequence[FoundGpu]) -> Mapping[int, Layout]:
    """Returns the wanted layout of each GPU that the entries name, by index.

    If an entry leaves starts open, as many of the present instances as possible stay.

    Raises:
        InputError: A GPU does not exist, or does not allow the layout.
        StateError: The MIG mode of a GPU is not the wanted one.
    """
    wanted: dict[int, Layout] = {}
    for entry in entries:
        for gpu in _matching(entry, gpus):
            _check_mode(entry, gpu)
            wanted[gpu.reported.index] = _layout(entry, gpu) if entry.enabled else ()
    return wanted


def _matching(entry: LayoutEntry, gpus: Sequence[FoundGpu]) -> Iterator[FoundGpu]:
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
            f"MIG is on for GPU {gpu.reported.index}, but the layout wants it off",
            where=entry.where,
            hint=f"turn it off with `nvidia-smi -i {gpu.reported.index} -mig 0` while nothing is on the GPU",
        )
    if entry.enabled and not gpu.reported.cut:
        raise StateError(
            f"MIG is off for GPU {gpu.reported.index}, but the layout wants it on",
            where=entry.where,
            hint=f"turn it on with `jigsaw-triton mig enable {gpu.reported.index}`",
        )


def _layout(entry: LayoutEntry, gpu: FoundGpu) -> Layout:
    assert gpu.board is not None
    requests = [parse_slice_request(piece, gpu.board, where=entry.where) for piece in entry.pieces]
    layout = arrange(gpu.board, requests, present=gpu.layout)
    if layout is None:
        raise InputError(
            f"{', '.join(entry.pieces)} do not fit on GPU {gpu.reported.index}, an {gpu.board.name}",
            where=entry.where,
            hint="docs/reference/gpus.md lists the layouts that a GPU allows",
        )
    return layout
