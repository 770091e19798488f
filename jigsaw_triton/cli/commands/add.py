"""`jigsaw-triton add`: adds models to a graph.yaml as variants of a task."""

from pathlib import Path

import click

from jigsaw_triton.api.adding import add_models
from jigsaw_triton.api.files import shown_path
from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.cli.inputs.pairs import pairs
from jigsaw_triton.cli.inputs.samples import read_sample
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.graph import graph_document
from jigsaw_triton.graph.draw import tensor_words


@options.command(
    "add",
    examples=(
        "add iris.onnx --task classify",
        "add small.onnx large.onnx --task detect --graph traffic/ --accuracy 28.0 --accuracy 37.4",
        "add head.onnx --task classify --graph traffic/ --input X=detect.CROP",
        "add scores.pt --task score --sample X=FP32[4]",
        "add model.py --task classify --sample X=FP32[4] --file weights.npy",
        "add bert/ --task fill --parameter pipeline=fill-mask --sample 'TEXT=text:Paris is [MASK].'",
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
    type=option_types.Number(min=0, min_open=True),
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
    help="Run TorchScript, Python and Hugging Face models on an item: a .npy file, a type such as FP32[3,224,224] for"
    " random data, or text:WORDS.",
)
@options.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Add a file that the models read from their folder, such as weights.npy; may be repeated.",
)
@options.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of the variants; may be repeated.",
)
@options.option(
    "--rename",
    multiple=True,
    metavar="OLD=NEW",
    help="Rename an input or output of ONNX models, in a copy; may be repeated.",
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
    parameters: tuple[str, ...],
    rename: tuple[str, ...],
) -> None:
    """Add models to a graph as variants of a task.

    The inputs and outputs of the task are those of the models: ONNX files, TorchScript files, Python files, folders of
    a Triton model repository, or folders of a Hugging Face model. Models outside the folder of the graph are copied
    into it. Comments and layout of GRAPH are kept; a new one is created.
    """
    added = add_models(
        models,
        task=task,
        graph=graph,
        accuracy=accuracy,
        inputs=pairs("--input", inputs),
        samples={name: read_sample(text) for name, text in pairs("--sample", samples).items()} or None,
        files=files,
        parameters=pairs("--parameter", parameters),
        rename=pairs("--rename", rename),
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
