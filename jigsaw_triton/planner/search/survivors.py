"""Survivors of a failure domain: the requests a second that the replicas outside it carry after its loss."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.capacity import within_budget
from jigsaw_triton.planner.domain.plan import GraphPlan, Plan, PlannedGpu, PlanSurvival, TaskPlan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.processors import ProcessorLoad, processor_load, with_carried
from jigsaw_triton.planner.domain.rates import calls
from jigsaw_triton.planner.domain.survival import failure_domains
from jigsaw_triton.planner.domain.throughput import ByVariant, graph_throughput_rps
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.latency.latency import Use, uses
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable


def left_rps(plan: Plan, problem: Problem, options: Options) -> dict[str, float]:
    """Returns, for each graph, the requests a second that the worst loss of a failure domain leaves.

    The rest keeps the plan's latency budgets. A task keeps them only if the replicas that are left are as many as its
    latency was planned for (`REPLICA_RANGES`).
    """
    of = failure_domains(problem.cluster)
    lost = sorted({of[gpu.id] for gpu in plan.gpus})
    return {
        w.graph.name: min(
            _carried_rps(w.graph, plan, [gpu for gpu in plan.gpus if of[gpu.id] != domain], problem, options)
            for domain in lost
        )
        for w in problem.workloads
    }


def survival(plan: Plan, problem: Problem, options: Options) -> PlanSurvival | None:
    """Returns the loss that a plan survives, without what that costs; None if it need not survive any."""
    survive = problem.cluster.survive
    if survive is None:
        return None
    return PlanSurvival(survive.loss_of, survive.share, left_rps(plan, problem, options))


def lost_capacity(plan: Plan, problem: Problem, options: Options) -> Iterator[str]:
    """Yields a description of each graph of which a loss leaves less than it must."""
    if not problem.survive:
        return
    for name, rps in left_rps(plan, problem, options).items():
        needed_rps = problem.survive * plan.graphs[name].demand_rps
        if rps < needed_rps * (1 - TOLERANCE):
            yield f"{name}: the worst loss leaves {rps} requests/s, not {needed_rps}"


def processor_loads(plan: Plan, problem: Problem) -> tuple[ProcessorLoad, ...]:
    """Returns the processors that a plan keeps busy, and those that the rest does after each loss that it must survive.

    The rest serves the share of the demand that must be left. Empty if the processors are not known, or if the plan
    uses no slice of a processor.
    """
    load = processor_load(plan, problem)
    if load is None or not problem.survive:
        return () if load is None else (load,)
    of = failure_domains(problem.cluster)
    rests = (
        _rest(plan, [gpu for gpu in plan.gpus if of[gpu.id] != domain], problem.survive)
        for domain in sorted({of[gpu.id] for gpu in plan.gpus})
    )
    return (load, *filter(None, (processor_load(rest, problem) for rest in rests)))


def within_processors(plan: Plan, loads: Collection[ProcessorLoad]) -> Plan:
    """Returns the plan with its capacities, and what a loss leaves of them, limited by its `processor_loads`."""
    if not loads:
        return plan
    whole, *rests = loads
    plan = with_carried(plan, whole)
    if plan.survival is None:
        return plan
    left_rps = {
        name: min([rps, *(rest.carried_rps[name] for rest in rests)]) for name, rps in plan.survival.left_rps.items()
    }
    return replace(plan, survival=replace(plan.survival, left_rps=left_rps))


def _rest(plan: Plan, gpus: Collection[PlannedGpu], share: float) -> Plan:
    """Returns what is left of a plan on these GPUs, for a share of its demand; replicas keep their relative rates."""
    placed = Counter(
        (m.graph, m.task, m.variant, s.placement.slice, m.instances, m.batch)
        for gpu in gpus
        for s in gpu.layout
        for m in s.models
    )

    def left(name: str, task: str, planned: TaskPlan) -> TaskPlan:
        counts = {s: placed[name, task, s.variant, s.slice, s.instances, s.batch] for s in planned.segments}
        parts = {s: s.share / s.count * count for s, count in counts.items()}
        total = sum(parts.values())
        segments = (replace(s, count=n, share=parts[s] / total if total else 0.0) for s, n in counts.items() if n)
        return replace(planned, rate_rps=planned.rate_rps * share, segments=tuple(segments))

    def graph(name: str, planned: GraphPlan) -> GraphPlan:
        tasks = {task: left(name, task, one) for task, one in planned.tasks.items()}
        return replace(planned, demand_rps=planned.demand_rps * share, tasks=tasks)

    return replace(plan, graphs={name: graph(name, one) for name, one in plan.graphs.items()}, gpus=tuple(gpus))


def _carried_rps(graph: TaskGraph, plan: Plan, gpus: Iterable[PlannedGpu], problem: Problem, options: Options) -> float:
    planned, table = plan.graphs[graph.name], problem.profiles.get(graph.name, ProfileTable(()))
    replicas: dict[str, list[ProfileRow]] = {task: [] for task in graph.tasks}
    for gpu in gpus:
        for placed in gpu.layout:
            for m in placed.models:
                row = table.get(ProfileKey(gpu.model, m.task, m.variant, placed.placement.slice, m.instances, m.batch))
                if m.graph == graph.name and row is not None:
                    replicas[m.task].append(row)
    rows = {row for own in replicas.values() for row in own}
    loads = uses(graph, sorted(rows, key=lambda row: row.key), table, options, [row.key for row in rows])
    usable = {task: _usable(planned.tasks[task], own, loads) for task, own in replicas.items()}
    mixes: list[ByVariant] = [planned.mix]
    if graph.slo.accuracy_mode != "mean":
        mixes += [usable, _of_fewest_rows(graph, usable, problem.survive * planned.demand_rps)]
    return max(graph_throughput_rps(graph, usable, mix) for mix in mixes)


def _of_fewest_rows(graph: TaskGraph, usable: ByVariant, rps: float) -> dict[str, dict[str, float]]:
    """Returns the calls a second of each variant, if tasks first use the variants that make the fewest later calls.

    Args:
        graph: Graph whose tasks are in topological order.
        usable: Usable throughput in calls a second.
        rps: Requests a second.
    """
    rules = {name: calls(graph, task) for name, task in graph.tasks.items()}
    later = {name: [rule for rule in rules.values() if rule.source == name] for name in rules}
    mix: dict[str, dict[str, float]] = {}
    for name, rule in rules.items():
        left = rps * rule.factor
        if rule.source is not None:
            left = sum(n * rule.weight(graph, variant) for variant, n in mix[rule.source].items())
        made = {v: sum(after.weight(graph, v) for after in later[name]) for v in usable[name]}
        mix[name] = {}
        for variant in sorted(made, key=lambda v: made[v]):
            mix[name][variant] = min(left, usable[name][variant])
            left -= mix[name][variant]
    return mix


def _usable(task: TaskPlan, left: list[ProfileRow], loads: Mapping[ProfileKey, Iterable[Use]]) -> dict[str, float]:
    """Returns variant -> calls a second of the replicas that are left, in the range of replicas that permits most."""
    planned = sum(segment.count for segment in task.segments)
    ranges = {use.replica_range for row in left for use in loads[row.key]}
    best: dict[str, float] = {}
    for least, most in sorted(ranges):
        if not (least <= planned <= most and least <= len(left)):
            continue
        found: dict[str, float] = {}
        for row in left:
            within = within_budget((use for use in loads[row.key] if use.replica_range == (least, most)), task)
            found[row.key.variant] = found.get(row.key.variant, 0.0) + max(within, default=0.0) * row.throughput_rps
        best = max(best, found, key=lambda rps: sum(rps.values()))
    return best
