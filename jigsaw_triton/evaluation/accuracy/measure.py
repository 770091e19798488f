"""Measures variants task by task, and combinations of variants end to end.

A task gets its inputs from the labels where the labelled set has them, else from the most accurate variants upstream.
End to end, every task gets what the combination's own variants make.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from jigsaw_triton.compiler.worker_config import EMULATED
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.accuracy.estimate import Estimate, estimate
from jigsaw_triton.evaluation.accuracy.labels import LabelledSet, Request, scored
from jigsaw_triton.evaluation.accuracy.metrics import BUILT_IN, Score, same
from jigsaw_triton.evaluation.accuracy.running import Answers, Runner, gathered, stepped
from jigsaw_triton.evaluation.profiling.tensors import Tensors, sample_inputs
from jigsaw_triton.graph.measured import Measured, Metric
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, TensorRef
from jigsaw_triton.runtime.dtypes import Array

AGREEMENT = "agreement"
"""Name of the share of calls that a variant answers like the best one. It is no accuracy."""

SAMPLE = "sample"
"""Name of the set that consists of the graph's sample."""

Variants = Mapping[str, Sequence[str]]
"""Task -> names of variants."""

Combinations = Sequence[Mapping[str, str]]
"""Combinations of variants, each a mapping from tasks to their variants."""

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """Measured accuracy, or agreement.

    Attributes:
        variants: Task -> its variant: one task, or several that were measured together, end to end.
        metric: Name of the metric; `AGREEMENT` if there are no labels.
        data: Name of the labelled set.
        estimate: The figure with its confidence interval.
        best: Variant whose answers are the reference of an agreement; empty for an accuracy.
    """

    variants: Mapping[str, str]
    metric: str
    data: str
    estimate: Estimate
    best: str = ""

    @property
    def name(self) -> str:
        """Tasks and variants as messages name them."""
        return ", ".join(f"{task} {variant}" for task, variant in self.variants.items())

    @property
    def measured(self) -> Measured:
        """Description of the measurement, with rounded figures. Like an accuracy, its interval is not below 0."""
        low, high = max(0.0, round(self.estimate.low, 4)), round(self.estimate.high, 4)
        return Measured(self.metric, self.data, self.estimate.n, low, high)

    @property
    def value(self) -> float:
        """The rounded figure."""
        return round(self.estimate.value, 4)


def sample_set(graph: TaskGraph) -> LabelledSet:
    """Returns the graph's sample as a set of one request without labels.

    Raises:
        InputError: An input has no sample, or a wrong one.
    """
    inputs = sample_inputs(graph)
    missing = [name for name in graph.inputs if name not in {ref.name for ref in inputs}]
    if missing:
        hint = "add spec.labels with a labelled set, or spec.sample with real requests to compare answers"
        raise InputError(f"there is nothing to measure on: no labels, and no sample of {missing[0]}", hint=hint)
    return LabelledSet(SAMPLE, [Request(inputs, {})])


