import numpy as np

from jigsaw_triton.evaluation.rehearsal.outcomes import Outcome, Outcomes, by_second


def test_requests_are_counted_in_the_second_in_which_they_were_due() -> None:
    outcomes = Outcomes(
        due_s=np.array([0.1, 0.9, 1.0, 1.5, 1.6, 3.2]),
        lag_ms=np.zeros(6),
        latency_ms=np.array([99.0, 101.0, 100.0, 1.0, 500.0, 5.0]),
        outcome=np.array(
            [
                Outcome.ANSWERED,
                Outcome.ANSWERED,
                Outcome.ANSWERED,
                Outcome.REFUSED,
                Outcome.FAILED,
                Outcome.ANSWERED,
            ],
            np.int8,
        ),
    )
    found = by_second(outcomes, slo_ms=100.0, seconds=4)
    assert found.sent.tolist() == [2, 3, 0, 1]
    assert found.late.tolist() == [1, 0, 0, 0]
    assert found.refused.tolist() == [0, 1, 0, 0]
    assert found.failed.tolist() == [0, 1, 0, 0]
    assert found.violations.tolist() == [1, 2, 0, 0]
    assert found.totals() == {"sent": 6, "late": 1, "refused": 1, "failed": 1}
