import pytest

from jigsaw_triton.planner.latency import two_p95_ms
from tests.fakes.problems import row


@pytest.mark.parametrize(
    ("rows", "batch", "instances", "rounds"),
    [
        (1, 1, 1, 1),  # the paper's 2 x p95
        (1, 8, 4, 1),
        (6, 8, 1, 1),
        (6, 4, 1, 2),
        (6, 2, 3, 1),
        (6, 1, 1, 6),
        (8.000000000001, 8, 1, 1),  # a sum that floating point left a hair above
        (8.1, 8, 1, 2),
        (0.2, 1, 1, 1),
        (0, 1, 1, 1),
    ],
)
def test_a_batch_waited_for_and_as_many_rounds_as_the_rows_fill(
    rows: float, batch: int, instances: int, rounds: int
) -> None:
    profile = row("t", "v", batch=batch, instances=instances, p95_ms=10.0)
    assert two_p95_ms(profile, rows) == pytest.approx(10.0 * (1 + rounds))
