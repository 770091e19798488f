import pytest

from jigsaw_triton.controller.core.energy import Joules, Used, joules_per_request
from jigsaw_triton.gpus.model import GpuId

A, B = GpuId("n", 0), GpuId("n", 1)


@pytest.mark.parametrize(
    ("before", "now", "answered", "expected"),
    [
        ({A: 100.0, B: 50.0}, {A: 160.0, B: 90.0}, 20.0, 5.0),
        ({A: 100.0}, {A: 160.0, B: 90.0}, 20.0, 3.0),
        ({A: 100.0, B: 50.0}, {A: 10.0, B: 90.0}, 20.0, 2.0),
        ({A: 100.0}, {A: 160.0}, 0.0, None),
        ({}, {A: 160.0}, 20.0, None),
    ],
    ids=["two GPUs", "a GPU that is new", "a GPU whose driver was loaded again", "no answers", "no counter before"],
)
def test_the_energy_of_all_gpus_is_shared_by_the_answers(
    before: Joules, now: Joules, answered: float, expected: float | None
) -> None:
    assert joules_per_request(Used(before, 7.0), Used(now, 7.0 + answered)) == expected
