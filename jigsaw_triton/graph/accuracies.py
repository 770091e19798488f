"""Builds the labelled set and the measured accuracies of a graph from its document, and checks them."""

from collections.abc import Collection, Iterator
from pathlib import PurePath

from jigsaw_triton.graph.measured import METRICS, Combination, Labels, Metric
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.variants import Files, build_measured
from jigsaw_triton.spec.graph_schema import GraphSpec, LabelsEntry, MetricEntry
from jigsaw_triton.spec.source import Path, Report
from jigsaw_triton.spec.words import nearest, shown

LABELS: Path = ("spec", "labels")
COMBINATIONS: Path = ("spec", "combinations")

PYTHON = ".py"
ARRAYS = ".npz"


def build_labels(spec: GraphSpec, files: Files, report: Report) -> Labels | None:
    """Builds the labelled set of a graph, and reports mistakes in it. Its file need not exist."""
    entry = spec.labels
    if entry is None:
        return None
    if PurePath(entry.data).suffix not in (PYTHON, ARRAYS):
        hint = "save arrays with numpy.savez, or write a Python file with a function `examples`"
        report.add((*LABELS, "data"), f"{shown(entry.data)} is neither a .npz nor a .py file", hint)
    tasks: dict[str, Metric] = {}
    for name, metric in entry.tasks.items():
        path = (*LABELS, "tasks", name)
        task = spec.tasks.get(name)
        if task is None or not task.variants:
            known = [other for other, value in spec.tasks.items() if value.variants]
            message = "is a Python step" if task is not None else "does not exist"
            report.add(path, f"the task '{name}' {message}", nearest(name, known, "tasks of the graph"))
            continue
        tasks[name] = _metric(metric, entry, path, task.outputs, report)
    graph = None
    if entry.graph is not None:
        graph = _metric(entry.graph, entry, (*LABELS, "graph"), spec.outputs, report)
    return Labels(files.path(entry.data, (*LABELS, "data"), optional=True), tasks, graph)


def _metric(entry: MetricEntry, labels: LabelsEntry, path: Path, outputs: Collection[str], report: Report) -> Metric:
    if entry.metric not in METRICS:
        if PurePath(labels.data).suffix != PYTHON:
            hint = nearest(entry.metric, METRICS, "metrics") + "; only a Python file of labels can define others"
            report.add((*path, "metric"), f"there is no metric '{entry.metric}'", hint)
        elif entry.output is not None:
            hint = "remove it, because the function gets all outputs"
            report.add((*path, "output"), f"'{entry.metric}' is a function of {labels.data} and has no output", hint)
        return Metric(entry.metric)
    if entry.output is None:
        report.add(
            path, f"the metric '{entry.metric}' has no output", f"add, for example, output: {next(iter(outputs))}"
        )
    elif entry.output not in outputs:
        report.add((*path, "output"), f"there is no output '{entry.output}'", nearest(entry.output, outputs, "outputs"))
    return Metric(entry.metric, entry.output or "")


def build_combinations(spec: GraphSpec, report: Report) -> tuple[Combination, ...]:
    """Builds the measured combinations of variants, and reports mistakes in them."""
    built: dict[tuple[tuple[str, str], ...], Combination] = {}
    for index, entry in enumerate(spec.combinations):
        path = (*COMBINATIONS, index)
        known = len(entry.variants) > 1
        if not known:
            report.add(
                (*path, "variants"), "a combination has fewer than two variants", "name those of two tasks or more"
            )
        for task, variant in entry.variants.items():
            names = [v.name for v in spec.tasks[task].variants] if task in spec.tasks else []
            if not names:
                tasks = [other for other, value in spec.tasks.items() if value.variants]
                report.add((*path, "variants", task), f"there is no task '{task}'", nearest(task, tasks, "tasks"))
            elif variant not in names:
                hint = nearest(variant, names, "variants") + "; remove the combination if its variant is gone"
                report.add((*path, "variants", task), f"{task} has no variant '{variant}'", hint)
            known = known and variant in names
        measured = build_measured(entry.measured, entry.accuracy, path, report)
        key = tuple(sorted(entry.variants.items()))
        if key in built:
            report.add(path, "a combination of the same variants is above", "remove one of the two")
        elif known:
            built[key] = Combination(dict(entry.variants), entry.accuracy, measured)
    return tuple(built.values())


def mixed_accuracies(graph: TaskGraph) -> Iterator[str]:
    """Yields a sentence for each task whose variants' accuracies come from different measurements."""
    for task in graph.tasks.values():
        measured = {variant.name: variant.measured for variant in task.variants}
        ways = {found.how if found is not None else None for found in measured.values()}
        if len(ways) > 1:
            others = [name for name, found in measured.items() if found is None]
            which = f"those of {', '.join(others)} were not measured" if others else "the sets or metrics differ"
            yield (
                f"the accuracies of {task.name} may not be comparable: {which} like the others; "
                "`jigsaw-triton profile --accuracy` measures them"
            )