class AccuracyMeter:
    """Measures accuracies of one graph.

    Args:
        graph: The graph.
        data: Labelled set to measure on.
        runner: Runs the variants.
        progress: Receives a description of each step.
    """

    def __init__(self, graph: TaskGraph, data: LabelledSet, runner: Runner, progress: Notify) -> None:
        self._graph, self._data, self._runner, self._progress = graph, data, runner, progress
        every = [request.labels.keys() for request in data.requests]
        self._labelled = set(every[0]).intersection(*every)

    async def variants(self, names: Variants) -> AsyncIterator[Result]:
        """Measures variants, task by task in the order of the graph.

        A task without a metric gets the agreement of its variants with the best one.

        Args:
            names: Variants to measure.
        """
        graph, needed = self._graph, self._needed(names)
        metrics = graph.labels.tasks if graph.labels is not None else {}
        requests: list[dict[TensorRef, Array]] = [dict(request.inputs) for request in self._data.requests]
        for node in graph.in_order():
            if node.name not in needed and node.name not in names:
                continue
            seen = self._with_labels(node, requests)
            if isinstance(node, PythonStep):
                _extend(requests, stepped(graph, node, seen))
                continue
            chosen, metric = names.get(node.name, ()), metrics.get(node.name)
            accuracies = self._comparable(node, metric)
            ran: dict[str, list[Answers]] = {}
            if metric is not None:
                for name in chosen:
                    answers = await self._run(node, name, seen)
                    result = self._accuracy(node, name, metric, seen, answers)
                    accuracies[name] = result.estimate.value
                    if not ran or accuracies[name] > accuracies[next(iter(ran))]:
                        ran = {name: answers}
                    yield result
            best = best_variant(node, accuracies)
            if best not in ran and (node.name in needed or (metric is None and len(chosen) > 1)):
                ran = {best: await self._run(node, best, seen)}
            if metric is None:
                for name in chosen:
                    if name != best:
                        yield self._agreement(node, name, best, await self._run(node, name, seen), ran[best])
            if node.name in needed:
                _extend(requests, [gathered(graph, node, answers) for answers in ran[best]])

    def _comparable(self, task: Task, metric: Metric | None) -> dict[str, float]:
        """Returns the accuracies that graph.yaml has by this metric on this set; others may be in another unit."""
        how = (metric.name, self._data.name, len(self._data.requests)) if metric is not None else None
        return {v.name: v.accuracy for v in task.variants if v.measured is not None and v.measured.how == how}

    async def _run(self, task: Task, name: str, requests: Sequence[Tensors]) -> list[Answers]:
        self._progress(f"running {task.name} {name} on {len(requests)} requests of {self._data.name}")
        return await self._runner.answers(task, name, requests)

    async def combinations(self, wanted: Combinations, metric: Metric) -> AsyncIterator[Result]:
        """Measures combinations of variants end to end; their other tasks use their best variants.

        Args:
            wanted: Combinations to measure.
            metric: Metric of the accuracy end to end.
        """
        graph = self._graph
        ref = graph.outputs[metric.output] if metric.output else None
        others = {name: best_variant(task) for name, task in graph.tasks.items() if any(name not in w for w in wanted)}
        start: list[dict[TensorRef, Array]] = [dict(request.inputs) for request in self._data.requests]
        complete = [({**others, **combination}, combination) for combination in wanted]
        async for combination, tensors in self._every(tuple(graph.in_order()), complete, start):
            scores = [self._score(metric, ref, found, at) for at, found in enumerate(tensors)]
            yield Result(combination, metric.name, self._data.name, self._estimated(scores, "spec.labels.graph"))

    async def _every(
        self,
        nodes: Sequence[Task | PythonStep],
        wanted: Sequence[tuple[Mapping[str, str], Mapping[str, str]]],
        requests: Sequence[dict[TensorRef, Array]],
    ) -> AsyncIterator[tuple[Mapping[str, str], Sequence[Tensors]]]:
        """Yields each combination with the tensors of all requests. Variants that combinations begin with run once.

        Args:
            nodes: Nodes that have not run yet.
            wanted: Variants of all tasks, and the combination that they belong to; equal up to the first of `nodes`.
            requests: Tensors of each request so far.
        """
        if not nodes:
            for _, combination in wanted:
                yield combination, requests
            return
        node, rest = nodes[0], nodes[1:]
        names = ("",) if isinstance(node, PythonStep) else dict.fromkeys(every[node.name] for every, _ in wanted)
        for name in names:
            if isinstance(node, PythonStep):
                made, further = stepped(self._graph, node, requests), wanted
            else:
                made = [gathered(self._graph, node, found) for found in await self._run(node, name, requests)]
                further = [(every, combination) for every, combination in wanted if every[node.name] == name]
            merged = [{**tensors, **more} for tensors, more in zip(requests, made, strict=True)]
            async for found in self._every(rest, further, merged):
                yield found

    def _accuracy(
        self, task: Task, name: str, metric: Metric, seen: Sequence[Tensors], answers: Sequence[Answers]
    ) -> Result:
        ref = TensorRef(task.name, metric.output) if metric.output else None
        tensors = [{**before, **gathered(self._graph, task, made)} for before, made in zip(seen, answers, strict=True)]
        scores = [self._score(metric, ref, found, at) for at, found in enumerate(tensors)]
        return Result(
            {task.name: name}, metric.name, self._data.name, self._estimated(scores, f"spec.labels.tasks.{task.name}")
        )

    def _agreement(
        self, task: Task, name: str, reference: str, answers: Sequence[Answers], best: Sequence[Answers]
    ) -> Result:
        scores = [
            Score(sum(same(mine, theirs) for mine, theirs in zip(one, other, strict=True)), len(other))
            for one, other in zip(answers, best, strict=True)
        ]
        return Result({task.name: name}, AGREEMENT, self._data.name, self._estimated(scores, task.name), reference)

    def _score(self, metric: Metric, ref: TensorRef | None, found: Tensors, at: int) -> Score:
        labels = self._data.requests[at].labels
        if ref is None:
            assert self._graph.labels is not None
            tensors = {str(name): array for name, array in found.items()}
            return scored(self._data.functions[metric.name], self._graph.labels.file, tensors, labels)
        if str(ref) not in labels:
            hint = "add the right values, or remove the metric"
            raise InputError(f"the labels have no {ref}", where=f"{self._data.name}, request {at + 1}", hint=hint)
        answer, label = found[ref], labels[str(ref)]
        if self._graph.type_of(ref).shape[0] != -1:  # The whole tensor is one row.
            answer, label = answer[None], label[None]
        return BUILT_IN[metric.name](answer, label)

    def _estimated(self, scores: Sequence[Score], where: str) -> Estimate:
        try:
            return estimate(scores)
        except ValueError as error:
            raise InputError(f"the metric counts nothing: {error}", where=where, hint="check the labels") from error

    def _needed(self, names: Variants) -> set[str]:
        """Returns the nodes that must run to make inputs that are not among the labels."""
        graph, found = self._graph, set[str]()
        waiting = list(names)
        while waiting:
            node = graph.steps.get(waiting[0]) or graph.tasks[waiting[0]]
            del waiting[0]
            makers = {ref.task for ref in consumed(node) if not ref.is_graph_input and str(ref) not in self._labelled}
            waiting += makers - found
            found |= makers
        return found

    def _with_labels(self, node: Task | PythonStep, requests: Sequence[Tensors]) -> list[dict[TensorRef, Array]]:
        """Returns the tensors of each request, with labels in place of those that the node consumes."""
        given = [ref for ref in consumed(node) if str(ref) in self._labelled]
        return [
            {**tensors, **{ref: request.labels[str(ref)] for ref in given}}
            for tensors, request in zip(requests, self._data.requests, strict=True)
        ]


