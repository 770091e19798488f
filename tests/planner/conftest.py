"""Solver processes that all planner tests share: starting one takes longer than most programs take to solve."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.planner.solver.solver import SolverProcess


@pytest.fixture(scope="session")
def highs() -> Iterator[SolverProcess]:
    with SolverProcess("highs") as solver:
        yield solver


@pytest.fixture(scope="session")
def cbc() -> Iterator[SolverProcess]:
    with SolverProcess("cbc") as solver:
        yield solver


@pytest.fixture(scope="session")
def solvers(highs: SolverProcess, cbc: SolverProcess) -> SolverFactory:
    """Provides the solvers that `make_plan` uses."""

    def named(name: SolverName) -> nullcontext[SolverProcess]:
        return nullcontext({"highs": highs, "cbc": cbc}[name])

    return named
