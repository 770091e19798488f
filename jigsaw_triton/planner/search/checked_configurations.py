"""Configurations of a problem, after a check that each task of each graph has some within the limits of its SLO."""

from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.planner.candidates.configurations import TaskConfigurations, available
from jigsaw_triton.planner.candidates.filters import within_even_parts
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search import diagnosis
from jigsaw_triton.planner.search.choices import staying
from jigsaw_triton.profiles.table import ProfileTable


def checked_configurations(problem: Problem, options: Options) -> dict[str, TaskConfigurations]:
    """Returns the configurations of each task of each graph.

    Raises:
        InputError: The cluster forbids an option.
        InfeasibleError: A task has no configuration, or latency or accuracy alone is out of reach.
    """
    if options.share and problem.cluster.processes == "mps":
        raise InputError(
            "models cannot share a slice under MPS, where processes do not take turns",
            hint="leave out --share, or write `processes: streams` in cluster.yaml",
        )
    if problem.cluster.survive is not None and (options.share or options.ideal_packing):
        what = "models that share a slice have one replica" if options.share else "the paper's formulation has no nodes"
        raise InputError(
            f"{what}, so that no plan survives the loss of a {problem.cluster.survive.loss_of}",
            hint="leave out --share, or `survive` in cluster.yaml" if options.share else "leave out `survive`",
        )
    everything: dict[str, TaskConfigurations] = {}
    reasons: list[str] = []
    boards, stay = problem.boards, staying(problem, options)
    for workload in problem.workloads:
        graph = workload.graph
        table = problem.profiles.get(graph.name, ProfileTable(()))
        everything[graph.name] = available(graph, table, boards, options, stay)
        reasons += diagnosis.missing_profiles(graph, table, boards, everything[graph.name], options)
    if reasons:
        hint = diagnosis.missing_hint(problem.workloads, problem.profiles, problem.boards, options)
        raise InfeasibleError(reasons, hint=hint)
    for workload in problem.workloads:
        reasons += diagnosis.single_limits(workload.graph, everything[workload.graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="loosen the SLO, or profile faster or more accurate configurations")
    if "T" in options.features:
        return everything
    for workload in problem.workloads:
        reasons += diagnosis.even_limits(workload.graph, everything[workload.graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="loosen the SLO, or plan with feature T")
    return {w.graph.name: within_even_parts(w.graph, everything[w.graph.name]) for w in problem.workloads}
