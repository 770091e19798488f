"""Benchmark of the planner: time to a proven optimum, and correctness of plans, on `benchmarks.problems`."""

import math
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import exhaustive, harness, problems
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import find_plan, make_plan
from jigsaw_triton.planner.validation.validate import violations

GOALS_S = {4: 0.3, 120: 0.7, 1000: 1.0}
"""GPUs of the cluster -> goal for the seconds to the proven optimum."""

TASKS_GOALS_S = {8: 2.0, 16: 5.0}
"""Tasks of the graph -> goal for the seconds to a plan with a gap of 0.1%."""

LIMIT_S = 20.0
"""Time limit of a plan in seconds, with which the benchmark stays within its own limit."""

ROUNDS = 3
SEED = 2603
INSTANCES = 200
INSTANCE_LIMIT_S = 3.0
INSTANCE_ROWS = 0.2
"""Share of the configurations for which a random instance has profiles."""

HUGE = 10_000
GRAPHS, GRAPHS_GPUS = 20, 200


def instances(gpus: int) -> dict[str, Problem]:
    """Returns the reference graphs of three tasks, and made-up graphs, by name."""
    found = {name: problems.a100_problem(name, gpus) for name in problems.a100_names()}
    made = {f"made-up {n}": problems.fan_out_problem(random.Random(SEED + n), gpus) for n in range(ROUNDS)}
    return found | made


def optimum(gpus: int, progress: Progress) -> list[Figure]:
    """Measures the time to the optimum, and the share of instances that are proven within the time limit."""
    seconds, proven, busy = [], [], []
    for name, problem in instances(gpus).items():
        began, worked = time.monotonic(), _processor_s()
        plan = make_plan(problem, Options(time_limit_s=LIMIT_S))
        seconds.append(time.monotonic() - began)
        busy.append(_processor_s() - worked)
        proven.append(plan.solver.status == "optimal")
        what = f"{plan.slices_used} of {plan.slices_total} slices, gap {plan.solver.gap:.4f}"
        progress(f"{gpus} GPUs, {name}: {seconds[-1]:.2f} s, {plan.solver.status}, {what}")
    configurations = max(len(p.profiles[p.workloads[0].graph.name]) for p in instances(1).values())
    note = (
        f"median of {len(seconds)} instances of 3 tasks, {spread(seconds)}; processor time {spread(busy)} s; up to"
        f" {configurations} configurations; including the start of the solver and the check of the plan"
    )
    share = f"of {len(proven)} instances; slices, GPUs and accuracy were all proven optimal"
    return [
        figure(f"planner.optimum_s.{gpus}_gpus", median(seconds), "s", note, at_most=GOALS_S[gpus]),
        figure(f"planner.proven.{gpus}_gpus", sum(proven) / len(proven), "share", share),
    ]


def huge(progress: Progress) -> list[Figure]:
    """Measures the time to a plan for ten thousand GPUs, and the memory in a process of its own."""
    seconds = []
    for name, problem in instances(HUGE).items():
        seconds.append(_timed(problem, 0.001, f"{HUGE} GPUs, {name}", progress))
    note = f"median of {len(seconds)} instances of 3 tasks, {spread(seconds)}; gap 0.1%"
    command = [sys.executable, "-c", "from benchmarks.planner import peak_mib; print(peak_mib())"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    peak = "largest memory of the planning process plus that of the solver process"
    return [
        figure(f"planner.optimum_s.{HUGE}_gpus", median(seconds), "s", note, at_most=2.0),
        figure("planner.peak_mib", float(output.stdout), "MiB", peak, at_most=500),
    ]


def peak_mib() -> float:
    """Returns the peak memory of planning for ten thousand GPUs. Call it in a process that does nothing else."""
    make_plan(next(iter(instances(HUGE).values())), Options(gap=0.001))
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage) / 1024


