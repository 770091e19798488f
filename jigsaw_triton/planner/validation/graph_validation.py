"""Validation of one graph's part of a plan, recomputed from the graph, its profiles and the placements.

The arithmetic here is deliberately independent of the code that makes plans, even where it computes the same: a shared
function would hide its own errors. Only the queueing model and the constants of the problem are shared.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from jigsaw_triton.graph.chain import followers, runs
from jigsaw_triton.graph.model import Task, TaskGraph, Workload
from jigsaw_triton.planner.domain.plan import GraphPlan, PlacedModel, Plan, Segment, TaskPlan
from jigsaw_triton.planner.domain.problem import LOADS, MAX_SERVERS, REPLICA_RANGES, Options
from jigsaw_triton.planner.latency.queueing import Case, latencies_ms
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

TOLERANCE = 1e-5
"""Relative amount by which a plan may miss a limit, from the tolerances of solvers. The validator's own constant."""

_LEAST_ACCURACY = 1e-9
"""Accuracy that stands for 0, which has no logarithm. A convention."""


Placed = Counter[tuple[str, str, str, int, int]]
"""(board, variant, slice, instances, batch) -> number of replicas placed on the GPUs."""


def replicas_placed(plan: Plan) -> dict[tuple[str, str], Placed]:
    """Counts the replicas of each (graph, task) on the GPUs."""
    found: dict[tuple[str, str], Placed] = {}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            for m in placed.models:
                replica = (gpu.model, m.variant, placed.placement.slice, m.instances, m.batch)
                found.setdefault((m.graph, m.task), Counter())[replica] += 1
    return found


