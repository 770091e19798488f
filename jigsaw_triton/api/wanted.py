"""Reading everything that a plan or a deployment needs."""

from collections.abc import Collection, Mapping, Sequence

from jigsaw_triton.api.files import ONLY_GRAPH, GraphSource, Mistakes, PathLike, read_cluster, read_graphs
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.profile_files import check_processes, read_profiles_and_lines
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.accuracies import mixed_accuracies
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Problem
from jigsaw_triton.profiles.read import missing
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.spec.words import nearest


def read_demand(
    demand: Mapping[str, float],
    graphs: Sequence[str],
    mistakes: Mistakes,
    *,
    default_rps: float | None = None,
    others: Collection[str] = (),
    wording: Wording = PYTHON,
) -> dict[str, float]:
    """Checks the demand of each graph.

    Args:
        demand: Requests a second by graph; the key `ONLY_GRAPH` is the only graph.
        graphs: Names of the graphs.
        mistakes: Collection of mistakes.
        default_rps: Requests a second of graphs without a demand; None if each graph must have one.
        others: Names of graphs whose demand is read elsewhere, to suggest instead of an unknown name.
        wording: Form in which mistakes name an option.

    Returns:
        Requests a second by graph.
    """
    where, found = wording.name("demand"), dict[str, float]()
    for key, rps in demand.items():
        with mistakes:
            if key == ONLY_GRAPH and len(graphs) != 1:
                hint = f"write {wording.demand(graphs)}"
                raise InputError(f"it is not clear which graph has a demand of {rps:g}", where=where, hint=hint)
            if key != ONLY_GRAPH and key not in graphs:
                raise InputError(
                    f"there is no graph '{key}'", where=where, hint=nearest(key, (*others, *graphs), "graphs")
                )
            if not 0 < rps <= MAX_DEMAND_RPS:
                hint = f"give a number above 0 and up to {MAX_DEMAND_RPS:.0f}"
                raise InputError(f"{rps:g} is not a number of requests a second", where=where, hint=hint)
            name = key or graphs[0]
            if name in found:
                raise InputError(f"the graph {name} has two demands", where=where, hint="keep one")
            found[name] = rps
    missing_names = [name for name in graphs if name not in found]
    if default_rps is not None:
        return found | dict.fromkeys(missing_names, default_rps)
    if not mistakes.any_in(where):
        for name in missing_names:
            mistakes.add(where, f"the graph {name} has no demand", f"add {wording.demand([name])}")
    return found


def read_wanted(
    graphs: Sequence[GraphSource],
    *,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    demand: Mapping[str, float],
    default_rps: float | None = None,
    others: Collection[str] = (),
    profiles: Mapping[str, ProfileTable | PathLike] | None = None,
    to_serve: bool = True,
    mistakes: Mistakes | None = None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> Wanted:
    """Reads everything that a plan or a deployment needs.

    Args:
        graphs: See `read_graphs`.
        gpus: See `read_cluster`.
        cluster: See `read_cluster`.
        driver: See `read_cluster`.
        demand: See `read_demand`.
        default_rps: See `read_demand`.
        others: See `read_demand`.
        profiles: See `read_profile_tables`.
        to_serve: True if model files must exist and this release must be able to serve on the cluster.
        mistakes: Mistakes that were found before.
        reporter: Recipient of notes about variants without profiles, and about emulation.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes; the error has all of them.
    """
    mistakes = mistakes or Mistakes()
    found = read_graphs(graphs, mistakes, require_files=to_serve)
    tables = read_profiles_and_lines(found, mistakes, given=profiles, sources=graphs)
    built = read_cluster(mistakes, gpus=gpus, cluster=cluster, driver=driver, reporter=reporter, wording=wording)
    # The demand of a graph that could not be read would be reported as that of an unknown graph.
    complete = len(found) == len(graphs)
    demand_rps = (
        read_demand(demand, list(found), mistakes, default_rps=default_rps, others=others, wording=wording)
        if complete
        else {}
    )
    if built is not None:
        check_processes(found, tables, built, mistakes)
    mistakes.raise_if_any()
    assert built is not None
    boards = sorted({gpu.board.name for gpu in built.gpus})
    for name, graph in found.items():
        for sentence in missing(graph, tables[name].table, boards):
            reporter.note(f"{name}: {sentence}")
        for sentence in mixed_accuracies(graph):
            reporter.warn(f"{name}: {sentence}")
    return Wanted(found, demand_rps, {name: one.table for name, one in tables.items()}, built)


def make_problem(wanted: Wanted, *, running: Plan | None = None) -> Problem:
    """Returns the planner's problem.

    Args:
        wanted: Graphs, demands, profiles and cluster to plan for.
        running: Plan that is running now.
    """
    workloads = tuple(Workload(graph, wanted.demand_rps[name]) for name, graph in wanted.graphs.items())
    return Problem(workloads, wanted.cluster, wanted.profiles, running=running)
