"""`compile`: writes a plan's model repositories."""

from pathlib import Path

import click

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.files import (
    Mistakes,
    planned_cluster,
    read_cluster,
    read_graphs,
    read_plan,
    read_profile_tables,
)
from jigsaw_triton.cli.inputs.machine import Driver
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.progress import download_told
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.store import Identities, manifest, write_bundle
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.resources import templates_dir
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
    mistakes = Mistakes()
    found = read_graphs(graphs, mistakes, require_files=True)
    profiles = read_profile_tables(found, mistakes)
    with mistakes:
        plan = read_plan(plan_path)
        built = (
            planned_cluster(plan, driver)
            if gpus is None and cluster is None
            else read_cluster(out, mistakes, gpus=gpus, cluster=cluster, driver=driver)
        )
    mistakes.raise_if_any()
    assert built is not None
    bundle = compile_plan(
        plan,
        found,
        built,
        profiles,
        generation=generation,
        templates=load_templates(templates_dir()),
        backends=frozenset(backends) or _backends_here(out),
        identity=Identities(),
    )
    write_bundle(bundle, out_path)
    out.result({"folder": str(out_path), **manifest(bundle)}, _workers(bundle), _graphs(bundle), f"wrote {out_path}")


def _backends_here(out: Output) -> frozenset[str]:
    with out.working("looking for tritonserver") as tell:
        return find_installation(download_told(tell)).backends


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
