"""The JSON format of a partition."""

import json
from copy import deepcopy
from typing import Any

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.cells.model import Partition, is_partition, partition_from_json, partition_to_text
from jigsaw_triton.planner.cells.partition import Cells
from jigsaw_triton.planner.search.solve import SolverFactory
from tests.fakes.problems import TWO_P95
from tests.planner.cells.test_partition import nodes, one_task


@pytest.fixture(scope="module")
def partition(solvers: SolverFactory) -> Partition:
    return Cells(one_task(4 * 80, nodes(3)), TWO_P95, solvers=solvers).divide(2)


def test_a_partition_is_read_as_it_was_written(partition: Partition) -> None:
    data = json.loads(partition_to_text(partition))
    assert is_partition(data)
    assert partition_from_json(data, where="plan.json") == partition
    assert data["slices_used"] == sum(cell["plan"]["slices_used"] for cell in data["cells"])


def test_a_plan_is_no_partition(partition: Partition) -> None:
    assert not is_partition(partition.cells[0].plan.to_json())
    assert not is_partition([])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 7, "plan version 7 is not 1; plan again with this release"),
        (("cells",), 3, r"the plan is damaged \(cells: 3 is not a list\)"),
        (("pool_slices",), 0, "pool_slices: 0 is not an integer from 1"),
        (("cells", 0, "extra"), 1, r"cells\[0\]: 'extra' is unknown"),
        (("cells", 0, "name"), "a b", r"cells\[0\].name: 'a b' is not a name"),
        (("cells", 0, "weights", "app"), 1.5, r"cells\[0\].weights.app: 1.5 is not a number from 0 to 1"),
        (("cells", 0, "gateway", "workers"), -1, r"cells\[0\].gateway.workers: -1 is not an integer from 0"),
        (("cells", 0, "nodes"), ["n00", "n01", "n02"], "a node is in two cells"),
        (("cells", 0, "nodes"), ["n09"], r"cells\[0\].plan: GPU n00/0 is on none of the cell's nodes"),
        (("cells", 0, "plan", "gpus"), 1, r"cells\[0\].plan: the plan is damaged \(gpus: 1 is not a list\)"),
    ],
)
def test_a_damaged_partition_is_refused(
    partition: Partition, path: tuple[str | int, ...], value: object, message: str
) -> None:
    data: Any = deepcopy(partition.to_json())
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(InputError, match=message) as caught:
        partition_from_json(data, where="plan.json")
    assert caught.value.where.startswith("plan.json")
