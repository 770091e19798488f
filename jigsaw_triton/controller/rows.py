"""Rows and branches as they are, in place of the estimates that a graph was planned with. Pure.

The gateway's metrics tell, for each variant, of how many items an output's rows were made, and for each condition how
often it was looked at and held. Their ratio of late is what variants yield and how probable conditions are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph
from jigsaw_triton.planner.domain.plan import GraphPlan
from jigsaw_triton.planner.domain.throughput import graph_throughput_rps
from jigsaw_triton.servers.metrics import Sample

_OF = frozenset({"jigsaw_yield_items_total", "jigsaw_condition_checked_total"})
_MADE = frozenset({"jigsaw_yield_rows_total", "jigsaw_condition_held_total"})

_LEAST = 1e-3
"""What never happened so far is planned for as if it happened so often: a plan may not take it for impossible."""


class Source(NamedTuple):
    """What rows come of: a variant's output, a python step's, which has no variant, or, with neither, a condition."""

    graph: str
    task: str
    variant: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """How much was made of how much.

    Attributes:
        of: Items that made rows, or requests whose condition was looked at.
        made: Rows, or requests whose condition held.
    """

    of: float = 0.0
    made: float = 0.0


Counts = Mapping[Source, Count]


def read_counts(samples: Iterable[Sample]) -> dict[Source, Count]:
    """The counters as they stand in the gateway's /metrics."""
    of: dict[Source, float] = {}
    made: dict[Source, float] = {}
    for sample in samples:
        side = of if sample.name in _OF else made if sample.name in _MADE else None
        if side is not None:
            side[_source(sample.labels)] = sample.value
    return {source: Count(count, made.get(source, 0.0)) for source, count in of.items()}


def since(before: Counts, now: Counts) -> dict[Source, Count]:
    """What was counted between two readings; counters that went down began at 0."""
    found = {}
    for source, count in now.items():
        start = before.get(source, Count())
        if count.of < start.of or count.made < start.made:
            start = Count()
        found[source] = Count(count.of - start.of, count.made - start.made)
    return found


def remembered(past: Counts, more: Counts, seconds: float, settings: Settings) -> dict[Source, Count]:
    """What was counted so far, the older the less, and more.

    Args:
        past: As of the last time.
        more: Counted since.
        seconds: That have passed since.
        settings: With the half-life.
    """
    kept = 0.5 ** (seconds / settings.rows_half_life_s)
    empty = Count()
    return {
        source: Count(
            past.get(source, empty).of * kept + more.get(source, empty).of,
            past.get(source, empty).made * kept + more.get(source, empty).made,
        )
        for source in past.keys() | more.keys()
    }


def still_true(counts: Counts, before: Mapping[str, TaskGraph], after: Mapping[str, TaskGraph]) -> dict[Source, Count]:
    """What was counted of tasks that are the same in the graphs that come after."""

    def maker(graphs: Mapping[str, TaskGraph], source: Source) -> Task | PythonStep | None:
        graph = graphs.get(source.graph)
        return None if graph is None else graph.tasks.get(source.task) or graph.steps.get(source.task)

    return {s: count for s, count in counts.items() if maker(before, s) == maker(after, s)}


def measured(graph: TaskGraph, counts: Counts, settings: Settings) -> TaskGraph:
    """The graph with what was measured, where enough was, in place of its yields and probabilities."""

    def ratio(variant: str, output: str, task: str, estimate: float) -> float:
        count = counts.get(Source(graph.name, task, variant, output), Count())
        return max(_LEAST, count.made / count.of) if count.of >= settings.rows_least else estimate

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
    """What was measured otherwise than estimated, a sentence each."""
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
            sentences.append(f"{graph.name}.{name} runs for {then.probability:.1%}, not {when.probability:.1%}")
    for name, step in graph.steps.items():
        sentences += [
            f"{graph.name}.{name} yields {now.steps[name].yields[output]:.3g} {output}, not {rows:.3g}"
            for output, rows in step.yields.items()
            if now.steps[name].yields[output] != rows
        ]
    return tuple(sentences)


def covered_rps(graph: TaskGraph, plan: GraphPlan, counts: Counts, settings: Settings) -> float:
    """What a plan carries with the rows there are: less than its capacity where they are more than it was made for.

    Each task's capacity is taken to be used as far as the graph's is, so the figure is rather too small.
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
