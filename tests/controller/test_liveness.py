from jigsaw_triton.controller.liveness import Liveness


def test_a_server_that_answers_within_the_limit_is_never_overdue() -> None:
    now = [0.0]
    liveness = Liveness(30.0, lambda: now[0])
    for step in range(20):
        now[0] = 12.0 * step
        assert not liveness.is_overdue("a", answered=step % 3 == 2)


def test_an_unresponsive_server_is_overdue_once_and_counted_again() -> None:
    now = [5.0]
    liveness = Liveness(30.0, lambda: now[0])
    overdue_at = []
    for second in range(5, 100, 5):
        now[0] = float(second)
        overdue_at += [second] if liveness.is_overdue("a", answered=False) else []
        assert not liveness.is_overdue("b", answered=True)
    assert overdue_at == [35, 70]
