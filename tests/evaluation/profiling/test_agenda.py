import pytest

from jigsaw_triton.evaluation.profiling.agenda import Agenda, configuration, default_points
from jigsaw_triton.profiles.table import ProfileKey

pytest.importorskip("scipy")

INSTANCES, BATCHES = (1, 2), (1, 2, 4, 8)


def keys(*variants: str, slices: tuple[str, ...] = ("1g",)) -> list[ProfileKey]:
    return [
        ProfileKey("cpu", "t", variant, kind, instances, batch)
        for variant in variants
        for kind in slices
        for instances in INSTANCES
        for batch in BATCHES
    ]


def latency_ms(key: ProfileKey) -> float:
    return 5.0 + 2.0 * key.batch * key.instances


def run(agenda: Agenda, failing: frozenset[tuple[str, int, int]] = frozenset()) -> list[ProfileKey]:
    """Measures all of an agenda. Returns the configurations in their order."""
    found = []
    while round_ := agenda.round():
        for key in round_:
            assert agenda.remaining > 0
            if configuration(key) in failing:
                agenda.add_failed(key)
            else:
                agenda.add_measured(key, latency_ms(key))
            found.append(key)
    assert agenda.remaining == 0
    return found


def test_every_variant_has_its_first_point_before_any_has_its_second() -> None:
    found = run(Agenda(keys("a", "b", "c"), 4, 1e9, {}, ()))
    assert len(found) == len(set(found)) == 12
    assert [key.variant for key in found[:3]] == ["a", "b", "c"]
    assert {configuration(key) for key in found[:3]} == {("1g", 1, 1)}
    assert sorted(key.variant for key in found[3:6]) == ["a", "b", "c"]


def test_a_repeated_run_goes_on_where_the_one_before_ended() -> None:
    whole = run(Agenda(keys("a", "b"), 5, 1e9, {}, ()))
    for done in range(len(whole)):
        known = {key: latency_ms(key) for key in whole[:done]}
        assert set(run(Agenda(keys("a", "b"), 5, 1e9, known, ()))) == set(whole[done:])


def test_required_configurations_are_measured_beyond_the_number_of_points() -> None:
    every = keys("a")
    required = every[1:7]
    found = run(Agenda(every, 4, 1e9, {every[1]: 7.0}, (), required))
    assert found == sorted(required[1:], key=lambda key: key.instances * key.batch)
    found = run(Agenda(every, 4, 1e9, {}, (), every[5:7]))
    assert found[:2] == every[5:7]
    assert len(found) == 4


def test_all_configurations_are_measured_without_a_number_of_points() -> None:
    every = keys("a", "b")
    found = run(Agenda(every, None, 1.0, {}, ()))
    assert sorted(found) == sorted(every)
    assert [key.batch * key.instances for key in found] == sorted(key.batch * key.instances for key in found)


def test_configurations_beyond_the_slo_are_left_out_once_that_is_known() -> None:
    found = run(Agenda(keys("a"), 8, 8.0, {}, ()))
    assert configuration(found[0]) == ("1g", 1, 1)
    assert 1 <= len(found) < 8


def test_larger_configurations_than_one_that_failed_are_not_tried() -> None:
    agenda = Agenda(keys("a"), None, 1e9, {}, ())
    found = run(agenda, frozenset({("1g", 1, 4)}))
    tried = {configuration(key) for key in found}
    assert ("1g", 1, 4) in tried
    assert not {("1g", 1, 8), ("1g", 2, 4), ("1g", 2, 8)} & tried
    assert {("1g", 2, 1), ("1g", 2, 2)} <= tried


def test_a_variant_that_fails_is_tried_once_on_each_kind_of_slice() -> None:
    every = keys("a", slices=("1g", "2g", "3g"))
    failing = frozenset(configuration(key) for key in every)
    found = run(Agenda(every, 5, 1e9, {}, ()), failing)
    assert [configuration(key) for key in found] == [("1g", 1, 1), ("2g", 1, 1), ("3g", 1, 1)]
    again = Agenda(every, 5, 1e9, {}, found)
    assert again.round() == []
    assert again.remaining == 0


def test_kinds_of_slices_can_be_left_out() -> None:
    agenda = Agenda(keys("a", slices=("3g", "1g")), None, 1e9, {}, ())
    assert agenda.kinds == ("1g", "3g")
    assert agenda.leave_out(lambda kind: kind == "1g") == ["1g"]
    assert {key.slice for key in run(agenda)} == {"3g"}
    assert agenda.tasks == ("t",)


@pytest.mark.parametrize(
    ("configurations", "points"), [(1, 1), (5, 5), (8, 6), (16, 6), (24, 6), (32, 8), (48, 12), (160, 12)]
)
def test_a_quarter_of_the_configurations_is_measured_within_limits(configurations: int, points: int) -> None:
    assert default_points(configurations) == points
