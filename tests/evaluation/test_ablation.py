from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jigsaw_triton.errors import InfeasibleError, InputError, MissingDependencyError
from jigsaw_triton.evaluation import plots
from jigsaw_triton.evaluation.ablation import PAPER_SUBSETS, Ablation, ablation, mean_gain, with_batches_up_to
from jigsaw_triton.evaluation.ablation_plot import plot
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.planner.domain.problem import FORMULATIONS, Options
from jigsaw_triton.planner.search.attempt import OutOfTimeError
from jigsaw_triton.planner.search.solve import LargestDemand, SolverFactory
from jigsaw_triton.planner.solver.solver import lasting_solvers
from tests.fakes.graphs import chain
from tests.fakes.problems import problem, row

pytestmark = pytest.mark.slow

ROWS = [
    row("t0", "v0", slice_="3g", rps=100.0),
    row("t0", "v0", slice_="7g", rps=120.0),
    row("t0", "v1", slice_="3g", rps=150.0),
    row("t0", "v1", slice_="7g", rps=160.0),
]
OPTIONS = Options(time_limit_s=5.0)


@pytest.fixture(scope="module")
def solvers() -> Iterator[SolverFactory]:
    with lasting_solvers() as named:
        yield named


@pytest.fixture(scope="module")
def found(solvers: SolverFactory) -> Ablation:
    """Study of one task on one GPU: S allows two 3g slices, A allows the light variant, and T changes nothing."""
    p = problem(chain(1, variant_count=2, slo=Slo(1000.0, accuracy=0.8)), ROWS, demand_rps=3.0)
    return ablation(p, OPTIONS, solvers=solvers)


def test_cases_cover_every_subset_in_both_formulations(found: Ablation) -> None:
    assert [(c.formulation, c.features) for c in found.cases] == [(f, s) for f in FORMULATIONS for s in PAPER_SUBSETS]
    assert found.subsets == PAPER_SUBSETS


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_each_subset_of_features_has_its_largest_demand(found: Ablation, formulation: str) -> None:
    largest = {c.features: c.largest_rps for c in found.cases if c.formulation == formulation}
    assert largest == pytest.approx(
        {"": 120.0, "T": 120.0, "A": 160.0, "AT": 160.0, "S": 200.0, "ST": 200.0, "AS": 300.0, "AST": 300.0}, rel=1e-3
    )
    assert all(c.proven for c in found.cases)


def test_gains_are_relative_and_slices_are_those_of_the_common_demand(found: Ablation) -> None:
    assert found.gain("AST", "exact") == pytest.approx(2.5, rel=1e-3)
    assert found.common_rps == pytest.approx(120.0, rel=1e-3)
    used = {c.features: c.at_common.used for c in found.cases if c.at_common and c.formulation == "exact"}
    assert used == {"": 7, "T": 7, "A": 7, "AT": 7, "S": 6, "ST": 6, "AS": 3, "AST": 3}
    assert found.to_json()["cases"][7]["gain"] == found.gain("AST", "exact")


def test_s_gains_what_its_parts_gain_together(solvers: SolverFactory) -> None:
    rows = [
        row("t0", "v0", slice_=kind, instances=n, rps=rps)
        for kind, n, rps in (("7g", 1, 100.0), ("7g", 2, 150.0), ("1g", 1, 30.0), ("1g", 2, 40.0))
    ]
    found = ablation(problem(chain(1), rows), OPTIONS, subsets=("", "M", "P", "S"), solvers=solvers)
    largest = {c.features: c.largest_rps for c in found.cases if c.formulation == "exact"}
    assert largest == pytest.approx({"": 100.0, "M": 210.0, "P": 150.0, "S": 280.0}, rel=1e-3)