def tasks(count: int, progress: Progress) -> Figure:
    """Measures the time to a plan for chains and trees with this number of tasks."""
    seconds = [
        _timed(
            problems.chain_or_tree(random.Random(seed), count, tree=tree, gpus=120),
            0.001,
            f"{'tree' if tree else 'chain'} of {count} tasks",
            progress,
        )
        for tree in (False, True)
        for seed in range(ROUNDS)
    ]
    note = f"median of {len(seconds)}, {spread(seconds)}; half chains, half trees, 120 GPUs, gap 0.1%"
    return figure(f"planner.tasks_s.{count}", median(seconds), "s", note, at_most=TASKS_GOALS_S[count])


def graphs(progress: Progress) -> Figure:
    """Measures the time to a plan for many graphs together."""
    seconds = [
        _timed(problems.many_graphs(random.Random(seed), GRAPHS, GRAPHS_GPUS), 0.005, f"{GRAPHS} graphs", progress)
        for seed in range(ROUNDS)
    ]
    note = f"median of {len(seconds)}, {spread(seconds)}; three tasks each on {GRAPHS_GPUS} GPUs, gap 0.5%"
    return figure(f"planner.graphs_s.{GRAPHS}", median(seconds), "s", note, at_most=5.0)


def _timed(problem: Problem, gap: float, what: str, progress: Progress) -> float:
    """Returns the seconds to a plan within the gap; infinite if the plan has a larger gap."""
    began = time.monotonic()
    plan = make_plan(problem, Options(time_limit_s=LIMIT_S, gap=gap))
    seconds = time.monotonic() - began
    progress(f"{what}: {seconds:.2f} s, {plan.slices_used} slices on {plan.gpus_used} GPUs, gap {plan.solver.gap:.4f}")
    return seconds if plan.solver.gap <= gap else math.inf


def _processor_s() -> float:
    """Returns the processor time of this process and of its ended child processes, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def placed(progress: Progress) -> Figure:
    """Measures the share of plans for random instances that pass the independent validation."""
    options = Options(time_limit_s=INSTANCE_LIMIT_S)
    accepted: list[bool] = []
    infeasible = 0
    for number in range(INSTANCES):
        problem = problems.random_problem(random.Random(f"{SEED} {number}"), INSTANCE_ROWS)
        try:
            accepted.append(not violations(make_plan(problem, options), problem, options))
        except InfeasibleError:
            infeasible += 1
        except JigsawError as error:
            # The planner's own check refused the plan, or no plan was found within the time limit.
            progress(f"instance {number}: {error}")
            accepted.append(False)
    note = (
        f"{len(accepted)} plans of {INSTANCES} random instances of 1 to 6 GPUs; {infeasible} instances have no plan;"
        f" at most {INSTANCE_LIMIT_S:g} s each"
    )
    return figure("planner.placed", sum(accepted) / len(accepted), "share", note, at_least=1.0)


def brute_force(progress: Progress) -> Figure:
    """Measures the share of small instances for which exhaustive search gives the same result."""
    options = Options()
    agreed, planned = 0, 0
    for number in range(INSTANCES):
        problem = problems.small_problem(random.Random(f"small {SEED} {number}"))
        plan, best = find_plan(problem, options), exhaustive.least_slices(problem, options)
        planned += best is not None
        if (plan.slices_used if plan else None) == best:
            agreed += 1
        else:
            progress(f"small instance {number}: {plan.slices_used if plan else None} slices planned, optimum {best}")
    note = (
        f"same slices as exhaustive search, or both infeasible; {INSTANCES} instances of 1 or 2 tasks on 1 or 2 GPUs, "
        f"{planned} with a plan"
    )
    return figure("planner.brute_force", agreed / INSTANCES, "share", note, at_least=1.0)


def measure(progress: Progress) -> Sequence[Figure]:
    """Measures all figures."""
    found = [f for gpus in GOALS_S for f in optimum(gpus, progress)]
    found += huge(progress)
    found += [tasks(count, progress) for count in TASKS_GOALS_S]
    found.append(graphs(progress))
    progress(f"{INSTANCES} random instances")
    found.append(placed(progress))
    progress(f"{INSTANCES} small instances")
    return [*found, brute_force(progress)]


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("planner", measure))
