from collections.abc import Sequence

import pytest

from benchmarks.dataplane import overload
from benchmarks.dataplane.client import BROKEN, OK, UNAVAILABLE, Outcome
from benchmarks.dataplane.overload import CAPACITY_RPS, RUN_S, SETTLE_S, SLO_MS, Round
from jigsaw_triton.errors import ServerError


def outcomes(count: int, latency_ms: float, status: int = OK, *, begin_s: float = 0.0) -> list[Outcome]:
    """Returns outcomes that end at equal distances over the time that is counted for the loud graph."""
    step_s = RUN_S / count
    ended = [SETTLE_S + begin_s + number * step_s for number in range(count)]
    return [Outcome(at_s - latency_ms / 1e3, latency_ms, status) for at_s in ended]


def test_answers_after_the_end_of_the_load_do_not_count_as_served() -> None:
    capacity = round(CAPACITY_RPS * RUN_S)
    loud = [
        *outcomes(capacity // 2, SLO_MS - 1),
        *outcomes(capacity // 4, SLO_MS + 1),
        *outcomes(capacity, SLO_MS - 1, begin_s=RUN_S),
        *outcomes(capacity, 1.0, UNAVAILABLE),
    ]
    quiet = outcomes(10, 5.0)
    for target in overload.TARGETS:
        ended = {**dict.fromkeys(overload.TARGETS, quiet), target: loud}
        found = {figure.id: figure for figure in overload.figures([Round(quiet, quiet, ended, SETTLE_S, RUN_S)])}
        name = "dataplane.overload3x" + ("" if target == "graph" else f".{target}")
        served, in_slo, refused = (found[f"{name}.{what}"] for what in ("served", "in_slo", "refused_ms"))
        met = False if target == "graph" else None
        assert (served.value, served.met) == (0.75, met)
        assert (in_slo.value, in_slo.met) == (0.857, met)
        assert refused.value == 1.0
        assert f"{capacity} refused (UNAVAILABLE), 0 failed" in served.note


def test_isolation_compares_the_p99_of_the_quiet_graph_round_by_round() -> None:
    def quiet(slow_ms: float) -> list[Outcome]:
        return [*outcomes(95, 10.0), *outcomes(5, slow_ms)]

    def found(pairs: Sequence[tuple[float, float]]) -> float:
        loud = dict.fromkeys(overload.TARGETS, outcomes(10, 1.0))
        rounds = [Round(quiet(alone), quiet(beside), loud, SETTLE_S, RUN_S) for alone, beside in pairs]
        (*_, isolation) = overload.figures(rounds)
        return isolation.value

    assert found([(100.0, 120.0), (300.0, 360.0), (100.0, 500.0)]) == 1.2


def test_a_graph_without_any_answer_is_an_error() -> None:
    loud = dict.fromkeys(overload.TARGETS, outcomes(10, 1.0))
    rounds = [Round(outcomes(10, 5.0), outcomes(10, 5.0, BROKEN), loud, SETTLE_S, RUN_S)]
    with pytest.raises(ServerError, match=r"no request was answered: 10 sent, 0 served, .* 10 failed"):
        overload.figures(rounds)
