"""`jigsaw-triton profile --accuracy`: measures accuracies on the labelled set, and writes them into graph.yaml."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from jigsaw_triton.api.accuracies import (
    BATCH,
    INSTANCES,
    check_writable,
    find_accuracies,
    is_writable,
    plan_work,
)
from jigsaw_triton.api.files import shown_path
from jigsaw_triton.api.graph_changes import GRAPH_FILE
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.accuracies import accuracies_document, accuracies_view
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.accuracy.measure import SAMPLE, Variants
from jigsaw_triton.evaluation.accuracy.results import Result, Unmeasured
from jigsaw_triton.evaluation.accuracy.running import Serving
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.design import size
from jigsaw_triton.profiles.table import ProfileKey
from jigsaw_triton.spec.files import STDIN

_FAILED = 1


def accuracy_serving(keys: Sequence[ProfileKey]) -> Serving:
    """Returns how models are served for their accuracies: on the largest of the slices, which all of them fit.

    Args:
        keys: Configurations that the options of the command allow.
    """
    instances, batch = max(key.instances for key in keys), max(key.batch for key in keys)
    largest = max(keys, key=lambda key: size((key.slice, 1, 1)))
    return Serving(largest.slice, min(instances, INSTANCES), min(batch, BATCH))


def measure_accuracies(
    out: Output,
    source: str,
    graph: TaskGraph,
    cluster: Cluster,
    gpu: Gpu,
    names: Variants,
    serving: Serving,
    *,
    pairs: bool,
    limit: int | None,
    again: bool,
) -> int | None:
    """Measures, writes and prints the accuracies of a graph's variants, or of pairs of them.

    Returns the exit status.

    Args:
        out: Output of the command.
        source: Path of the graph.yaml or of its folder.
        graph: The graph.
        cluster: Cluster with the GPU.
        gpu: GPU to run the models on.
        names: Task -> variants to measure.
        serving: Configuration of each model.
        pairs: True to measure the variants of two tasks together, end to end.
        limit: Number of requests of the labelled set to use; None for all.
        again: True to measure what the file has already.
    """
    if source == STDIN:
        raise InputError("accuracies cannot be written to standard input", where="GRAPH", hint="give a file")
    file = Path(source) / GRAPH_FILE if Path(source).is_dir() else Path(source)
    with out.working("reading the labelled set"):
        work = plan_work(graph, names, pairs=pairs, limit=limit, again=again)
    if work.data.name != SAMPLE:
        check_writable(file)
    results: list[Result] = []
    failed: list[Unmeasured] = []

    def on_found(found: Result | Unmeasured) -> None:
        if isinstance(found, Result):
            results.append(found)
            return
        failed.append(found)
        out.warn(f"{found.name} failed: {found.failure.reason}")
        if found.failure.log:
            out.note(found.failure.log)

    if work.figures:
        try:
            with out.working("looking for tritonserver") as report:

                def progress(text: str) -> None:
                    report(f"{text} ({len(results) + len(failed)} of {work.figures} done)")

                asyncio.run(find_accuracies(graph, work, cluster, gpu, serving, file, progress, on_found))
        except KeyboardInterrupt:
            out.note(
                f"interrupted; {shown_path(file)} has the accuracies that were measured until then, {len(results)}"
            )
            raise
    for result in results:
        if not is_writable(result):
            out.warn(
                f"{result.name} has the accuracy {result.value:g}, which graph.yaml cannot have: it is not written"
            )
    out.result(accuracies_document(file, work, results, failed), *accuracies_view(file, graph, work, results, failed))
    return _FAILED if failed else None