def consumed(node: Task | PythonStep) -> set[TensorRef]:
    """Returns the tensors that a node needs before it can run."""
    refs = set(node.inputs.values())
    if isinstance(node, Task):
        refs |= {node.for_each} if node.for_each is not None else set()
        refs |= {node.when.tensor} if node.when is not None else set()
    return refs


def best_variant(task: Task, accuracies: Mapping[str, float] | None = None) -> str:
    """Returns the most accurate variant with a model; the first of equals.

    Args:
        task: The task.
        accuracies: Variant -> its accuracy, for the variants to choose from; those of the graph if it is empty.

    Raises:
        InputError: All variants are emulated.
    """
    figures = accuracies or {v.name: v.accuracy for v in task.variants}
    real = [v.name for v in task.variants if v.template != EMULATED and v.name in figures]
    if not real:
        hint = "add a variant with a model, or labels of its outputs"
        raise InputError("all variants are emulated, so later tasks have no input", where=task.name, hint=hint)
    return max(real, key=lambda name: figures[name])


def neighbours(graph: TaskGraph, names: Variants) -> list[tuple[str, str]]:
    """Returns the pairs of tasks with several of these variants, of which one uses the outputs of the other.

    Tasks with one variant may lie between them.
    """
    several = [task for task in graph.tasks if len(names.get(task, ())) > 1]
    pairs = []
    for later in several:
        waiting, seen = list(graph.before(graph.tasks[later])), set[str]()
        while waiting:
            name = waiting.pop()
            if name in several:
                pairs.append((name, later))
            elif name not in seen:
                waiting += graph.before(graph.tasks[name])
            seen.add(name)
    return sorted(set(pairs))


def _extend(requests: Sequence[dict[TensorRef, Array]], made: Sequence[Tensors]) -> None:
    for tensors, more in zip(requests, made, strict=True):
        tensors.update(more)
