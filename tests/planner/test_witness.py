"""Tests of what bounds provide besides the least slices: a witness, and the configurations of plans near the bound."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.bounds.bins import LOSS_BINS, choose_loss_bins, rounded_down
from jigsaw_triton.planner.bounds.bounds import least_slices
from jigsaw_triton.planner.candidates.configurations import accuracy_budget
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from tests.fakes.graphs import chain, diamond
from tests.fakes.problems import TWO_P95, grid, problem
from tests.planner.bounds.test_bounds import candidates


def example(g: TaskGraph, seed: int = 0, demand_rps: float = 200.0) -> Problem:
    rng = random.Random(seed)
    rows = [
        r
        for name in g.tasks
        for variant, part in (("v0", 1.0), ("v1", 0.6), ("v2", 0.35))
        for r in grid(name, variant, part * rng.uniform(5, 20), slices=["1g", "2g", "3g"], instances=[1])
    ]
    return problem(g, rows, demand_rps=demand_rps, gpus=30)


@pytest.mark.parametrize("seed", range(4))
def test_the_witness_meets_the_slo_and_has_a_plan_of_the_fewest_slices(solvers: SolverFactory, seed: int) -> None:
    p = example(chain(4, variant_count=3, slo=Slo(330.0, accuracy=0.7)), seed)
    workload, found = candidates(p, TWO_P95)
    bounds = least_slices(workload, found)
    ms, loss = ({name: at[i] for name, at in bounds.witness.items()} for i in (0, 1))
    assert max(longest_through(workload.graph, ms).values()) <= workload.graph.tasks_ms
    assert max(longest_through(workload.graph, loss).values()) <= accuracy_budget(workload.graph) + 1e-9
    assert bounds.least == make_plan(p, TWO_P95, solvers=solvers).slices_used


@pytest.mark.parametrize("g", [chain(3, variant_count=3), diamond(variant_count=3)])
def test_bounds_are_exact_up_to_the_requested_number_of_slices(g: TaskGraph) -> None:
    workload, found = candidates(example(g), TWO_P95)
    every = least_slices(workload, found).using(math.inf)
    bounds = least_slices(workload, found)
    for most in (bounds.least, bounds.least + 2, bounds.least + 1, 2 * bounds.least):
        using = bounds.using(most)
        assert {c for c, n in using.items() if n <= most} == {c for c, n in every.items() if n <= most}
        assert all(using[c] == n for c, n in every.items() if n <= most)


accuracies = st.lists(st.integers(50, 99), min_size=1, max_size=3, unique=True)


@pytest.mark.slow
@given(of=st.lists(accuracies, min_size=1, max_size=4), slo=st.integers(30, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bins_separate_losses_that_exceed_the_budget_together(of: list[list[int]], slo: int) -> None:
    """Checks every choice of variants along a chain."""
    g, allowed = chain(len(of)), -math.log(slo / 100)
    losses = {task: [0.0, *(-math.log(a / 100) for a in others)] for task, others in zip(g.tasks, of, strict=True)}
    largest, bins = choose_loss_bins(g, losses, allowed)
    choices = [np.array(choice) for choice in itertools.product(*losses.values())]
    fitting, beyond = ([c for c in choices if (c.sum() <= allowed) == fits] for fits in (True, False))
    assert largest == pytest.approx(max(c.sum() for c in fitting), abs=1e-6)

    def seem_to_fit(choices: list[NDArray[np.float64]], bins: int) -> int:
        return sum(rounded_down(c / largest * bins, bins).sum() <= bins for c in choices)

    assert seem_to_fit(fitting, bins) == len(fitting)
    # No number of bins separates more, and no smaller one as many.
    fewest = min((seem_to_fit(beyond, n), n) for n in LOSS_BINS)
    assert (seem_to_fit(beyond, bins), bins) == fewest or (not beyond and bins == 1)


def test_too_many_losses_take_the_largest_number_of_bins() -> None:
    g = chain(6)
    losses = {task: [0.01 * k + 0.001 * i for k in range(6)] for i, task in enumerate(g.tasks)}
    assert choose_loss_bins(g, losses, 0.2) == (0.2, LOSS_BINS[-1])
