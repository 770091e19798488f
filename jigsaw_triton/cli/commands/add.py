"""`jigsaw-triton add`: adds models to a graph.yaml as variants of a task."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from jigsaw_triton.api.adding import add_models
from jigsaw_triton.api.files import shown_path
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.graph import graph_document
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.tensors import made_up
from jigsaw_triton.graph.draw import tensor_words
from jigsaw_triton.graph.model import TensorType
from jigsaw_triton.runtime.dtypes import Array, to_numpy

_RANDOM = re.compile(r"([A-Z0-9]+)\[(.*)\]")

_MOST_VALUES = 2**28
"""Values that random data may have; the memory that they take is a small multiple of 1 GiB."""


@options.command(
    "add",
    examples=(
        "add iris.onnx --task classify",
        "add small.onnx large.onnx --task detect --graph traffic/ --accuracy 28.0 --accuracy 37.4",
        "add head.onnx --task classify --graph traffic/ --input X=detect.CROP",
        "add scores.pt --task score --sample X=FP32[4]",
        "add model.py --task classify --sample X=FP32[4] --file weights.npy",
    ),
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.option("--task", required=True, metavar="NAME", help="Name of the task.")
@options.option(
    "--graph",
    default="graph.yaml",
    show_default=True,
    metavar="GRAPH",
    type=click.Path(path_type=Path),
    help="File to change or create, or its folder.",
)
@options.option(
    "--accuracy",
    multiple=True,
    type=options.Number(min=0, min_open=True),
    metavar="A",
    help="Set the accuracy of all models, or of each if repeated.  [default: 1]",
)
@options.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=TENSOR",
    help="Connect an input of the models to a tensor, such as detect.CROPS.  [default: an input of the graph]",
)
@options.option(
    "--sample",
    "samples",
    multiple=True,
    metavar="NAME=FILE",
    help="Run TorchScript and Python models on an item: a .npy file, or a type like FP32[3,224,224] for random data.",
)
@options.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Take along a file that the models read beside them, such as weights.npy; may be repeated.",
)
def command(
    out: Output,
    models: tuple[Path, ...],
    task: str,
    graph: Path,
    accuracy: tuple[float, ...],
    inputs: tuple[str, ...],
    samples: tuple[str, ...],
    files: tuple[Path, ...],
) -> None:
    """Add models to a graph as variants of a task.

    The inputs and outputs of the task are those of the models: ONNX files, TorchScript files, Python files, or folders
    of a Triton model repository. Models outside the folder of the graph are copied into it. Comments and layout of
    GRAPH are kept; a new one is created.
    """
    added = add_models(
        models,
        task=task,
        graph=graph,
        accuracy=accuracy,
        inputs=_pairs("--input", inputs),
        samples={name: _sample(text) for name, text in _pairs("--sample", samples).items()} or None,
        files=files,
    )
    for note in added.notes:
        out.note(note)
    found, folder = added.graph.tasks[task], shown_path(added.file.resolve().parent)
    types = {name: added.graph.input_type(found, name) for name in found.inputs}
    rows = [
        *(("input", name, tensor_words(types[name]), str(ref)) for name, ref in found.inputs.items()),
        *(("output", name, tensor_words(kind), "") for name, kind in found.outputs.items()),
        *(("variant", name, found.variant(name).template, "") for name in added.variants),
    ]
    commands = [f"jigsaw-triton validate {folder}", f"jigsaw-triton profile {folder} --gpus 1xcpu"]
    data = {
        "file": str(added.file),
        "task": task,
        "variants": list(added.variants),
        "copied": [str(path) for path in added.copied],
        "graph": graph_document(added.graph),
        "notes": list(added.notes),
        "next": commands,
    }
    view = Table.of((task, "name", "type", "from"), rows)
    out.result(data, view, f"{added.file} is written. Next:", *(f"  {line}" for line in commands))


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise InputError(
                f"'{text}' is not NAME=VALUE", where=option, hint="write the name of an input, '=', and a value"
            )
        pairs[name] = value
    return pairs


def _sample(text: str) -> Array:
    """Returns the tensor in a .npy file, or random data of a type such as `FP32[3, 224, 224]`."""
    if match := _RANDOM.fullmatch(text):
        return made_up(_type(text, match[1], match[2]), np.random.default_rng(1))
    try:
        array: Array = np.load(text, allow_pickle=False)
    except (OSError, ValueError) as error:
        hint = "save the tensor of one item, without a batch dimension, with numpy.save"
        raise InputError(f"the sample cannot be read ({error})", where=text, hint=hint) from error
    return array.astype(np.bytes_).astype(np.object_) if array.dtype.kind in "SU" else array


def _type(text: str, dtype: str, dims: str) -> TensorType:
    """Returns the type that random data should have."""
    try:
        to_numpy(dtype)
    except ValueError as error:
        raise InputError(str(error), where="--sample") from error
    try:
        shape = tuple(int(dim) for dim in dims.split(",") if dim.strip())
    except ValueError:
        shape = (0,)
    if any(dim < 1 for dim in shape):
        hint = "write the sizes of one item, such as FP32[3,224,224]"
        raise InputError(f"'{text}' has a dimension that is not a positive number", where="--sample", hint=hint)
    if math.prod(shape) > _MOST_VALUES:
        hint = f"write the sizes of one item, with up to {_MOST_VALUES} values"
        raise InputError(f"'{text}' has {math.prod(shape)} values, too many for a sample", where="--sample", hint=hint)
    return TensorType(dtype, shape)
