"""`jigsaw-triton validate`: checks graphs, the profiles beside them, and a cluster."""

import json
from collections.abc import Mapping
from typing import get_args

import click

from jigsaw_triton.api.checking import models_of
from jigsaw_triton.api.files import Mistakes, missing_files, read_cluster, read_graphs_and_lines, shown_path
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.profile_files import PROFILES_FILE, ReadTable, check_processes, read_profiles_and_lines
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output, View
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.graph import graph_document
from jigsaw_triton.compiler.ensemble import check_target
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.graph.draw import slo_words
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import installed_backends
from jigsaw_triton.servers.runner_packages import described, install_command, missing_packages
from jigsaw_triton.spec.json_schema import Kind, json_schema


@options.command(
    "validate",
    examples=(
        "validate traffic/",
        "validate traffic/ faces/ --cluster cluster.yaml",
        "validate --schema graph > graph.schema.json",
    ),
)
@options.graphs(required=False)
@options.cluster()
@options.option("--no-models", is_flag=True, help="Do not run the models; their files are still read.")
@options.option(
    "--schema",
    type=click.Choice(get_args(Kind)),
    help="Print the JSON Schema of this file, for editors.",
)
def command(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    no_models: bool,
    schema: Kind | None,
) -> None:
    """Check graphs, profiles and clusters.

    Every mistake is reported with file, line and a correction. A profiles.csv beside a graph is checked too, and so is
    the cluster of --gpus or --cluster. Model files may still be missing. Those that exist are compared with the graph,
    and each model is run on a sample, or on random data without one, in a process of its own.
    """
    if schema is not None:
        out.raw(json.dumps(json_schema(schema), indent=2) + "\n")
        return
    if not graphs and gpus is None and cluster is None:
        raise click.UsageError("Missing argument 'GRAPH...'.")
    mistakes = Mistakes()
    read = read_graphs_and_lines(graphs, mistakes)
    found = {name: graph for name, (graph, _) in read.items()}
    for graph in found.values():
        with mistakes:
            check_target(graph)
    profiled = {name: graph for name, graph in found.items() if (graph.folder / PROFILES_FILE).exists()}
    tables = read_profiles_and_lines(profiled, mistakes)
    built = None
    if gpus is not None or cluster is not None:
        built = read_cluster(mistakes, gpus=gpus, cluster=cluster, driver=driver, reporter=out, wording=COMMAND_LINE)
    if built is not None:
        check_processes(found, tables, built, mistakes)
    notes = {}
    for name, (graph, lines) in read.items():
        with mistakes:
            notes[name] = models_of(graph, lines, run=not no_models)
    mistakes.raise_if_any()
    for name, texts in notes.items():
        for text in texts:
            out.warn(f"{name}: {text}")
    missing = {name: missing_files(graph) for name, graph in found.items()}
    for name, files in missing.items():
        if files:
            folder = shown_path(found[name].folder)
            out.warn(f"{name}: {len(files)} model files are missing; `jigsaw-triton fetch {folder}` fetches them")
    packages = _missing_packages(found, out) if built is None or built.image is None else {}
    data = {
        "graphs": {
            name: {
                **graph_document(graph),
                "folder": str(graph.folder),
                "profiles": len(tables[name].table) if name in tables else None,
                "missing_files": missing[name],
                "missing_packages": packages.get(name, []),
                "model_notes": notes[name],
            }
            for name, graph in found.items()
        },
        "gpus": len(built.gpus) if built is not None else None,
    }
    gpu_words = [f"cluster: {len(built.gpus)} GPUs, driver {built.driver}"] if built is not None else []
    out.result(data, *_graphs_view(found, tables), *gpu_words, "no mistakes")


def _missing_packages(graphs: Mapping[str, TaskGraph], out: Output) -> dict[str, list[str]]:
    """Returns the Python packages that each graph lacks on this machine, with a warning for each."""
    templates, backends = load_templates(templates_dir()), installed_backends()
    missing = {name: missing_packages(graph, templates, backends) for name, graph in graphs.items()}
    for name, packages in missing.items():
        for package, variant in packages.items():
            needed = f"{variant} needs the Python package {described(package)}"
            out.warn(f"{name}: {needed} to be deployed from here; `{install_command(package)}` installs it")
    return {name: list(packages) for name, packages in missing.items()}


def _graphs_view(graphs: Mapping[str, TaskGraph], tables: Mapping[str, ReadTable]) -> list[View]:
    """Returns the table of the graphs; nothing without any."""
    rows = (
        (
            name,
            f"{len(graph.tasks)} and {len(graph.steps)} Python steps" if graph.steps else len(graph.tasks),
            sum(len(task.variants) for task in graph.tasks.values()),
            len(tables[name].table) if name in tables else "none",
            slo_words(graph),
        )
        for name, graph in graphs.items()
    )
    return [Table.of(("graph", "tasks", "variants", "profiles", "SLO"), rows)] if graphs else []
