import pytest

from jigsaw_triton.controller.fleet.liveness import Change, Liveness

STALLED, ANSWERED, OVERDUE = Change.STALLED, Change.ANSWERED, Change.OVERDUE


@pytest.mark.parametrize(
    ("hung", "changes"),
    [
        ((), {}),
        ((4, 8), {}),
        ((5, 10), {10: STALLED, 11: ANSWERED}),
        ((0, 40), {5: STALLED, 30: OVERDUE, 36: STALLED, 41: ANSWERED}),
    ],
)
def test_a_server_stalls_answers_again_or_hangs(hung: tuple[int, ...], changes: dict[int, Change]) -> None:
    now = [0.0]
    liveness = Liveness(5.0, 30.0, lambda: now[0])
    found = {}
    for second in range(60):
        now[0] = float(second)
        answered = not hung or not hung[0] <= second <= hung[1]
        if (change := liveness.probed(1, answered=answered)) is not None:
            found[second] = change
        assert liveness.probed(2, answered=True) is None
    assert found == changes