@dataclass(frozen=True, slots=True)
class GraphCheck:
    """Checks one graph's part of a plan.

    Attributes:
        plan: The whole plan.
        promised: The graph's part of the plan.
        workload: Graph and demand.
        table: Profiles of the graph.
        options: Options with which the plan was made.
        tables: Graph name -> profiles, for all graphs.
        most_shared_load: Largest load that a shared slice may have.
        placed: The plan's replicas on the GPUs, by `replicas_placed`.
    """

    plan: Plan
    promised: GraphPlan
    workload: Workload
    table: ProfileTable
    options: Options
    tables: Mapping[str, ProfileTable]
    most_shared_load: float
    placed: Mapping[tuple[str, str], Placed]

    @property
    def graph(self) -> TaskGraph:
        """The graph to check."""
        return self.workload.graph

    def violations(self) -> Iterator[str]:
        """Yields a description of each violation."""
        if set(self.promised.tasks) != set(self.graph.tasks):
            yield f"the plan has the tasks {sorted(self.promised.tasks)}, not {sorted(self.graph.tasks)}"
            return
        if not _close(self.promised.demand_rps, self.workload.demand_rps):
            yield f"the plan is for {self.promised.demand_rps} requests/s, not {self.workload.demand_rps}"
        if not self.workload.demand_rps * (1 - TOLERANCE) <= self.promised.capacity_rps < math.inf:
            demand_rps = self.workload.demand_rps
            yield f"its capacity {self.promised.capacity_rps} is not finite and at least the demand {demand_rps}"
        for name, task in self.promised.tasks.items():
            unknown = {s.variant for s in task.segments} - {v.name for v in self.graph.tasks[name].variants}
            if unknown or not task.segments:
                yield f"{name}: it has no segments, or segments of unknown variants {sorted(unknown)}"
                return
        yield from self._count_violations()
        yield from self._rate_violations()
        yield from self._latency_violations()
        yield from self._accuracy_violations()
        if "A" not in self.options.features:
            yield from self._variant_violations()
        if "T" not in self.options.features:
            yield from self._even_violations()

    def _placed(self, task: str) -> Placed:
        return self.placed.get((self.graph.name, task), Counter())

    def _count_violations(self) -> Iterator[str]:
        for name, task in self.promised.tasks.items():
            said = Counter[tuple[str, str, int, int]]()
            for s in task.segments:
                said[s.variant, s.slice, s.instances, s.batch] += s.count
            placed = Counter[tuple[str, str, int, int]]()
            for (_, *segment), count in self._placed(name).items():
                placed[tuple(segment)] += count  # type: ignore[index]  # mypy does not count the items of a starred name
            if len(task.segments) > len(said):
                yield f"{name}: a segment is listed more than once"
            if said != placed:
                yield f"{name}: its segments and its placements differ: {dict(said)}, {dict(placed)}"
            if not _close(sum(s.share for s in task.segments), 1.0) or any(s.share < 0 for s in task.segments):
                yield f"{name}: its shares do not add up to 1"

    def _rates(self) -> dict[str, float]:
        """Returns the calls a second of each task at the demand, by the plan's own shares."""
        rates: dict[str, float] = {}
        for task in self.graph.tasks.values():
            rates[task.name] = self._rate(task, rates)
        return rates

    def _rate(self, task: Task, rates: Mapping[str, float]) -> float:
        often = task.when.probability if task.when else 1.0
        over = task.for_each
        if over is None:
            return self.workload.demand_rps * often
        if over.is_graph_input:
            return self.workload.demand_rps * often * self.graph.inputs[over.name].rows
        if over.task in self.graph.steps:
            return self.workload.demand_rps * often * self.graph.steps[over.task].yields.get(over.name, 1.0)
        source = self.graph.tasks[over.task]
        rows = 1.0
        if over.name in source.outputs and source.outputs[over.name].shape[0] == -1:
            rows = sum(s.share * source.variant(s.variant).yields.get(over.name, 1.0) for s in self._segments(source))
        ancestor: Task | None = source
        while ancestor is not None and task.when is not None:
            same = ancestor.when
            if same and (same.tensor, same.above, same.below) == (task.when.tensor, task.when.above, task.when.below):
                often = 1.0
            up = ancestor.for_each
            ancestor = None if up is None else self.graph.tasks.get(up.task)
        return rates[source.name] * rows * often

    def _segments(self, task: Task) -> tuple[Segment, ...]:
        return self.promised.tasks[task.name].segments

    def _rate_violations(self) -> Iterator[str]:
        utilisation = self._most_utilisation()
        for name, rate in self._rates().items():
            task = self.promised.tasks[name]
            if not _close(task.rate_rps, rate):
                yield f"{name}: the plan says {task.rate_rps} calls/s, counted {rate}"
            for segment in task.segments:
                carried = sum(count * row.throughput_rps * utilisation for row, count in self._rows(name, segment))
                if segment.share * rate > carried * (1 + TOLERANCE):
                    yield f"{name}: {segment} has to carry {segment.share * rate} calls/s but can carry {carried}"

    def _most_utilisation(self) -> float:
        if self.options.formulation == "paper":
            return 1.0
        return max(LOADS) if self.options.latency_model == "queue" else self.options.utilisation

    def _rows(self, task: str, segment: Segment) -> list[tuple[ProfileRow, int]]:
        """Returns the profile and the count of a segment's replicas on each model of GPU."""
        wanted = (segment.variant, segment.slice, segment.instances, segment.batch)
        rows = []
        for (board, *placed), count in self._placed(task).items():
            row = self.table.get(
                ProfileKey(board, task, segment.variant, segment.slice, segment.instances, segment.batch)
            )
            if tuple(placed) == wanted and row is not None:
                rows.append((row, count))
        return rows

    def _latency_violations(self) -> Iterator[str]:
        needed = {name: self._needed_ms(name, alone_ms) for name, alone_ms in self._alone_ms().items()}
        for name, task in self.promised.tasks.items():
            # Written so that NaN exceeds any budget.
            if not needed[name] <= task.budget_ms * (1 + TOLERANCE):
                yield f"{name}: {needed[name]} ms exceed its budget of {task.budget_ms} ms"
        limit = self.graph.tasks_ms
        for what, per_task in (("latencies", needed), ("budgets", _budgets(self.promised.tasks))):
            total = worst(self.graph, per_task)
            if total > limit * (1 + TOLERANCE):
                yield f"the {what} along a path add up to {total} ms, over {limit} ms"
        # The replicas may have a lower load than the one at which the plan predicts their latency.
        said, counted = self.promised.latency_ms, worst(self.graph, needed) + self.graph.steps_ms
        slo_ms = self.graph.slo.latency_ms
        less_busy = self.options.latency_model == "queue" and counted <= said <= slo_ms * (1 + TOLERANCE)
        if not less_busy and not _close(said, counted):
            yield f"the plan says {said} ms, counted {counted} ms"

    def _needed_ms(self, name: str, alone_ms: float) -> float:
        """Returns the latency of a task: that of its slowest segment, or by the slice's cycle if it shares one."""
        sharing = self._sharing_ms(name)
        if sharing is None:
            return alone_ms
        return sharing[0] if sharing[1] > 1 else min(alone_ms, sharing[0])

    def _sharing_ms(self, name: str) -> tuple[float, int] | None:
        """Returns the latency of a task in a shared slice, and the number of models there; None if it shares none."""
        if not self.options.share:
            return None
        slices = [
            (gpu.model, placed)
            for gpu in self.plan.gpus
            for placed in gpu.layout
            if any((m.graph, m.task) == (self.graph.name, name) for m in placed.models)
        ]
        if len(slices) != 1:
            return None
        ((board, placed),) = slices
        (own,) = (m for m in placed.models if (m.graph, m.task) == (self.graph.name, name))
        rows = [
            profiled(self.tables[m.graph], board, placed.placement.slice, m)
            for m in placed.models
            if m.graph in self.tables
        ]
        row = profiled(self.table, board, placed.placement.slice, own)
        if (
            row is None
            or own.instances != 1
            or busy(self._rates()[name], row) > self.most_shared_load * (1 + TOLERANCE)
        ):
            return None
        cycle_ms = sum(r.latency_p95_ms for r in rows if r is not None)
        together = self._called_with(own, placed.models)
        their_rows = [profiled(self.table, board, placed.placement.slice, m) for m in placed.models if m in together]
        cycle_ms -= sum(r.latency_p95_ms for r in their_rows if r is not None)
        times = _latency_ms(row, self._rows_at_once(self.graph.tasks[name])) / row.latency_p95_ms
        return times * cycle_ms, len(placed.models)

    def _called_with(self, own: PlacedModel, models: Sequence[PlacedModel]) -> list[PlacedModel]:
        """Returns the other models of a slice that are in a chain with `own`: a worker calls them together."""
        by_task = {m.task: m for m in models if m.graph == self.graph.name}
        after = {
            before: task
            for before, task in followers(self.graph).items()
            if {before, task} <= by_task.keys()
            and (self.graph.tasks[task].for_each is None or by_task[before].batch == by_task[task].batch)
        }
        chain = next((tasks for tasks in runs(after) if own.task in tasks), ())
        return [by_task[task] for task in chain if task != own.task]

    def _alone_ms(self) -> dict[str, float]:
        """Returns the latency of each task, that of its slowest segment, if its replicas share no slice."""
        if self.options.latency_model == "2p95":
            return {name: self._two_p95_ms(name) for name in self.promised.tasks}
        queues = {name: list(self._queues(name)) for name in self.promised.tasks}
        # One call computes all latencies, because a call takes as long as hundreds of cases.
        cases = [case for ranges in queues.values() for _, found in ranges for case in found]
        ms = iter(latencies_ms(cases, self._quantile))
        return {
            name: min(max((full_ms, *islice(ms, len(found)))) for full_ms, found in ranges)
            for name, ranges in queues.items()
        }

    @property
    def _quantile(self) -> float:
        """Quantile of each task's latency."""
        return 1 - (1 - self.graph.slo.percentile / 100) / len(self.graph.tasks)

    def _two_p95_ms(self, name: str) -> float:
        rows = self._rows_at_once(self.graph.tasks[name])
        segments = self.promised.tasks[name].segments
        return max((_latency_ms(row, rows) for s in segments for row, _ in self._rows(name, s)), default=0.0)

    def _queues(self, name: str) -> Iterator[tuple[float, list[Case]]]:
        """Yields the time of a full batch and the queues of a task, for each range with its number of replicas.

        The queues are those of all segments at all loads up to theirs, and at both ends of the range.
        """
        rows = self._rows_at_once(self.graph.tasks[name])
        segments = [(s, self._rows(name, s)) for s in self.promised.tasks[name].segments]
        rate, times = self._rates()[name], service_times(self.table)
        replicas = sum(segment.count for segment, _ in segments)
        for ends in REPLICA_RANGES:
            if not ends[0] <= replicas <= ends[1]:
                continue
            full_ms, cases = 0.0, list[Case]()
            for segment, found in segments:
                load = _load(segment.share * rate, found)
                for row, _ in found:
                    time, key = times[row.key], row.key
                    full_ms = max(full_ms, time.full_ms(self._quantile))
                    full = row.throughput_rps * time.occupied_ms / (1000 * key.batch * key.instances)
                    cases += [
                        Case(time, int(min(n * key.instances, MAX_SERVERS)), u * full, rows)
                        for n in ends
                        for u in LOADS
                        if u <= load
                    ]
            yield full_ms, cases

    def _rows_at_once(self, task: Task) -> float:
        """Returns the rows of one request, from the variants that yield most."""
        over = task.for_each
        if over is None:
            return 1.0
        if over.is_graph_input:
            return self.graph.inputs[over.name].rows
        if over.task in self.graph.steps:
            return self.graph.steps[over.task].yields.get(over.name, 1.0)
        source = self.graph.tasks[over.task]
        rows = self._rows_at_once(source)
        if over.name in source.outputs and source.outputs[over.name].shape[0] == -1:
            rows *= max(variant.yields.get(over.name, 1.0) for variant in source.variants)
        return rows

    def _accuracy_violations(self) -> Iterator[str]:
        mean = self.graph.slo.accuracy_mode == "mean"
        accuracy = self._mean_accuracy if mean else self._least_accuracy
        lost = {name: -math.log(accuracy(name)) for name in self.promised.tasks}
        used = {name: {s.variant for s in task.segments} for name, task in self.promised.tasks.items()}
        least = math.exp(-worst(self.graph, lost | measured_losses(self.graph, used)))
        if least < self.graph.slo.accuracy * (1 - TOLERANCE):
            yield f"the accuracy along a path is {least}, below {self.graph.slo.accuracy}"
        if not _close(self.promised.accuracy, least):
            yield f"the plan says an accuracy of {self.promised.accuracy}, counted {least}"

    def _least_accuracy(self, task: str) -> float:
        return min(self._relative(task, s.variant) for s in self.promised.tasks[task].segments)

    def _mean_accuracy(self, task: str) -> float:
        """Returns the mean accuracy by the shares of calls, at most 1, and above 0 whatever the shares are."""
        segments = self.promised.tasks[task].segments
        mean = sum(max(0.0, s.share) * self._relative(task, s.variant) for s in segments)
        return min(1.0, max(mean, _LEAST_ACCURACY))

    def _variant_violations(self) -> Iterator[str]:
        for name, task in self.promised.tasks.items():
            for variant in sorted({s.variant for s in task.segments if self._relative(name, s.variant) < 1}):
                yield f"{name}: {variant} is not the most accurate variant, without accuracy scaling"

    def _even_violations(self) -> Iterator[str]:
        """Checks each task's even part of latency and accuracy: one n-th, for n tasks on its longest path."""
        for name, tasks in _tasks_through(self.graph).items():
            task, slo = self.promised.tasks[name], self.graph.slo
            if not _close(task.budget_ms, self.graph.tasks_ms / tasks):
                yield f"{name}: a budget of {task.budget_ms} ms, not {self.graph.tasks_ms} ms over {tasks} tasks"
            least = self._least_accuracy(name)
            if least < slo.accuracy ** (1 / tasks) * (1 - TOLERANCE):
                yield f"{name}: an accuracy of {least}, below {slo.accuracy} over {tasks} tasks"

    def _relative(self, task: str, variant: str) -> float:
        variants = self.graph.tasks[task].variants
        return self.graph.tasks[task].variant(variant).accuracy / max(v.accuracy for v in variants)


