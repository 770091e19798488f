"""Measures variants task by task, and combinations of variants end to end.

A task gets its inputs from the labels where the labelled set has them, else from the most accurate variants upstream.
End to end, every task gets what the combination's own variants make.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType

from jigsaw_triton.compiler.worker_config import EMULATED
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.accuracy.estimate import Estimate, estimate
from jigsaw_triton.evaluation.accuracy.labels import LabelledSet, Request, scored
from jigsaw_triton.evaluation.accuracy.metrics import BUILT_IN, Score, same
from jigsaw_triton.evaluation.accuracy.results import AGREEMENT, Result, Unmeasured
from jigsaw_triton.evaluation.accuracy.running import Answers, Failure, Runner, gathered, stepped
from jigsaw_triton.evaluation.profiling.tensors import Tensors, sample_inputs
from jigsaw_triton.graph.measured import Metric
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.runtime.dtypes import Array

SAMPLE = "sample"
"""Name of the set that consists of the graph's sample."""

Variants = Mapping[str, Sequence[str]]
"""Task -> names of variants."""

Combinations = Sequence[Mapping[str, str]]
"""Combinations of variants, each a mapping from tasks to their variants."""

Notify = Callable[[str], None]


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
        runner: Runner of the variants.
        progress: Function that receives a description of each step.
    """

    def __init__(self, graph: TaskGraph, data: LabelledSet, runner: Runner, progress: Notify) -> None:
        self._graph, self._data, self._runner, self._progress = graph, data, runner, progress
        every = [request.labels.keys() for request in data.requests]
        self._labelled = set(every[0]).intersection(*every)

    async def variants(self, names: Variants) -> AsyncIterator[Result | Unmeasured]:
        """Measures variants, task by task in the order of the graph.

        A task without a metric gets the agreement of its variants with the best one. A variant that fails is reported
        as such, also one that only makes input for a later task. So are variants of later tasks that would have no
        input; the others are measured.

        Args:
            names: Variants to measure.
        """
        graph, needed = self._graph, self._needed(names)
        metrics = graph.labels.tasks if graph.labels is not None else {}
        requests: list[dict[TensorRef, Array]] = [dict(request.inputs) for request in self._data.requests]
        absent: set[str] = set()
        for node in graph.in_order():
            if node.name not in needed and node.name not in names:
                continue
            if lacking := sorted(self._makers(node) & absent):
                absent.add(node.name)
                failure = Failure(f"{node.name} has no input, because {lacking[0]} does not work")
                for name in names.get(node.name, ()):
                    yield Unmeasured({node.name: name}, failure)
                continue
            seen = self._with_labels(node, requests)
            if isinstance(node, PythonStep):
                _extend(requests, stepped(graph, node, seen))
                continue
            chosen, metric = names.get(node.name, ()), metrics.get(node.name)
            accuracies = self._comparable(node, metric)
            ran: dict[str, list[Answers]] = {}
            failed: dict[str, Failure] = {}
            if metric is not None:
                for name in chosen:
                    answers = await self._run(node, name, seen)
                    if isinstance(answers, Failure):
                        failed[name] = answers
                        continue
                    result = self._accuracy(node, name, metric, seen, answers)
                    accuracies[name] = result.estimate.value
                    if not ran or accuracies[name] > accuracies[next(iter(ran))]:
                        ran = {name: answers}
                    yield result
            best = None
            if node.name in needed or (metric is None and len(chosen) > 1):
                best = await self._best(node, accuracies, seen, ran, failed)
            if metric is None and best is not None:
                for name in (name for name in chosen if name != best and name not in failed):
                    answers = await self._run(node, name, seen)
                    if isinstance(answers, Failure):
                        failed[name] = answers
                    else:
                        yield self._agreement(node, name, best, answers, ran[best])
            for name, failure in failed.items():
                yield Unmeasured({node.name: name}, failure)
            if node.name in needed and best is not None:
                _extend(requests, [gathered(graph, node, answers) for answers in ran[best]])
            elif node.name in needed:
                absent.add(node.name)

    async def _best(
        self,
        task: Task,
        accuracies: Mapping[str, float],
        seen: Sequence[Tensors],
        ran: dict[str, list[Answers]],
        failed: dict[str, Failure],
    ) -> str | None:
        """Returns the most accurate variant that works, whose answers are then in `ran`; None if none works."""
        for name in ranked_variants(task, accuracies):
            if name in ran:
                return name
            if name not in failed:
                answers = await self._run(task, name, seen)
                if not isinstance(answers, Failure):
                    ran[name] = answers
                    return name
                failed[name] = answers
        return None

    def _comparable(self, task: Task, metric: Metric | None) -> dict[str, float]:
        """Returns the accuracies that graph.yaml has by this metric on this set; others may be in another unit."""
        how = (metric.name, self._data.name, len(self._data.requests)) if metric is not None else None
        return {v.name: v.accuracy for v in task.variants if v.measured is not None and v.measured.how == how}

    async def _run(self, task: Task, name: str, requests: Sequence[Tensors]) -> list[Answers] | Failure:
        self._progress(f"running {task.name} {name} on {len(requests)} requests of {self._data.name}")
        return await self._runner.answers(task, name, requests)

    async def combinations(self, wanted: Combinations, metric: Metric) -> AsyncIterator[Result | Unmeasured]:
        """Measures combinations of variants end to end; their other tasks use their best variants.

        Combinations with a variant that fails are reported as such.

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
            if isinstance(tensors, Failure):
                yield Unmeasured(combination, tensors)
                continue
            scores = [self._score(metric, ref, found, at) for at, found in enumerate(tensors)]
            yield Result(combination, metric.name, self._data.name, self._estimated(scores, "spec.labels.graph"))

    async def _every(
        self,
        nodes: Sequence[Task | PythonStep],
        wanted: Sequence[tuple[Mapping[str, str], Mapping[str, str]]],
        requests: Sequence[dict[TensorRef, Array]],
    ) -> AsyncIterator[tuple[Mapping[str, str], Sequence[Tensors] | Failure]]:
        """Yields each combination with the tensors of all requests, or with the failure of one of its variants.

        Variants that combinations begin with run once.

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
                further = [(every, combination) for every, combination in wanted if every[node.name] == name]
                answers = await self._run(node, name, requests)
                if isinstance(answers, Failure):
                    for _, combination in further:
                        yield combination, Failure(f"{node.name} {name}: {answers.reason}", answers.log)
                    continue
                made = [gathered(self._graph, node, found) for found in answers]
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
            makers = self._makers(node)
            waiting += makers - found
            found |= makers
        return found

    def _makers(self, node: Task | PythonStep) -> set[str]:
        """Returns the nodes whose outputs a node needs, without those that are among the labels."""
        return {ref.task for ref in consumed(node) if not ref.is_graph_input and str(ref) not in self._labelled}

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


def best_variant(task: Task) -> str:
    """Returns the most accurate variant with a model; see `ranked_variants`."""
    return ranked_variants(task)[0]


def ranked_variants(task: Task, accuracies: Mapping[str, float] = MappingProxyType({})) -> list[str]:
    """Returns the variants with a model, at least one, the most accurate first; equal ones in the order of the task.

    Args:
        task: The task.
        accuracies: Variant -> its accuracy. Variants without one come last, by their accuracies in the graph.

    Raises:
        InputError: All variants are emulated.
    """
    real = [v for v in task.variants if v.template != EMULATED]
    if not real:
        hint = "add a variant with a model, or labels of its outputs"
        raise InputError("all variants are emulated, so later tasks have no input", where=task.name, hint=hint)
    ranked = sorted(real, key=lambda v: (v.name in accuracies, accuracies.get(v.name, v.accuracy)), reverse=True)
    return [variant.name for variant in ranked]


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
