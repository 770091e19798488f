"""Every way in which a partition can be wrong is found."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from jigsaw_triton.planner.cells.gateway import GatewayUse
from jigsaw_triton.planner.cells.model import Cell, Partition
from jigsaw_triton.planner.cells.partition import Cells
from jigsaw_triton.planner.cells.validation import partition_violations
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.solve import SolverFactory
from tests.fakes.problems import TWO_P95
from tests.planner.cells.test_partition import nodes, one_task

PROBLEM = one_task(4 * 80, nodes(3))


@pytest.fixture(scope="module")
def partition(solvers: SolverFactory) -> Partition:
    return Cells(PROBLEM, TWO_P95, solvers=solvers).divide(2)


def test_a_valid_partition_has_no_violations(partition: Partition) -> None:
    assert partition_violations(partition, PROBLEM, TWO_P95) == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda cell: replace(cell, nodes=("n00",)), "node n01 is in no cell"),
        (lambda cell: replace(cell, nodes=("n00", "n01", "n02")), "node n02 is in 2 cells"),
        (lambda cell: replace(cell, nodes=("n00", "n01", "n07")), "node n07 is not in the cluster"),
        (lambda cell: replace(cell, weights={}), "cell1 serves nothing"),
        (lambda cell: replace(cell, weights={"app": 0.1}), "the weights of app add up to"),
        (lambda cell: replace(cell, weights={"app": -1.0}), "cell1: the weight of app is -1.0"),
        (lambda cell: replace(cell, weights={**cell.weights, "other": 1.0}), "cell1: there is no graph other"),
        (lambda cell: replace(cell, gateway=GatewayUse(0.0, 3000)), "cell1: the plan asks the gateway for something"),
        (lambda cell: replace(cell, plan=replace(cell.plan, slices_used=1)), "cell1: slices used: the plan says 1"),
    ],
)
def test_a_wrong_cell_is_found(partition: Partition, wrong: Callable[[Cell], Cell], message: str) -> None:
    changed = replace(partition, cells=(wrong(partition.cells[0]), *partition.cells[1:]))
    found = partition_violations(changed, PROBLEM, TWO_P95)
    assert any(reason.startswith(message) for reason in found), found


def test_an_overloaded_gateway_is_found(partition: Partition) -> None:
    few: Problem = replace(
        PROBLEM,
        cluster=replace(PROBLEM.cluster, gateway_limits=replace(PROBLEM.cluster.gateway_limits, workers=2)),
    )
    assert "cell1: the gateway would be loaded to 150%" in partition_violations(partition, few, TWO_P95)