def _load(rate_rps: float, found: Sequence[tuple[ProfileRow, int]]) -> float:
    """Returns the lowest of `LOADS` at which a segment's replicas carry this rate.

    If they are on several models of GPU, the plan does not say how the rate is divided; then the lowest load of all is
    assumed.
    """
    full = sum(count * row.throughput_rps for row, count in found)
    if len(found) > 1:
        return LOADS[0]
    return min((u for u in LOADS if rate_rps <= u * full * (1 + TOLERANCE)), default=LOADS[-1])


def _latency_ms(row: ProfileRow, rows: float) -> float:
    rounds = max(1, math.ceil(rows / (row.key.batch * row.key.instances) - 1e-9))
    return row.latency_p95_ms * (1 + rounds)


def _budgets(tasks: Mapping[str, TaskPlan]) -> dict[str, float]:
    return {name: task.budget_ms for name, task in tasks.items()}


def worst(graph: TaskGraph, weight: Mapping[str, float]) -> float:
    """Returns the largest sum of weights along a path."""
    ending: dict[str, float] = {}
    for name, task in graph.tasks.items():
        ending[name] = weight[name] + max((ending[d] for d in graph.before(task)), default=0.0)
    return max(ending.values())


def measured_losses(graph: TaskGraph, used: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Returns the loss of the worst measured pair of variants in use, at the first task of each pair, 0 at the other.

    Args:
        graph: Graph whose combinations replace products.
        used: Task -> variants in use.
    """
    best: dict[frozenset[str], float] = {}
    worst_in_use: dict[frozenset[str], float] = {}
    for combination in graph.combinations:
        tasks = frozenset(combination.variants)
        best[tasks] = max(best.get(tasks, 0.0), combination.accuracy)
        if all(variant in used[task] for task, variant in combination.variants.items()):
            worst_in_use[tasks] = min(worst_in_use.get(tasks, math.inf), combination.accuracy)
    return {
        task: math.log(best[tasks] / accuracy) if task == min(tasks) else 0.0
        for tasks, accuracy in worst_in_use.items()
        for task in tasks
    }


def _tasks_through(graph: TaskGraph) -> dict[str, int]:
    """Returns, for each task, the number of tasks on the longest path through it."""
    upto: dict[str, int] = {}
    after = dict.fromkeys(graph.tasks, 0)
    for name, task in graph.tasks.items():
        upto[name] = 1 + max((upto[d] for d in graph.before(task)), default=0)
    for name, task in reversed(tuple(graph.tasks.items())):
        for d in graph.before(task):
            after[d] = max(after[d], 1 + after[name])
    return {name: upto[name] + after[name] for name in graph.tasks}


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-9)


def busy(rate_rps: float, row: ProfileRow) -> float:
    """Returns the utilisation of a slice if each call is a separate execution."""
    return rate_rps * max(row.latency_p95_ms / 1000, 1 / row.throughput_rps)


def profiled(table: ProfileTable, board: str, kind: str, model: PlacedModel) -> ProfileRow | None:
    """Returns the profile of a model on a kind of slice; None if there is none."""
    return table.get(ProfileKey(board, model.task, model.variant, kind, model.instances, model.batch))
