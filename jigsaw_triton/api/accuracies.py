"""Measuring the accuracies of a graph's variants, and writing them into its graph.yaml."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jigsaw_triton.api.file_changes import writing
from jigsaw_triton.api.files import Mistakes, PathLike, read_cluster, read_graphs
from jigsaw_triton.api.graph_changes import GRAPH_FILE
from jigsaw_triton.api.machine import THIS_PROCESSOR, Driver
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording, download_progress
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.accuracy.labels import LabelledSet, read_labels
from jigsaw_triton.evaluation.accuracy.measure import (
    SAMPLE,
    AccuracyMeter,
    Combinations,
    Variants,
    neighbours,
    sample_set,
)
from jigsaw_triton.evaluation.accuracy.results import Result, Unmeasured
from jigsaw_triton.evaluation.accuracy.running import Runner, Serving
from jigsaw_triton.evaluation.profiling.points import chosen, measurable
from jigsaw_triton.evaluation.profiling.workers import profiling_workers
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph.document import combination_entry, measured_entry
from jigsaw_triton.graph.measured import Combination, Measured, Metric
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.design import size
from jigsaw_triton.profiles.read import LIMIT_COUNT
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import Installation, find_installation
from jigsaw_triton.spec.files import load_text, replace_text
from jigsaw_triton.spec.source import Path as Entry
from jigsaw_triton.spec.yaml_editor import with_value
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES, parse_yaml

INSTANCES, BATCH = 2, 8
"""Most instances, and largest batch, of a model whose accuracy is measured: larger ones take memory and are hardly
faster. A convention."""

_TASKS: Entry = ("spec", "tasks")
_COMBINATIONS: Entry = ("spec", "combinations")


@dataclass(frozen=True, slots=True)
class Work:
    """Accuracies to measure.

    Attributes:
        data: Labelled set, or the sample.
        variants: Task -> variants to measure one by one.
        combinations: Combinations of variants to measure end to end.
        metric: Metric of the combinations; None if there are none.
    """

    data: LabelledSet
    variants: Variants = field(default_factory=dict)
    combinations: Combinations = ()
    metric: Metric | None = None

    @property
    def figures(self) -> int:
        """Number of accuracies to measure."""
        return len(self.combinations) + sum(map(len, self.variants.values()))


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Outcome of a measurement of accuracies.

    Attributes:
        measured: Accuracies, and agreements where there is no metric.
        failed: Variants or combinations that could not be measured.
    """

    measured: tuple[Result, ...]
    failed: tuple[Unmeasured, ...]


