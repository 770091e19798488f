"""Plans: making them, finding the largest demand, and explaining them."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jigsaw_triton.api.files import ONLY_GRAPH, GraphSource, PathLike
from jigsaw_triton.api.machine import Driver, surveyed, uncut_gpus
from jigsaw_triton.api.reporting import LOG, Reporter
from jigsaw_triton.api.wanted import make_problem, read_wanted
from jigsaw_triton.errors import InfeasibleError, InputError, OverloadedProcessorError, UnplacedError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.cells.model import Partition
from jigsaw_triton.planner.cells.partition import Alternative, Cells
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.explain.conflict import find_conflict, with_conflict
from jigsaw_triton.planner.explain.explain import explained
from jigsaw_triton.planner.explain.explanation import Explanation
from jigsaw_triton.planner.search.solve import (
    LargestDemand,
    SolverFactory,
    largest_demand,
    make_largest_plan,
    make_plan,
)
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.planner.standby import with_standby
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.spec.words import nearest

Graphs = GraphSource | Sequence[GraphSource]
"""One or several graphs, each a `TaskGraph` or the path of a graph.yaml or its folder."""

Demand = float | Mapping[str, float]
"""Requests a second of the only graph, or by graph."""

Profiles = ProfileTable | PathLike | Mapping[str, ProfileTable | PathLike]
"""Profiles of the only graph, or by graph; each a table, or the path of a profiles.csv or its folder."""

DEFAULT_OPTIONS = Options()

EQUAL_RPS = 1.0
"""Demand of each graph if only the proportion counts and none is given, in requests a second."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The largest demand that a cluster can serve.

    Attributes:
        plan: Plan for the largest demand; `plan.solver.status` is `optimal` if no larger demand can be served.
        ideal: Demand by ideal packing, in the paper's formulation, whose placement may fail; else None.
    """

    plan: Plan
    ideal: LargestDemand | None = None

    @property
    def rps(self) -> Mapping[str, float]:
        """Requests a second by graph."""
        if self.ideal is not None:
            return self.ideal.rps
        return {name: graph.demand_rps for name, graph in self.plan.graphs.items()}


def load_problem(
    graphs: Graphs,
    *,
    demand: Demand | None = None,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    running: Plan | None = None,
    reporter: Reporter = LOG,
) -> Problem:
    """Reads the files of a planning problem.

    Args:
        graphs: Graphs, or paths of graph.yaml files or their folders.
        demand: Requests a second; by default the graphs have equal demands of 1, which `capacity` scales.
        gpus: GPUs of one machine, such as `4xA100-80GB`, or `2xcpu`. Either `gpus` or `cluster` is required.
        cluster: A cluster, or the path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        running: Plan that is running now: among equally good plans, the one that keeps most of it is chosen.
        reporter: Recipient of notes and warnings; by default the logger `jigsaw_triton`.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.

    Examples:
        >>> import jigsaw_triton as jt
        >>> problem = jt.load_problem("app", demand=20, gpus="2xcpu")
        >>> [(w.graph.name, w.demand_rps) for w in problem.workloads]
        [('hello', 20)]
    """
    wanted = read_wanted(
        as_sources(graphs),
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        demand=as_mapping(demand),
        default_rps=EQUAL_RPS if demand is None else None,
        profiles=as_profiles(profiles),
        to_serve=False,
        reporter=reporter,
    )
    for sentence in uncut_gpus(surveyed(wanted.cluster)):
        reporter.warn(sentence)
    return make_problem(wanted, running=running)


def plan(
    graphs: Graphs | Problem,
    *,
    demand: Demand | None = None,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    running: Plan | None = None,
    options: Options = DEFAULT_OPTIONS,
    reporter: Reporter = LOG,
) -> Plan:
    """Chooses variants, slices and GPUs for a demand.

    The plan uses the fewest compute slices that meet the latency and accuracy of each graph at the demand, then the
    fewest GPUs, then has the highest accuracy. Slices with room get a lighter standby variant for bursts, unless the
    options say otherwise. Notebooks show the plan as a drawing of the GPUs.

    Args:
        graphs: A problem, or graphs as in `load_problem`.
        demand: See `load_problem`; required unless `graphs` is a problem.
        gpus: See `load_problem`.
        cluster: See `load_problem`.
        driver: See `load_problem`.
        profiles: See `load_problem`.
        running: See `load_problem`.
        options: Time limit, features and other options of the planner.
        reporter: See `load_problem`.

    Raises:
        InfeasibleError: No plan meets the requirements. The error has the reasons, a smallest set of requirements that
            cannot be satisfied together, and for each requirement the nearest value that can.
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        JigsawError: No plan was found within the time limit.

    Examples:
        >>> import jigsaw_triton as jt
        >>> plan = jt.plan("app", demand=20, gpus="2xcpu")
        >>> plan.gpus_used, plan.solver.status
        (1, 'optimal')
    """
    if isinstance(graphs, Problem):
        return make_diagnosed_plan(graphs, options, reporter.note)
    if demand is None:
        raise InputError("no demand is given", where="demand", hint="give the requests a second to plan for")
    problem = load_problem(
        graphs,
        demand=demand,
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        profiles=profiles,
        running=running,
        reporter=reporter,
    )
    return make_diagnosed_plan(problem, options, reporter.note)


def make_diagnosed_plan(problem: Problem, options: Options, progress: Callable[[str], None]) -> Plan:
    """Makes a plan, or raises an error with the conflict between requirements.

    Args:
        problem: The problem.
        options: Options of the planner.
        progress: Function that receives a line when the search for the conflict begins.

    Raises:
        InfeasibleError: No plan meets the requirements.
        InputError: The problem or the options are wrong.
        JigsawError: No plan was found within the time limit.
    """
    with lasting_solvers() as solvers, _diagnosed(problem, options, solvers, progress):
        return with_standby(problem, make_plan(problem, options, solvers=solvers), options)


@contextmanager
def _diagnosed(
    problem: Problem, options: Options, solvers: SolverFactory, progress: Callable[[str], None]
) -> Iterator[None]:
    """Adds the conflict between requirements to the error that no plan of the problem is feasible."""
    try:
        yield
    except (UnplacedError, OverloadedProcessorError):
        raise
    except InfeasibleError as error:
        progress("no plan is feasible: looking for the requirements in conflict")
        conflict = find_conflict(problem, options, solvers=solvers, clock=time.monotonic)
        raise error if conflict is None else with_conflict(error, problem, conflict) from None


def plan_cells(
    graphs: Graphs | Problem,
    *,
    cells: int | None = None,
    demand: Demand | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    running: Plan | Partition | None = None,
    options: Options = DEFAULT_OPTIONS,
    reporter: Reporter = LOG,
) -> Partition:
    """Divides a cluster of several nodes into cells, each with one gateway, and plans each cell for its share.

    Args:
        graphs: A problem, or graphs as in `load_problem`. The running plan of a problem does not count.
        cells: Number of cells; None for the fewest whose gateways carry the demand.
        demand: See `load_problem`; required unless `graphs` is a problem.
        cluster: See `load_problem`.
        driver: See `load_problem`.
        profiles: See `load_problem`.
        running: Plan or partition that is running now. A cell of the same nodes keeps most of what runs there.
        options: Options of the planner. The time limit holds for each plan.
        reporter: See `load_problem`.

    Raises:
        InfeasibleError: No plan meets the requirements, or no division among that number of cells.
        OverloadedGatewayError: That number of gateways does not carry the demand.
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        JigsawError: No plan was found within the time limit.

    Examples:
        >>> from pathlib import Path
        >>> import jigsaw_triton as jt
        >>> nodes = "[{name: a, gpus: [{model: cpu}]}, {name: b, gpus: [{model: cpu}]}]"
        >>> text = f"{{apiVersion: jigsaw-triton/v1, kind: Cluster, spec: {{nodes: {nodes}}}}}"
        >>> _ = Path("cluster.yaml").write_text(text)
        >>> partition = jt.plan_cells("app", demand=20, cluster="cluster.yaml", cells=2)
        >>> [(cell.nodes, cell.weights["hello"]) for cell in partition.cells]
        [(('a',), 0.5), (('b',), 0.5)]
    """
    if isinstance(graphs, Problem):
        problem = graphs
    elif demand is None:
        raise InputError("no demand is given", where="demand", hint="give the requests a second to plan for")
    else:
        problem = load_problem(
            graphs, demand=demand, cluster=cluster, driver=driver, profiles=profiles, reporter=reporter
        )
    partition, _ = divide(problem, options, cells, running=running, progress=reporter.note)
    return partition


def divide(
    problem: Problem,
    options: Options,
    cells: int | None,
    *,
    running: Plan | Partition | None = None,
    explain: bool = False,
    progress: Callable[[str], None],
) -> tuple[Partition, tuple[Alternative, ...]]:
    """Divides a cluster into cells as `plan_cells` does.

    Args:
        problem: The problem.
        options: Options of the planner.
        cells: Number of cells; None for the fewest whose gateways carry the demand.
        running: Plan or partition that is running now.
        explain: True to compare with other numbers of cells.
        progress: Function that receives lines about the work in progress.

    Returns:
        The partition, and other numbers of cells; none unless `explain`.
    """
    with lasting_solvers() as solvers:
        with _diagnosed(problem, options, solvers, progress):
            found = Cells(problem, options, solvers=solvers, running=_by_nodes(running, problem), progress=progress)
        partition = found.choose() if cells is None else found.divide(cells)
        return partition, found.alternatives(len(partition.cells)) if explain else ()


def _by_nodes(running: Plan | Partition | None, problem: Problem) -> Mapping[frozenset[str], Plan]:
    """Returns the plans that run now by the nodes of their cells."""
    match running:
        case None:
            return {}
        case Plan():
            return {frozenset(gpu.id.node for gpu in problem.cluster.gpus): running}
        case Partition(cells):
            return {frozenset(cell.nodes): cell.plan for cell in cells}


def capacity(
    graphs: Graphs | Problem,
    *,
    demand: Demand | None = None,
    scale: Collection[str] | None = None,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    profiles: Profiles | None = None,
    options: Options = DEFAULT_OPTIONS,
    reporter: Reporter = LOG,
) -> Capacity:
    """Finds the largest demand that a cluster can serve, and its plan.

    Args:
        graphs: A problem, or graphs as in `load_problem`.
        demand: Proportion of the graphs' demands; equal by default.
        scale: Names of the graphs whose demand grows, all by default; the others keep theirs.
        gpus: See `load_problem`.
        cluster: See `load_problem`.
        driver: See `load_problem`.
        profiles: See `load_problem`.
        options: Time limit, features and other options of the planner.
        reporter: See `load_problem`.

    Raises:
        InfeasibleError: No demand can be served; the error has the reasons.
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.

    Examples:
        >>> import jigsaw_triton as jt
        >>> largest = jt.capacity("app", gpus="2xcpu")
        >>> largest.rps["hello"] > 100
        True
    """
    if isinstance(graphs, Problem):
        problem = graphs
    else:
        problem = load_problem(
            graphs, demand=demand, gpus=gpus, cluster=cluster, driver=driver, profiles=profiles, reporter=reporter
        )
    names = [workload.graph.name for workload in problem.workloads]
    growing = names if scale is None else list(scale)
    for name in growing:
        if name not in names:
            raise InputError(f"there is no graph '{name}'", where="scale", hint=nearest(name, names, "graphs"))
    # The placement of the paper's formulation may fail where its ideal packing does not.
    ideal = largest_demand(problem, options, scaled=growing) if options.formulation == "paper" else None
    return Capacity(make_largest_plan(problem, options, scaled=growing), ideal)


def explain(plan: Plan, problem: Problem, *, options: Options = DEFAULT_OPTIONS) -> Explanation:
    """Explains what each requirement costs, and what the next best of each choice would cost.

    It makes about ten plans for each graph and two or more for each task, within the time limit of `options`.

    Args:
        plan: Plan to explain.
        problem: Problem that the plan was made for.
        options: Options that the plan was made with.

    Examples:
        >>> import jigsaw_triton as jt
        >>> problem = jt.load_problem("app", demand=20, gpus="2xcpu")
        >>> explanation = jt.explain(jt.plan(problem), problem)
        >>> sorted({limit.requirement.what for limit in explanation.limits})
        ['accuracy', 'demand_rps', 'gpus', 'latency_ms']
    """
    with lasting_solvers() as solvers:
        return explained(plan, problem, options, solvers=solvers, clock=time.monotonic)


def as_sources(graphs: Graphs) -> tuple[GraphSource, ...]:
    """Returns one or several graphs as a tuple.

    Raises:
        InputError: No graph is given.
    """
    sources = tuple(graphs) if isinstance(graphs, Sequence) and not isinstance(graphs, str) else (graphs,)
    if not sources:
        raise InputError("no graph is given", where="graphs", hint="give at least one")
    return sources


def as_mapping(demand: Demand | None) -> dict[str, float]:
    """Returns a demand as a mapping, in which `ONLY_GRAPH` stands for the only graph."""
    if demand is None:
        return {}
    return dict(demand) if isinstance(demand, Mapping) else {ONLY_GRAPH: demand}


def as_profiles(profiles: Profiles | None) -> Mapping[str, ProfileTable | PathLike]:
    """Returns profiles as a mapping, in which `ONLY_GRAPH` stands for the only graph."""
    if profiles is None:
        return {}
    return profiles if isinstance(profiles, Mapping) else {ONLY_GRAPH: profiles}
