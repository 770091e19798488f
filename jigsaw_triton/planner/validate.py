"""Whether a plan holds what it says.

Every constraint is recomputed from the graphs, profiles and cluster; nothing is taken from the program that was solved.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.chain import followers, runs
from jigsaw_triton.graph.model import Task, TaskGraph, Workload
from jigsaw_triton.planner.plan import GraphPlan, PlacedModel, PlacedSlice, Plan, Segment, TaskPlan
from jigsaw_triton.planner.problem import AMONG, LOADS, MOST_SERVERS, SHARED_LOAD, Options, Problem
from jigsaw_triton.planner.queueing import Case, latencies_ms
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

TOLERANCE = 1e-5
"""Relative: what a solver's own tolerances may add up to."""

_LEAST_ACCURACY = 1e-9
"""Stands for none, which has no logarithm."""


def violations(plan: Plan, problem: Problem, options: Options) -> tuple[str, ...]:
    """Every way in which the plan breaks the problem's requirements or contradicts itself; empty where it is sound."""
    problem = problem.prepared()
    found = [
        *_label_violations(plan, options),
        *_board_violations(plan, problem),
        *_shared_violations(plan, problem, options),
        *_segment_violations(plan, problem, options),
        *_total_violations(plan, problem),
    ]
    names = {w.graph.name for w in problem.workloads}
    if names != set(plan.graphs):
        return (*found, f"the plan is for {sorted(plan.graphs)}, not for {sorted(names)}")
    for workload in problem.workloads:
        table = problem.profiles.get(workload.graph.name, ProfileTable(()))
        most_load = _most_shared_load(problem, options)
        check = _GraphCheck(
            plan, plan.graphs[workload.graph.name], workload, table, options, problem.profiles, most_load
        )
        found += [f"{workload.graph.name}: {reason}" for reason in check.violations()]
    return tuple(found)


def _label_violations(plan: Plan, options: Options) -> Iterator[str]:
    for what, said, asked in (
        ("features", "".join(sorted(plan.features)), "".join(sorted(options.features))),
        ("formulation", plan.formulation, options.formulation),
        ("latency model", plan.latency_model, options.latency_model),
    ):
        if said != asked:
            yield f"{what}: {said!r} said, {asked!r} asked for"


def _segment_violations(plan: Plan, problem: Problem, options: Options) -> Iterator[str]:
    """What features and formulation allow of each replica, whatever the others are."""
    boards = {board.name: board for board in problem.boards}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            for model in placed.models:
                where = f"{gpu.id} {placed.placement}"
                if model.graph not in plan.graphs or model.task not in plan.graphs[model.graph].tasks:
                    yield f"{where}: {model.graph}/{model.task} is not planned for"
                if options.formulation == "paper" and model.instances > 4:
                    yield f"{where}: {model.instances} instances are more than the paper's four"
                board = boards.get(gpu.model)
                if "S" in options.features or board is None:
                    continue
                if model.instances > 1:
                    yield f"{where}: {model.instances} instances without spatial partitioning"
                profile = board.profiles.get(placed.placement.slice)
                if profile is not None and profile.compute_slices != board.compute_slices:
                    yield f"{where}: a part of a GPU without spatial partitioning"


def _board_violations(plan: Plan, problem: Problem) -> Iterator[str]:
    gpus = {gpu.id: gpu for gpu in problem.cluster.gpus}
    for gpu, count in Counter(g.id for g in plan.gpus).items():
        if count > 1:
            yield f"{gpu} is listed {count} times"
    for gpu_plan in plan.gpus:
        known = gpus.get(gpu_plan.id)
        board = known.board if known is not None else None
        if known is None:
            yield f"{gpu_plan.id} is not in the cluster"
        elif known.board.name != gpu_plan.model:
            yield f"{gpu_plan.id} is a {known.board.name}, not a {gpu_plan.model}"
        elif reason := fits(known.board, (*known.foreign, *(placed.placement for placed in gpu_plan.layout))):
            yield f"{gpu_plan.id}: {reason}"
        elif known.uncut and any(placed.placement != known.board.whole for placed in gpu_plan.layout):
            yield f"{gpu_plan.id} cannot be cut: {known.uncut}"
        if not gpu_plan.layout:
            yield f"{gpu_plan.id} has no slices"
        for placed in gpu_plan.layout:
            where = f"{gpu_plan.id} {placed.placement}"
            if not placed.models:
                yield f"{where} holds no model"
            elif board is not None and placed.placement.slice in board.profiles:
                yield from _memory_violations(where, board, placed, problem)