def measure_accuracies(
    graph: PathLike,
    *,
    tasks: Collection[str] = (),
    variants: Collection[str] = (),
    pairs: bool = False,
    requests: int | None = None,
    again: bool = False,
    write: bool = False,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    instances: int = INSTANCES,
    batch: int = BATCH,
    progress: Callable[[str], None] = lambda _: None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> Accuracies:
    """Measures the accuracies of a graph's variants on live tritonservers, over the labelled set that the graph names.

    Without labels, it measures how often each variant agrees with the best one. Variants whose accuracy the graph.yaml
    has from the same set, metric and number of requests are left out. It must not be called from an event loop; use
    `asyncio.to_thread` there.

    Args:
        graph: Path of a graph.yaml or of its folder.
        tasks: Names of tasks; empty for all tasks.
        variants: Names of variants; empty for all variants of the tasks.
        pairs: True to measure the variants of two tasks together, end to end.
        requests: Number of requests of the labelled set to use; None for all.
        again: True to measure what the graph.yaml has, too.
        write: True to write each accuracy into the graph.yaml as soon as it is measured. Agreements are not written.
        gpus: GPUs of this machine, such as `1xA100-80GB`; by default its processor.
        cluster: A cluster, or the path of a cluster.yaml or its folder, in place of `gpus`.
        driver: MIG driver, instead of the one of the cluster.
        instances: Triton instances of each model.
        batch: Largest batch of each model.
        progress: Function that receives a description of each step.
        reporter: Recipient of warnings; by default the logger `jigsaw_triton`.
        wording: Form in which mistakes name an option.

    Raises:
        InputError: An argument, the graph or its labels have mistakes, or the file cannot be written.
        ServerError: The tritonservers do not start.
    """
    mistakes = Mistakes()
    file = Path(graph) / GRAPH_FILE if Path(graph).is_dir() else Path(graph)
    graphs = read_graphs([graph], mistakes, require_files=True)
    gpus = gpus or (THIS_PROCESSOR if cluster is None else None)
    built = read_cluster(mistakes, gpus=gpus, cluster=cluster, driver=driver, reporter=reporter, wording=wording)
    for name, number in (("instances", instances), ("batch", batch)):
        if not 1 <= number <= LIMIT_COUNT:
            mistakes.add(wording.name(name), f"{number} is out of range", f"give a number from 1 to {LIMIT_COUNT}")
    if requests is not None and requests < 1:
        mistakes.add(wording.name("requests"), f"{requests} is out of range", "give a number from 1, or None for all")
    mistakes.raise_if_any()
    assert built is not None
    (of,) = graphs.values()
    work = plan_work(of, chosen(of, tasks, variants), pairs=pairs, limit=requests, again=again)
    if write and work.data.name != SAMPLE:
        check_writable(file)
    gpu = next(iter(measurable(built).values()))
    serving = Serving(max(gpu.board.profiles, key=lambda kind: size((kind, 1, 1))), instances, batch)
    measured: list[Result] = []
    failed: list[Unmeasured] = []

    def on_found(found: Result | Unmeasured) -> None:
        if isinstance(found, Unmeasured):
            failed.append(found)
            return
        measured.append(found)
        if write and not is_writable(found):
            reporter.warn(f"{found.name} has the accuracy {found.value:g}, which graph.yaml cannot have")

    if work.figures:
        target = file if write else None
        asyncio.run(find_accuracies(of, work, built, gpu, serving, target, progress, on_found))
    return Accuracies(tuple(measured), tuple(failed))


def plan_work(
    graph: TaskGraph, names: Variants, *, pairs: bool = False, limit: int | None = None, again: bool = False
) -> Work:
    """Returns the accuracies to measure: by default, those that graph.yaml does not have from this labelled set.

    Args:
        graph: The graph.
        names: Task -> variants that the user chose.
        pairs: True for combinations of variants, False for single variants.
        limit: Number of requests to measure on; None for all.
        again: True to measure what the file has, too.

    Raises:
        InputError: There are no labels that this needs, or they have mistakes.
    """
    labels = graph.labels
    if not pairs:
        data = read_labels(graph, labels, limit) if labels is not None else sample_set(graph)
        n = len(data.requests)
        metrics = labels.tasks if labels is not None else {}
        return Work(
            data,
            {
                task: tuple(
                    name
                    for name in variants
                    if again
                    or task not in metrics
                    or not _is_known(graph.tasks[task].variant(name).measured, metrics[task], data.name, n)
                )
                for task, variants in names.items()
                if task in metrics or len(graph.tasks[task].variants) > 1
            },
        )
    if labels is None or labels.graph is None:
        hint = "add, for example, graph: {metric: exact, output: LABEL} to spec.labels"
        raise InputError("there is no metric of the accuracy end to end", where=graph.name, hint=hint)
    data = read_labels(graph, labels, limit)
    found = neighbours(graph, names)
    if not found:
        hint = "pairs are of two tasks with several variants, one of which uses the outputs of the other"
        raise InputError("there is no pair of tasks to measure", where=graph.name, hint=hint)
    known = [
        combination.variants
        for combination in graph.combinations
        if not again and _is_known(combination.measured, labels.graph, data.name, len(data.requests))
    ]
    every = [{first: one, second: other} for first, second in found for one in names[first] for other in names[second]]
    return Work(data, {}, [pair for pair in every if pair not in known], labels.graph)


def _is_known(measured: Measured | None, metric: Metric, data: str, n: int) -> bool:
    return measured is not None and measured.how == (metric.name, data, n)


async def find_accuracies(
    graph: TaskGraph,
    work: Work,
    cluster: Cluster,
    gpu: Gpu,
    serving: Serving,
    file: Path | None,
    progress: Callable[[str], None],
    on_found: Callable[[Result | Unmeasured], None],
) -> None:
    """Measures the accuracies of variants or of combinations on live tritonservers, and writes each at once.

    Args:
        graph: The graph.
        work: Accuracies to measure.
        cluster: Cluster with the GPU.
        gpu: GPU to run the models on.
        serving: Configuration of each model.
        file: The graph.yaml to write accuracies into; None to write none.
        progress: Function that receives a description of each step.
        on_found: Function that receives each accuracy, after it is written, or why there is none.
    """
    progress("looking for tritonserver")
    installation = find_installation(download_progress(progress))
    progress("starting tritonserver")
    async for found in measured_accuracies(graph, work, cluster, gpu, installation, serving, progress):
        if file is not None and isinstance(found, Result) and not found.best:
            write_accuracy(file, found)
        on_found(found)


async def measured_accuracies(
    graph: TaskGraph,
    work: Work,
    cluster: Cluster,
    gpu: Gpu,
    installation: Installation,
    serving: Serving,
    progress: Callable[[str], None],
) -> AsyncIterator[Result | Unmeasured]:
    """Yields the accuracies of variants or of combinations, measured on live tritonservers, or why there are none."""
    async with profiling_workers(installation, cluster, gpu) as workers:
        runner = Runner(graph, workers, load_templates(templates_dir()), serving)
        meter = AccuracyMeter(graph, work.data, runner, progress)
        async for result in meter.variants(work.variants):
            yield result
        if work.metric is not None and work.combinations:
            async for result in meter.combinations(work.combinations, work.metric):
                yield result


def check_writable(file: Path) -> None:
    """Checks that a graph.yaml can be replaced, before something is measured for it.

    Raises:
        InputError: The file cannot be replaced.
    """
    with writing(file):
        replace_text(file, load_text(file, limit_bytes=LIMIT_BYTES))


def is_writable(result: Result) -> bool:
    """Returns True if a graph.yaml can have the accuracy, which must be above 0."""
    return result.value > 0


def write_accuracy(file: Path, result: Result) -> None:
    """Writes an accuracy into a graph.yaml, whose comments and layout are kept, unless no graph.yaml can have it.

    Args:
        file: The graph.yaml.
        result: Accuracy of a variant or of a combination, no agreement.

    Raises:
        InputError: The file cannot be written, or its layout does not allow it.
    """
    if not is_writable(result):
        return
    text = load_text(file, limit_bytes=LIMIT_BYTES)
    try:
        for path, value in _edits(parse_yaml(text, str(file)).data, result):
            text = with_value(text, path, value)
    except (ValueError, KeyError, StopIteration) as error:
        hint = f"write it by hand: accuracy: {result.value:g}"
        raise InputError(f"the accuracy cannot be written ({error})", where=str(file), hint=hint) from error
    with writing(file):
        replace_text(file, text)


def _edits(document: Any, result: Result) -> list[tuple[Entry, Any]]:
    """Returns the entries of a graph.yaml that a result changes, with their values."""
    spec = document["spec"]
    if len(result.variants) > 1:
        items = spec.get("combinations", [])
        entry = combination_entry(Combination(result.variants, result.value, result.measured))
        if not items:
            return [(_COMBINATIONS, [entry])]
        at = next((i for i, item in enumerate(items) if item["variants"] == result.variants), len(items))
        return [((*_COMBINATIONS, at), entry)]
    ((task, variant),) = result.variants.items()
    at = next(i for i, item in enumerate(spec["tasks"][task]["variants"]) if item["name"] == variant)
    holder: Entry = (*_TASKS, task, "variants", at)
    return [((*holder, "accuracy"), result.value), ((*holder, "measured"), measured_entry(result.measured))]
