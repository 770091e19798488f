"""`jigsaw-triton variants`: makes variants of an ONNX model, and adds them to its task."""

from pathlib import Path

import click

from jigsaw_triton.api.files import shown_path
from jigsaw_triton.api.variants import DEFAULT_SCALE, KINDS_OF_VARIANTS, LEAST_AGREEMENT, Kind, make_variants
from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.cli.inputs.pairs import pairs
from jigsaw_triton.cli.inputs.samples import read_tensor
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.variants import variants_document, variants_view
from jigsaw_triton.models.agreement import Metric


@options.command(
    "variants",
    examples=(
        "variants app/models/resnet.onnx --graph app/",
        "variants resnet.onnx --graph app/ --kind int8 --samples X=images.npy",
        "variants resnet.onnx --graph app/ --kind resize --scale 0.75 --scale 0.5",
    ),
)
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@options.option(
    "--graph",
    default="graph.yaml",
    show_default=True,
    metavar="GRAPH",
    type=click.Path(path_type=Path),
    help="File that has the model, or its folder.",
)
@options.option("--task", metavar="NAME", help="Name the task, if several tasks have the model.")
@options.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS_OF_VARIANTS),
    help="Make variants of this kind; may be repeated.  [default: all]",
)
@options.option(
    "--scale",
    "scales",
    multiple=True,
    default=(DEFAULT_SCALE,),
    show_default=True,
    type=option_types.Number(min=0, max=1, min_open=True, max_open=True),
    metavar="S",
    help="Make images for 'resize' this high and wide, relative to those of the model; may be repeated.",
)
@options.option(
    "--samples",
    multiple=True,
    metavar="NAME=FILE",
    help="Compare on these inputs: a .npy file whose first dimension counts the items.  [default: random data]",
)
@options.option(
    "--metric",
    type=click.Choice(("top-1", "error")),
    help="Compare labels or largest scores, or all numbers.  [default: by the outputs]",
)
@options.option(
    "--min-agreement",
    default=LEAST_AGREEMENT,
    show_default=True,
    type=option_types.Number(min=0, max=1, min_open=True),
    metavar="A",
    help="Leave out variants that agree less with the model.",
)
@options.option("--overwrite", is_flag=True, help="Replace files that exist, without asking.")
def command(
    out: Output,
    model: Path,
    graph: Path,
    task: str | None,
    kinds: tuple[Kind, ...],
    scales: tuple[float, ...],
    samples: tuple[str, ...],
    metric: Metric | None,
    min_agreement: float,
    overwrite: bool,
) -> int:
    """Make variants of an ONNX model, and add them to its task.

    int8 quantises the weights, fp16 halves them, resize makes images smaller before the model sees them, and batch
    lifts the limit of a model that was exported for one batch size. Each variant is written beside the model. It is
    compared with the model, and its accuracy in GRAPH is that of the model times the agreement: an estimate, not a
    measurement.
    """

    def may_overwrite(path: Path) -> bool:
        return overwrite or (out.interactive and click.confirm(f"{shown_path(path)} exists. Replace it?", err=True))

    found = make_variants(
        model,
        graph=graph,
        task=task,
        kinds=kinds or KINDS_OF_VARIANTS,
        scales=scales,
        samples={name: read_tensor(text) for name, text in pairs("--samples", samples).items()} or None,
        metric=metric,
        least_agreement=min_agreement,
        overwrite=may_overwrite,
        progress=out.note,
    )
    if found.items == "random data" and found.made:
        out.warn("the variants were compared on random data, which says little about real inputs; give --samples")
    for variant in found.not_made:
        out.note(f"no {variant.kind}: {variant.reason}")
    out.result(variants_document(found), *variants_view(found))
    return 0 if found.made or any(variant.present for variant in found.not_made) else 1