def _memory_violations(where: str, board: Board, placed: PlacedSlice, problem: Problem) -> Iterator[str]:
    room, taken = board.profiles[placed.placement.slice].memory_mib, 0.0
    for model in placed.models:
        row = _row(problem.profiles.get(model.graph, ProfileTable(())), board.name, placed.placement.slice, model)
        if row is None:
            yield f"{where}: {model.graph}/{model.task} {model.variant} has no profile there"
        else:
            taken += row.memory_mib
    if room is not None and taken > room * (1 + TOLERANCE):
        yield f"{where}: {taken:.0f} MiB in {room} MiB"


def _shared_violations(plan: Plan, problem: Problem, options: Options) -> Iterator[str]:
    """What is asked of slices that hold several models, but for latency."""
    tables = {name: problem.profiles.get(name, ProfileTable(())) for name in plan.graphs}
    most = _most_shared_load(problem, options)
    for gpu in plan.gpus:
        for placed in gpu.layout:
            if len(placed.models) < 2:
                continue
            where, load = f"{gpu.id} {placed.placement}", 0.0
            if not options.share:
                yield f"{where} holds {len(placed.models)} models, not one"
            for model in placed.models:
                task = plan.graphs[model.graph].tasks.get(model.task) if model.graph in plan.graphs else None
                table = tables.get(model.graph, ProfileTable(()))
                row = _row(table, gpu.model, placed.placement.slice, model)
                if task is None or row is None:
                    yield f"{where}: {model.graph}/{model.task} is not planned for, or has no profile there"
                    continue
                load += _busy(task.rate_rps, row)
                if model.instances != 1:
                    yield f"{where}: {model.instances} instances of {model.graph}/{model.task} share a slice"
                if sum(s.count for s in task.segments) != 1:
                    yield f"{where}: {model.graph}/{model.task} shares a slice and has other replicas"
            if load > most * (1 + TOLERANCE):
                yield f"{where} is shared and busy for {load:.3f} of its time, more than {most:.3f}"


def _busy(rate_rps: float, row: ProfileRow) -> float:
    """The part of its time that a slice is busy with calls that come one by one."""
    return rate_rps * max(row.latency_p95_ms / 1000, 1 / row.throughput_rps)


def _most_shared_load(problem: Problem, options: Options) -> float:
    if options.latency_model == "2p95":
        return min(SHARED_LOAD, options.usable)
    late = min((1 - w.graph.slo.percentile / 100) / len(w.graph.tasks) for w in problem.workloads)
    return min(SHARED_LOAD, math.cbrt(late / 1.2))


def _row(table: ProfileTable, board: str, kind: str, model: PlacedModel) -> ProfileRow | None:
    return table.get(ProfileKey(board, model.task, model.variant, kind, model.instances, model.batch))


def _total_violations(plan: Plan, problem: Problem) -> Iterator[str]:
    boards = {board.name: board for board in problem.boards}
    slices = sum(
        boards[gpu.model].profiles[placed.placement.slice].compute_slices
        for gpu in plan.gpus
        for placed in gpu.layout
        if gpu.model in boards and placed.placement.slice in boards[gpu.model].profiles
    )
    for what, said, counted in (
        ("slices used", plan.slices_used, slices),
        ("slices in all", plan.slices_total, problem.cluster.compute_slices),
        ("GPUs used", plan.gpus_used, len(plan.gpus)),
    ):
        if said != counted:
            yield f"{what}: {said} said, {counted} counted"


