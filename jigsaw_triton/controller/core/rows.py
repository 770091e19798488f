"""Measured yields of variants and probabilities of conditions, which replace a graph's estimates. Pure functions.

For each variant, the gateway's metrics count the items processed and the rows made for each output. For each condition,
they count how often it was evaluated and how often it held. The recent ratio of the two counters is the measured value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph
from jigsaw_triton.planner.domain.plan import GraphPlan
from jigsaw_triton.planner.domain.throughput import graph_throughput_rps
from jigsaw_triton.servers.metrics import Sample

_TRIALS = frozenset({"jigsaw_yield_items_total", "jigsaw_condition_checked_total"})
_MADE = frozenset({"jigsaw_yield_rows_total", "jigsaw_condition_held_total"})

_MIN_RATIO = 1e-3
"""Smallest ratio to plan with. What has never happened so far may still happen, and a plan must not rule it out."""


class Source(NamedTuple):
    """Source of a count: an output of a variant, an output of a Python step, or a condition.

    Attributes:
        graph: Name of the graph.
        task: Name of the task or step.
        variant: Name of the variant; empty for a step or a condition.
        output: Name of the output; empty for a condition.
    """

    graph: str
    task: str
    variant: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """Two counters whose ratio is a yield or a probability.

    Attributes:
        trials: Items processed, or evaluations of the condition.
        made: Rows made, or evaluations in which the condition held.
    """

    trials: float = 0.0
    made: float = 0.0


Counts = Mapping[Source, Count]


def read_counts(samples: Iterable[Sample]) -> dict[Source, Count]:
    """Reads the counters from samples of the gateway's /metrics."""
    trials: dict[Source, float] = {}
    made: dict[Source, float] = {}
    for sample in samples:
        counter = trials if sample.name in _TRIALS else made if sample.name in _MADE else None
        if counter is not None:
            counter[_source(sample.labels)] = sample.value
    return {source: Count(count, made.get(source, 0.0)) for source, count in trials.items()}


def since(before: Counts, now: Counts) -> dict[Source, Count]:
    """Returns the counts between two readings. A counter that went down has restarted from 0."""
    found = {}
    for source, count in now.items():
        start = before.get(source, Count())
        if count.trials < start.trials or count.made < start.made:
            start = Count()
        found[source] = Count(count.trials - start.trials, count.made - start.made)
    return found


def decayed(past: Counts, more: Counts, seconds: float, settings: Settings) -> dict[Source, Count]:
    """Returns counts with exponential decay: the past ones weighted by their age, plus new ones.

    Args:
        past: Weighted counts at the last update.
        more: Counts since then.
        seconds: Seconds since the last update.
        settings: Settings, with the half-life.
    """
    kept = 0.5 ** (seconds / settings.rows_half_life_s)
    empty = Count()
    return {
        source: Count(
            past.get(source, empty).trials * kept + more.get(source, empty).trials,
            past.get(source, empty).made * kept + more.get(source, empty).made,
        )
        for source in past.keys() | more.keys()
    }


def still_valid(counts: Counts, before: Mapping[str, TaskGraph], after: Mapping[str, TaskGraph]) -> dict[Source, Count]:
    """Returns the counts of tasks and steps that are unchanged in the new graphs."""

    def task_of(graphs: Mapping[str, TaskGraph], source: Source) -> Task | PythonStep | None:
        graph = graphs.get(source.graph)
        return None if graph is None else graph.tasks.get(source.task) or graph.steps.get(source.task)

    return {s: count for s, count in counts.items() if task_of(before, s) == task_of(after, s)}


def measured(graph: TaskGraph, counts: Counts, settings: Settings) -> TaskGraph:
    """Returns the graph with measured yields and probabilities in place of estimates, if enough was counted."""
    if not counts:
        return graph

    def ratio(variant: str, output: str, task: str, estimate: float) -> float:
        count = counts.get(Source(graph.name, task, variant, output), Count())
        return max(_MIN_RATIO, count.made / count.trials) if count.trials >= settings.rows_least else estimate

    tasks = {}
    for name, task in graph.tasks.items():
        variants = tuple(
            replace(v, yields={output: ratio(v.name, output, name, rows) for output, rows in v.yields.items()})
            for v in task.variants
        )
        when = task.when
        if when is not None:
            when = replace(when, probability=min(1.0, ratio("", "", name, when.probability)))
        tasks[name] = replace(task, variants=variants, when=when)
    steps = {
        name: replace(step, yields={output: ratio("", output, name, rows) for output, rows in step.yields.items()})
        for name, step in graph.steps.items()
    }
    return replace(graph, tasks=tasks, steps=steps)


def deviations(graph: TaskGraph, now: TaskGraph) -> tuple[str, ...]:
    """Describes, one sentence each, the measured values of `now` that differ from the estimates of `graph`."""
    sentences = []
    for name, task in graph.tasks.items():
        for before, after in zip(task.variants, now.tasks[name].variants, strict=True):
            sentences += [
                f"{graph.name}.{name}.{before.name} yields {after.yields[output]:.3g} {output}, not {rows:.3g}"
                for output, rows in before.yields.items()
                if after.yields[output] != rows
            ]
        when, then = task.when, now.tasks[name].when
        if when is not None and then is not None and when != then:
            sentences.append(f"{graph.name}.{name} runs in {then.probability:.1%} of cases, not {when.probability:.1%}")
    for name, step in graph.steps.items():
        sentences += [
            f"{graph.name}.{name} yields {now.steps[name].yields[output]:.3g} {output}, not {rows:.3g}"
            for output, rows in step.yields.items()
            if now.steps[name].yields[output] != rows
        ]
    return tuple(sentences)


def covered_rps(graph: TaskGraph, plan: GraphPlan, counts: Counts, settings: Settings) -> float:
    """Returns the demand that a plan can carry with the measured yields and probabilities.

    It is lower than the plan's capacity if requests make more rows than the plan was made for. The figure is
    conservative: it assumes that every task has the same spare capacity, in proportion, as the whole graph.
    """
    now = measured(graph, counts, settings)
    if now == graph or plan.demand_rps <= 0:
        return plan.capacity_rps
    planned = {
        name: {variant: task.rate_rps * share for variant, share in task.mix.items()}
        for name, task in plan.tasks.items()
    }
    return plan.capacity_rps * graph_throughput_rps(now, planned, planned) / plan.demand_rps


def _source(labels: Mapping[str, str]) -> Source:
    return Source(*(labels.get(name, "") for name in Source._fields))
