"""How fast the planner proves the optimum, and whether its plans hold what they say, on `benchmarks.problems`."""

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
from benchmarks.harness import Figure, Tell, figure, spread
from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import find_plan, make_plan
from jigsaw_triton.planner.validation.validate import violations

GOALS_S = {4: 0.3, 120: 0.7, 1000: 1.0}
"""Size of the cluster -> seconds to the proven optimum."""

TASKS_GOALS_S = {8: 2.0, 16: 5.0}
LIMIT_S = 20.0
"""A plan may take, so that all together stay within a benchmark's time."""

ROUNDS = 3
SEED = 2603
INSTANCES = 200
INSTANCE_LIMIT_S = 3.0
INSTANCE_ROWS = 0.2
"""Share of the configurations that a random instance has profiles of."""

HUGE = 10_000
GRAPHS, GRAPHS_GPUS = 20, 200


def instances(gpus: int) -> dict[str, Problem]:
    """The reference graphs of three tasks, and made-up ones."""
    found = {name: problems.a100_problem(name, gpus) for name in problems.a100_names()}
    made = {f"made-up {n}": problems.fan_out_problem(random.Random(SEED + n), gpus) for n in range(ROUNDS)}
    return found | made


def optimum(gpus: int, tell: Tell) -> list[Figure]:
    """How many of the instances were proven within the limit, and how long it took."""
    seconds, proven, busy = [], [], []
    for name, problem in instances(gpus).items():
        began, worked = time.monotonic(), _processor_s()
        plan = make_plan(problem, Options(time_limit_s=LIMIT_S))
        seconds.append(time.monotonic() - began)
        busy.append(_processor_s() - worked)
        proven.append(plan.solver.status == "optimal")
        what = f"{plan.slices_used} of {plan.slices_total} slices, gap {plan.solver.gap:.4f}"
        tell(f"{gpus} GPUs, {name}: {seconds[-1]:.2f} s, {plan.solver.status}, {what}")
    configurations = max(len(p.profiles[p.workloads[0].graph.name]) for p in instances(1).values())
    note = (
        f"median of {len(seconds)} instances of 3 tasks, {spread(seconds)}; processor time {spread(busy)} s; up to"
        f" {configurations} configurations; with starting a solver and checking the plan"
    )
    share = f"of the {len(proven)} instances slices, GPUs and accuracy were all proven best"
    return [
        figure(f"planner.optimum_s.{gpus}_gpus", median(seconds), "s", note, at_most=GOALS_S[gpus]),
        figure(f"planner.proven.{gpus}_gpus", sum(proven) / len(proven), "share", share),
    ]


def huge(tell: Tell) -> list[Figure]:
    """Ten thousand GPUs: time, and memory in a process of its own."""
    seconds = []
    for name, problem in instances(HUGE).items():
        seconds.append(_timed(problem, 0.001, f"{HUGE} GPUs, {name}", tell))
    note = f"median of {len(seconds)} instances of 3 tasks, {spread(seconds)}; gap 0.1%"
    command = [sys.executable, "-c", "from benchmarks.planner import peak_mib; print(peak_mib())"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    peak = "of the process that plans and of the solver's, each at its largest, together"
    return [
        figure(f"planner.optimum_s.{HUGE}_gpus", median(seconds), "s", note, at_most=2.0),
        figure("planner.peak_mib", float(told.stdout), "MiB", peak, at_most=500),
    ]


def peak_mib() -> float:
    """What planning for ten thousand GPUs takes of memory, in a process that does nothing else."""
    make_plan(next(iter(instances(HUGE).values())), Options(gap=0.001))
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage) / 1024


def tasks(count: int, tell: Tell) -> Figure:
    """Chains and trees."""
    seconds = [
        _timed(
            problems.chain_or_tree(random.Random(seed), count, tree=tree, gpus=120),
            0.001,
            f"{'tree' if tree else 'chain'} of {count} tasks",
            tell,
        )
        for tree in (False, True)
        for seed in range(ROUNDS)
    ]
    note = f"median of {len(seconds)}, {spread(seconds)}; half chains, half trees, 120 GPUs, gap 0.1%"
    return figure(f"planner.tasks_s.{count}", median(seconds), "s", note, at_most=TASKS_GOALS_S[count])


def graphs(tell: Tell) -> Figure:
    """Many graphs at once."""
    seconds = [
        _timed(problems.many_graphs(random.Random(seed), GRAPHS, GRAPHS_GPUS), 0.005, f"{GRAPHS} graphs", tell)
        for seed in range(ROUNDS)
    ]
    note = f"median of {len(seconds)}, {spread(seconds)}; three tasks each on {GRAPHS_GPUS} GPUs, gap 0.5%"
    return figure(f"planner.graphs_s.{GRAPHS}", median(seconds), "s", note, at_most=5.0)


def _timed(problem: Problem, gap: float, what: str, tell: Tell) -> float:
    """Seconds to a plan within the gap; infinite where there was none."""
    began = time.monotonic()
    plan = make_plan(problem, Options(time_limit_s=LIMIT_S, gap=gap))
    seconds = time.monotonic() - began
    tell(f"{what}: {seconds:.2f} s, {plan.slices_used} slices on {plan.gpus_used} GPUs, gap {plan.solver.gap:.4f}")
    return seconds if plan.solver.gap <= gap else math.inf


def _processor_s() -> float:
    """Time that processors have worked for this process and for those it has started and seen end."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def placed(tell: Tell) -> Figure:
    """The share of plans for random instances in which the independent check finds nothing wrong."""
    options = Options(time_limit_s=INSTANCE_LIMIT_S)
    accepted: list[bool] = []
    infeasible = 0
    for number in range(INSTANCES):
        asked = problems.random_problem(random.Random(f"{SEED} {number}"), INSTANCE_ROWS)
        try:
            accepted.append(not violations(make_plan(asked, options), asked, options))
        except InfeasibleError:
            infeasible += 1
        except JigsawError as error:
            # Where its own check refused the plan, or where there was none within the limit.
            tell(f"instance {number}: {error}")
            accepted.append(False)
    note = (
        f"{len(accepted)} plans of {INSTANCES} random instances of 1 to 6 GPUs; {infeasible} instances have no plan;"
        f" at most {INSTANCE_LIMIT_S:g} s each"
    )
    return figure("planner.placed", sum(accepted) / len(accepted), "share", note, at_least=1.0)


def brute_force(tell: Tell) -> Figure:
    """The share of small instances where trying everything comes to the same."""
    options = Options()
    agreed, planned = 0, 0
    for number in range(INSTANCES):
        asked = problems.small_problem(random.Random(f"small {SEED} {number}"))
        plan, best = find_plan(asked, options), exhaustive.least_slices(asked, options)
        planned += best is not None
        if (plan.slices_used if plan else None) == best:
            agreed += 1
        else:
            tell(f"small instance {number}: {plan.slices_used if plan else None} slices planned, {best} are least")
    note = (
        f"slices, or that there is no plan; {INSTANCES} instances of 1 or 2 tasks on 1 or 2 GPUs, {planned} with a plan"
    )
    return figure("planner.brute_force", agreed / INSTANCES, "share", note, at_least=1.0)


def measure(tell: Tell) -> Sequence[Figure]:
    """All figures."""
    found = [f for gpus in GOALS_S for f in optimum(gpus, tell)]
    found += huge(tell)
    found += [tasks(count, tell) for count in TASKS_GOALS_S]
    found.append(graphs(tell))
    tell(f"{INSTANCES} random instances")
    found.append(placed(tell))
    tell(f"{INSTANCES} small instances")
    return [*found, brute_force(tell)]


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("planner", measure))
