"""`jigsaw-triton compile`: writes the model repositories of a plan."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

import click

from jigsaw_triton.api.compiling import compile as compile_repositories
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.reporting import COMMAND_LINE, download_progress
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.store import manifest
from jigsaw_triton.servers.installation import find_installation


@options.command(
    "compile",
    examples=(
        "compile traffic/ --plan plan.json -O build/",
        "compile traffic/ --plan plan.json -O build/ --backend python --backend onnxruntime",
    ),
)
@options.graphs()
@options.option(
    "--plan",
    "plan_path",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Plan to compile, as written by `plan -O`.",
)
@options.out_file("Folder for the repositories: new, empty, or of an earlier compile.", required=True)
@options.cluster()
@options.option(
    "--backend",
    "backends",
    metavar="NAME",
    multiple=True,
    help="Backend of the servers that will load the models; may be repeated.  [default: the local tritonserver's]",
)
@options.option(
    "--generation",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number in the models' names. A plan that is loaded beside an older one needs a greater number.",
)
def command(
    out: Output,
    graphs: tuple[str, ...],
    plan_path: Path,
    out_path: Path,
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    backends: tuple[str, ...],
    generation: int,
) -> None:
    """Write the model repositories of a plan.

    The output has a folder for each worker, a folder for the gateway, and the routes of each task. The same input gives
    the same bytes. The GPUs are those of the plan, unless --gpus or --cluster names others.
    """
    bundle = compile_repositories(
        graphs,
        plan_path,
        out_path,
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        backends=backends or partial(_local_backends, out),
        generation=generation,
        reporter=out,
        wording=COMMAND_LINE,
    )
    out.result({"folder": str(out_path), **manifest(bundle)}, _workers(bundle), _graphs(bundle), f"wrote {out_path}")


def _local_backends(out: Output) -> Collection[str]:
    with out.working("looking for tritonserver") as report:
        return find_installation(download_progress(report)).backends


def _workers(bundle: Bundle) -> Table:
    rows = (
        (
            worker.name,
            worker.place.board if worker.place is not None else "",
            worker.place.placement.slice if worker.place is not None else "",
            model.name,
            model.instances,
            model.batch,
        )
        for worker in bundle.workers.values()
        for model in worker.models
    )
    return Table.of(("worker", "GPU", "slice", "model", "instances", "batch"), rows)


def _graphs(bundle: Bundle) -> Table:
    rows = ((name, graph.target, ", ".join(task.name for task in graph.tasks)) for name, graph in bundle.graphs.items())
    return Table.of(("graph", "compiled to", "tasks at the gateway"), rows)