@dataclass(frozen=True, slots=True)
class _GraphCheck:
    """Checks one graph's part of a plan."""

    plan: Plan
    promised: GraphPlan
    workload: Workload
    table: ProfileTable
    options: Options
    tables: Mapping[str, ProfileTable]
    most_shared_load: float

    @property
    def graph(self) -> TaskGraph:
        return self.workload.graph

    def violations(self) -> Iterator[str]:
        """All of them."""
        if set(self.promised.tasks) != set(self.graph.tasks):
            yield f"it has the tasks {sorted(self.promised.tasks)}, not {sorted(self.graph.tasks)}"
            return
        if not _close(self.promised.demand_rps, self.workload.demand_rps):
            yield f"it is for {self.promised.demand_rps} requests/s, not {self.workload.demand_rps}"
        if not self.workload.demand_rps * (1 - TOLERANCE) <= self.promised.capacity_rps < math.inf:
            yield f"its capacity {self.promised.capacity_rps} is not from the demand {self.workload.demand_rps} on"
        for name, task in self.promised.tasks.items():
            unknown = {s.variant for s in task.segments} - {v.name for v in self.graph.tasks[name].variants}
            if unknown or not task.segments:
                yield f"{name}: it has no segments, or of unknown variants {sorted(unknown)}"
                return
        yield from self._count_violations()
        yield from self._rate_violations()
        yield from self._latency_violations()
        yield from self._accuracy_violations()
        if "A" not in self.options.features:
            yield from self._variant_violations()
        if "T" not in self.options.features:
            yield from self._even_violations()

    def _placed(self, task: str) -> Counter[tuple[str, str, str, int, int]]:
        """(board, variant, slice, instances, batch) -> replicas on the GPUs."""
        return Counter(
            (gpu.model, m.variant, placed.placement.slice, m.instances, m.batch)
            for gpu in self.plan.gpus
            for placed in gpu.layout
            for m in placed.models
            if (m.graph, m.task) == (self.graph.name, task)
        )

    def _count_violations(self) -> Iterator[str]:
        for name, task in self.promised.tasks.items():
            said = Counter[tuple[str, str, int, int]]()
            for s in task.segments:
                said[s.variant, s.slice, s.instances, s.batch] += s.count
            placed = Counter[tuple[str, str, int, int]]()
            for (_, *segment), count in self._placed(name).items():
                # The checker does not know how many items a starred name takes.
                placed[tuple(segment)] += count  # type: ignore[index]
            if len(task.segments) > len(said):
                yield f"{name}: a segment is listed more than once"
            if said != placed:
                yield f"{name}: its segments and what is placed differ: {dict(said)}, {dict(placed)}"
            if not _close(sum(s.share for s in task.segments), 1.0) or any(s.share < 0 for s in task.segments):
                yield f"{name}: its shares do not add up to 1"

    def _rates(self) -> dict[str, float]:
        """Calls a second of each task at the demand, by the plan's own shares."""
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
                yield f"{name}: {task.rate_rps} calls/s said, {rate} counted"
            for segment in task.segments:
                carried = sum(count * row.throughput_rps * utilisation for row, count in self._rows(name, segment))
                if segment.share * rate > carried * (1 + TOLERANCE):
                    yield f"{name}: {segment} is to carry {segment.share * rate} calls/s of {carried}"

    def _most_utilisation(self) -> float:
        if self.options.formulation == "paper":
            return 1.0
        return max(LOADS) if self.options.latency_model == "queue" else self.options.utilisation

    def _rows(self, task: str, segment: Segment) -> list[tuple[ProfileRow, int]]:
        """Profiles and counts of a segment's replicas, by model of GPU."""
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
        needed = {name: self._needed_ms(name) for name in self.promised.tasks}
        for name, task in self.promised.tasks.items():
            # What is no number is within nothing.
            if not needed[name] <= task.budget_ms * (1 + TOLERANCE):
                yield f"{name}: {needed[name]} ms exceed its budget of {task.budget_ms} ms"
        limit = self.graph.tasks_ms
        for what, per_task in (("latencies", needed), ("budgets", _budgets(self.promised.tasks))):
            total = _worst(self.graph, per_task)
            if total > limit * (1 + TOLERANCE):
                yield f"the {what} along a path add up to {total} ms, over {limit} ms"
        # A plan's replicas may be less busy than the load that their latency was promised at.
        said, counted = self.promised.latency_ms, _worst(self.graph, needed) + self.graph.steps_ms
        slo_ms = self.graph.slo.latency_ms
        less_busy = self.options.latency_model == "queue" and counted <= said <= slo_ms * (1 + TOLERANCE)
        if not less_busy and not _close(said, counted):
            yield f"{said} ms said, {counted} ms counted"

    def _needed_ms(self, name: str) -> float:
        """The latency of a task, by its slowest segment; by the slice's cycle where it shares one."""
        alone, sharing = self._alone_ms(name), self._sharing_ms(name)
        if sharing is None:
            return alone
        return sharing[0] if sharing[1] > 1 else min(alone, sharing[0])

    def _sharing_ms(self, name: str) -> tuple[float, int] | None:
        """The latency of a task in a slice where models take turns, and their number; None where it is in no such."""
        placed = [
            (gpu.model, of)
            for gpu in self.plan.gpus
            for of in gpu.layout
            if any((m.graph, m.task) == (self.graph.name, name) for m in of.models)
        ]
        if not self.options.share or len(placed) != 1:
            return None
        ((board, of),) = placed
        (own,) = (m for m in of.models if (m.graph, m.task) == (self.graph.name, name))
        rows = [_row(self.tables[m.graph], board, of.placement.slice, m) for m in of.models if m.graph in self.tables]
        row = _row(self.table, board, of.placement.slice, own)
        if (
            row is None
            or own.instances != 1
            or _busy(self._rates()[name], row) > self.most_shared_load * (1 + TOLERANCE)
        ):
            return None
        cycle_ms = sum(r.latency_p95_ms for r in rows if r is not None)
        with_it = self._called_with(own, of.models)
        rows_with_it = [_row(self.table, board, of.placement.slice, m) for m in of.models if m in with_it]
        cycle_ms -= sum(r.latency_p95_ms for r in rows_with_it if r is not None)
        times = _latency_ms(row, self._rows_at_once(self.graph.tasks[name])) / row.latency_p95_ms
        return times * cycle_ms, len(of.models)

    def _called_with(self, own: PlacedModel, models: Sequence[PlacedModel]) -> list[PlacedModel]:
        """The other models of a slice that do the tasks of a chain with one of it: a worker calls them at once."""
        of_task = {m.task: m for m in models if m.graph == self.graph.name}
        after = {
            before: task
            for before, task in followers(self.graph).items()
            if {before, task} <= of_task.keys()
            and (self.graph.tasks[task].for_each is None or of_task[before].batch == of_task[task].batch)
        }
        chain = next((tasks for tasks in runs(after) if own.task in tasks), ())
        return [of_task[task] for task in chain if task != own.task]

    def _alone_ms(self, name: str) -> float:
        rows = self._rows_at_once(self.graph.tasks[name])
        segments = [(s, self._rows(name, s)) for s in self.promised.tasks[name].segments]
        if self.options.latency_model == "2p95":
            return max((_latency_ms(row, rows) for _, found in segments for row, _ in found), default=0.0)
        rate, times = self._rates()[name], service_times(self.table)
        quantile = 1 - (1 - self.graph.slo.percentile / 100) / len(self.graph.tasks)
        replicas = sum(segment.count for segment, _ in segments)

        def slowest_ms(ends: tuple[float, float]) -> float:
            """At this number of replicas, and the other, that pull from the queue."""
            slowest = 0.0
            for segment, found in segments:
                load = _load(segment.share * rate, found)
                for row, _ in found:
                    time, key = times[row.key], row.key
                    full = row.throughput_rps * time.occupied_ms / (1000 * key.batch * key.instances)
                    cases = tuple(
                        Case(time, int(min(n * key.instances, MOST_SERVERS)), u * full, rows)
                        for n in ends
                        for u in LOADS
                        if u <= load
                    )
                    slowest = max(slowest, time.full_ms(quantile), *latencies_ms(cases, quantile))
            return slowest

        return min(slowest_ms(ends) for ends in AMONG if ends[0] <= replicas <= ends[1])

    def _rows_at_once(self, task: Task) -> float:
        """Rows of one request, by the variants of the tasks they come from that yield most."""
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
        of_task = self._mean_accuracy if mean else self._least_accuracy
        least = math.exp(-_worst(self.graph, {name: -math.log(of_task(name)) for name in self.promised.tasks}))
        if least < self.graph.slo.accuracy * (1 - TOLERANCE):
            yield f"the accuracy along a path is {least}, below {self.graph.slo.accuracy}"
        if not _close(self.promised.accuracy, least):
            yield f"an accuracy of {self.promised.accuracy} said, {least} counted"

    def _least_accuracy(self, task: str) -> float:
        return min(self._relative(task, s.variant) for s in self.promised.tasks[task].segments)

    def _mean_accuracy(self, task: str) -> float:
        """By the shares of the task's calls; no more than 1, and above 0 whatever the shares say."""
        segments = self.promised.tasks[task].segments
        mean = sum(max(0.0, s.share) * self._relative(task, s.variant) for s in segments)
        return min(1.0, max(mean, _LEAST_ACCURACY))

    def _variant_violations(self) -> Iterator[str]:
        for name, task in self.promised.tasks.items():
            for variant in sorted({s.variant for s in task.segments if self._relative(name, s.variant) < 1}):
                yield f"{name}: {variant} is not its most accurate variant, without accuracy scaling"

    def _even_violations(self) -> Iterator[str]:
        """Each task's latency and accuracy within one part of so many as its longest path has tasks."""
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
    """The least of `LOADS` that a segment's replicas keep to at this rate.

    Where they are on several models of GPU the plan does not say which of those does how much: then the least of all.
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


def _worst(graph: TaskGraph, weight: Mapping[str, float]) -> float:
    """The largest sum along a path."""
    ending: dict[str, float] = {}
    for name, task in graph.tasks.items():
        ending[name] = weight[name] + max((ending[d] for d in graph.before(task)), default=0.0)
    return max(ending.values())


def _tasks_through(graph: TaskGraph) -> dict[str, int]:
    """Task -> tasks on the longest path through it."""
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