def test_more_features_carry_at_least_as_much_if_the_time_limit_comes_first(
    solvers: SolverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The more features, the harder the problem, so a time limit may leave a plan that is worse than with fewer."""
    found = {"": 100.0, "M": 300.0, "P": 200.0, "S": 250.0}

    def limited(_: object, options: Options, **__: object) -> LargestDemand:
        return LargestDemand({"chain": found[options.features]}, proven=options.features != "S")

    def too_slow(*_: object, **__: object) -> None:
        raise OutOfTimeError(5.0)

    monkeypatch.setattr("jigsaw_triton.evaluation.ablation.largest_demand", limited)
    monkeypatch.setattr("jigsaw_triton.evaluation.ablation.allot", too_slow)
    p = problem(chain(1), [row("t0", "v0", slice_="7g")])
    study = ablation(p, OPTIONS, subsets=tuple(found), solvers=solvers)
    assert [c.largest_rps for c in study.cases] == 2 * [100.0, 300.0, 200.0, 300.0]
    assert [c.proven for c in study.cases] == 2 * [True, True, True, False]


def test_larger_batches_are_left_out() -> None:
    rows = [row("t0", "v0", batch=batch, rps=100.0 * batch) for batch in (1, 2, 4)]
    limited = with_batches_up_to(problem(chain(1), rows), 2)
    assert [r.key.batch for r in limited.profiles["chain"].rows()] == [1, 2]


def test_a_task_without_a_small_batch_is_reported() -> None:
    p = problem(chain(2), [row("t0", "v0"), row("t1", "v0", batch=4)])
    with pytest.raises(InputError, match="the smallest profiled batch is 4") as caught:
        with_batches_up_to(p, 2)
    assert caught.value.where == "chain: task t1"


def test_mean_gains_are_geometric(found: Ablation) -> None:
    doubled = replace(found, cases=tuple(replace(c, largest_rps=120.0) for c in found.cases))
    assert mean_gain([found, doubled], "AST", "exact") == pytest.approx(2.5**0.5, rel=1e-3)


def test_slices_that_the_greedy_placement_cannot_place_are_counted(solvers: SolverFactory) -> None:
    rows = [row("t0", "v0", slice_=kind, rps=100.0) for kind in ("3g", "1g")]
    rows += [row("t1", "v0", slice_="3g", rps=100.0), row("t2", "v0", slice_="3g", rps=100.0)]
    case = ablation(problem(chain(3), rows), OPTIONS, solvers=solvers).case("AST", "paper")
    assert case.at_largest is not None
    assert (case.at_largest.used, case.at_largest.unplaced) == (7, 1)


def test_a_subset_that_serves_no_demand_gives_the_reason(solvers: SolverFactory) -> None:
    # Without feature S (spatial partitioning), two tasks need two GPUs.
    rows = [row(t, "v0", slice_=s) for t in ("t0", "t1") for s in ("1g", "7g")]
    found = ablation(problem(chain(2), rows), OPTIONS, solvers=solvers)
    none = found.case("", "exact")
    assert (none.largest_rps, none.at_largest, none.at_common) == (None, None, None)
    assert "no room for as many replicas as the tasks need" in none.reason
    assert found.gain("S", "exact") is None
    assert mean_gain([found], "S", "exact") is None


def test_slices_that_are_not_counted_in_time_are_unknown(
    solvers: SolverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_: object, **__: object) -> None:
        raise OutOfTimeError(5.0)

    monkeypatch.setattr("jigsaw_triton.evaluation.ablation.allot", too_slow)
    case = ablation(problem(chain(1), [row("t0", "v0", slice_="7g")]), OPTIONS, solvers=solvers).case("AST", "exact")
    assert case.largest_rps is not None
    assert (case.at_largest, case.at_common, case.reason) == (None, None, "")


def test_an_ablation_in_which_no_case_serves_any_demand_is_infeasible() -> None:
    with pytest.raises(InfeasibleError):
        ablation(problem(chain(8), [row(f"t{i}", "v0") for i in range(8)]), OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_the_plot_is_written(found: Ablation, tmp_path: Path, name: str) -> None:
    none = replace(found, graph="other", cases=tuple(replace(c, largest_rps=None) for c in found.cases))
    plot([found, none], tmp_path / "made" / name, title="1xcpu")
    picture = (tmp_path / "made" / name).read_bytes()
    if name.endswith(".svg"):
        assert ElementTree.fromstring(picture).tag.endswith("svg")
    else:
        assert picture.startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_refused(
    found: Ablation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"end in \.svg or \.png"):
        check_plot(tmp_path / "a.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        plot([found], tmp_path / "file" / "a.svg", title="1xcpu")

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(plots, "import_module", absent)
    with pytest.raises(MissingDependencyError) as caught:
        check_plot(tmp_path / "a.svg")
    assert caught.value.hint == "pip install 'jigsaw-triton[plot]'"
