"""Replicas that move most bytes are on the gateway's node, where that changes nothing else."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.plan import Plan, PlannedGpu
from jigsaw_triton.planner.placement.placement import placement
from jigsaw_triton.planner.solver.solver import SolverProcess
from tests.planner.placement.test_placement import CPU, configuration, running

KINDS = ("1g", "2g", "3g")
MEGABYTES = {("g", "a", "v0"): 9.0, ("g", "b", "v0"): 3.0, ("g", "c", "v0"): 0.0}


def two_nodes(gpus: int = 1) -> Cluster:
    ids = [GpuId(node, index) for node in ("a", "b") for index in range(gpus)]
    return Cluster(tuple(Gpu(id_, CPU) for id_ in ids), gateway_node="b")


def placed(
    highs: SolverProcess, on: Cluster, counts: Mapping[Configuration, int], before: Plan | None = None
) -> tuple[PlannedGpu, ...]:
    program = placement(on, counts, len(on.gpus), before, (), MEGABYTES)
    return program.placed(highs.solve(program.program, 10).values)


def tasks_on(node: str, gpus: tuple[PlannedGpu, ...]) -> Counter[str]:
    return Counter(placed.models[0].task for gpu in gpus if gpu.id.node == node for placed in gpu.layout)


def test_the_tasks_of_the_largest_tensors_are_on_the_gateways_node(highs: SolverProcess) -> None:
    counts = {configuration(task, "1g"): 4 for task in "cba"}
    got = placed(highs, two_nodes(), counts)
    assert tasks_on("b", got) == {"a": 4, "b": 3}


def test_nothing_that_runs_moves_for_the_sake_of_bytes(highs: SolverProcess) -> None:
    before = replace(
        running({0: {f"1g@{i}": "a" for i in range(4)}}, node="a"),
        gpus=(
            *running({0: {f"1g@{i}": "a" for i in range(4)}}, node="a").gpus,
            *running({0: {f"1g@{i}": "c" for i in range(4)}}, node="b").gpus,
        ),
    )
    counts = {configuration("a", "1g"): 4, configuration("c", "1g"): 4, configuration("b", "1g"): 1}
    got = placed(highs, two_nodes(), counts, before)
    assert tasks_on("a", got) == {"a": 4}
    assert tasks_on("b", got) == {"c": 4, "b": 1}


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_placements_near_the_gateway_agree_with_exhaustive_search(data: st.DataObject, highs: SolverProcess) -> None:
    """One kind of slice fits a GPU twice, so that all placements can be listed: which tasks are on which node."""
    counts = {task: data.draw(st.integers(0, 2)) for task in "abc"}
    wanted = {configuration(task, "3g"): n for task, n in counts.items() if n}
    total = sum(counts.values())
    if not 0 < total <= 4:
        return
    ran = {
        node: {place: data.draw(st.sampled_from("abcx")) for place in ("3g@0", "3g@4") if data.draw(st.booleans())}
        for node in ("a", "b")
    }
    before = running({}, node="a")
    before = replace(
        before, gpus=tuple(gpu for node, of in ran.items() if of for gpu in running({0: of}, node=node).gpus)
    )
    got = placed(highs, two_nodes(), wanted, before)
    best = max(
        scored(here, there, ran)
        for here in itertools.product("abc-", repeat=2)
        for there in itertools.product("abc-", repeat=2)
        if Counter(task for task in here + there if task != "-") == Counter({t: n for t, n in counts.items() if n})
    )
    sides = {
        node: {str(s.placement): s.models[0].task for g in got if g.id.node == node for s in g.layout} for node in "ab"
    }
    here, there = (tuple(sides[node].get(place, "-") for place in ("3g@0", "3g@4")) for node in ("a", "b"))
    assert scored(here, there, ran) == best


def scored(here: tuple[str, ...], there: tuple[str, ...], ran: Mapping[str, Mapping[str, str]]) -> tuple[float, ...]:
    """Returns the objectives, the greater the better: replicas and instances that stay, GPUs, and bytes."""
    slots = [
        (ran[node].get(place), task)
        for node, tasks in (("a", here), ("b", there))
        for place, task in zip(("3g@0", "3g@4"), tasks, strict=True)
    ]
    stay = sum(task != "-" and was == task for was, task in slots)
    instances = sum(task != "-" and was is not None for was, task in slots)
    gpus = sum(any(task != "-" for task in tasks) for tasks in (here, there))
    return stay, instances, -gpus, sum(MEGABYTES["g", task, "v0"] for task in there if task != "-")
