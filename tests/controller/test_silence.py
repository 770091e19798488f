from jigsaw_triton.controller.silence import Silence


def test_whoever_answers_in_time_is_never_too_long_silent() -> None:
    now = [0.0]
    silence = Silence(30.0, lambda: now[0])
    for step in range(20):
        now[0] = 12.0 * step
        assert not silence.lasts("a", heard=step % 3 == 2)


def test_whoever_does_not_is_told_once_and_counted_anew() -> None:
    now = [5.0]
    silence = Silence(30.0, lambda: now[0])
    told = []
    for second in range(5, 100, 5):
        now[0] = float(second)
        told += [second] if silence.lasts("a", heard=False) else []
        assert not silence.lasts("b", heard=True)
    assert told == [35, 70]
