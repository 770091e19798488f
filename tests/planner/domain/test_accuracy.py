import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.graph.measured import Combination, Measured
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.domain.accuracy import (
    PairTable,
    deciding_tables,
    excluded,
    optimistic,
    pair_tables,
    product_errors,
    with_pair_losses,
    with_pairs,
)
from tests.fakes.graphs import chain, diamond, graph, task, variants

SLO = Slo(1000.0, accuracy=0.8)
ACCURACIES = {("v0", "v0"): 0.9, ("v0", "v1"): 0.8, ("v1", "v0"): 0.81, ("v1", "v1"): 0.6}


def paired(of: TaskGraph, tasks: tuple[str, str] = ("t0", "t1")) -> TaskGraph:
    first, second = tasks
    found = tuple(Combination({first: one, second: other}, a) for (one, other), a in ACCURACIES.items())
    return replace(of, combinations=found)


def test_losses_are_relative_to_the_best_pair() -> None:
    (table,) = pair_tables(paired(chain(2, variant_count=2)))
    assert table.tasks == ("t0", "t1")
    assert table.loss["v0", "v0"] == 0
    assert table.loss["v1", "v1"] == pytest.approx(math.log(0.9 / 0.6))


def test_pairs_that_were_measured_differently_are_no_table() -> None:
    of = paired(chain(2, variant_count=2))
    *alike, last = of.combinations
    of = replace(of, combinations=(*alike, replace(last, measured=Measured("exact", "labels.py", 20, 0.5, 0.7))))
    (table,) = pair_tables(of)
    assert table.loss.keys() == {("v0", "v0"), ("v0", "v1"), ("v1", "v0")}
    assert deciding_tables(of) == ()


def test_pairs_that_miss_the_slo_exclude_each_other() -> None:
    of = with_pairs(paired(chain(2, variant_count=2, slo=SLO)))
    assert excluded(of) == ((("t0", "v1"), ("t1", "v1")),)
    of = replace(of, slo=replace(SLO, accuracy=0.9))
    assert {pair[0][1] + pair[1][1] for pair in excluded(of)} == {"v0v1", "v1v1"}


def test_the_worst_pair_in_use_is_the_loss_along_the_path() -> None:
    of = with_pairs(paired(chain(2, variant_count=2)))
    used = {"t0": {"v0", "v1"}, "t1": {"v0"}}
    assert sum(with_pair_losses(of, {"t0": 1.0, "t1": 1.0}, used).values()) == pytest.approx(math.log(0.9 / 0.81))


@pytest.mark.parametrize(
    ("of", "tasks", "decides"),
    [
        (chain(2, variant_count=2), ("t0", "t1"), True),
        (chain(3, variant_count=2), ("t0", "t1"), False),
        (replace(chain(2, variant_count=2), slo=replace(SLO, accuracy_mode="mean")), ("t0", "t1"), False),
        (chain(2, variant_count=3), ("t0", "t1"), False),
        (
            graph(
                [
                    task("a", {"X": "inputs.X"}, of=variants(2)),
                    task("only", {"X": "a.Y"}),
                    task("b", {"X": "only.Y"}, of=variants(2)),
                ],
                {"Y": "b.Y"},
            ),
            ("a", "b"),
            True,
        ),
        (
            graph(
                [
                    task("a", {"X": "inputs.X"}, of=variants(2)),
                    task("b", {"X": "inputs.X", "Z": "a.Y"}, of=variants(2)),
                ],
                {"Y": "b.Y", "A": "a.Y"},
            ),
            ("a", "b"),
            True,
        ),
        (
            graph(
                [
                    task("a", {"X": "inputs.X"}, of=variants(2)),
                    task("b", {"X": "a.Y"}, of=variants(2)),
                    task("c", {"X": "a.Y"}),
                ],
                {"Y": "b.Y", "C": "c.Y"},
            ),
            ("a", "b"),
            False,
        ),
    ],
    ids=["pair", "third task", "mean", "incomplete", "one variant between", "graph input", "another path"],
)
def test_a_table_replaces_the_product_where_it_decides_alone(
    of: TaskGraph, tasks: tuple[str, str], decides: bool
) -> None:
    of = paired(of, tasks)
    assert bool(deciding_tables(of)) == decides
    prepared = with_pairs(of)
    assert bool(prepared.combinations) == decides
    if not decides:
        assert prepared.tasks == of.tasks
    assert with_pairs(prepared) == prepared


def test_a_diamond_of_pairs_keeps_products() -> None:
    of = diamond(variant_count=2)
    first, second, *_ = of.tasks
    assert with_pairs(paired(of, (first, second))) == of


@given(st.lists(st.floats(0.05, 100), min_size=12, max_size=12))
def test_optimistic_losses_never_exceed_those_of_pairs(accuracies: list[float]) -> None:
    pairs = list(itertools.product("abc", "wxyz"))
    best = max(accuracies)
    table = PairTable(("t", "u"), {pair: math.log(best / a) for pair, a in zip(pairs, accuracies, strict=True)})
    first, second = optimistic(table)
    assert min(first.values()) == min(second.values()) == 0
    assert all(loss >= 0 for loss in (*first.values(), *second.values()))
    assert all(first[one] + second[other] <= table.loss[one, other] + 1e-9 for one, other in pairs)


def test_a_product_has_its_losses_exactly() -> None:
    table = PairTable(("t", "u"), {(a, b): i + j for i, a in enumerate("abc") for j, b in enumerate("wxyz")})
    assert optimistic(table) == ({"a": 0, "b": 1, "c": 2}, {"w": 0, "x": 1, "y": 2, "z": 3})


def test_the_error_of_the_product_is_that_of_the_worst_pair_in_use() -> None:
    of = paired(chain(2, variant_count=2))
    (error,) = product_errors(of, {"t0": {"v0", "v1"}, "t1": {"v1"}}, may_decide=True)
    assert (error.variants, error.used) == (("v1", "v1"), True)
    assert error.measured == pytest.approx(0.6 / 0.9)
    assert error.product == pytest.approx(0.81)
    assert error.points == pytest.approx(100 * (0.81 - 0.6 / 0.9))
    (error,) = product_errors(of, {"t0": {"v0"}, "t1": {"v0"}}, may_decide=False)
    assert error.points == pytest.approx(0)
    assert not error.used


def test_the_mean_accuracy_of_pairs_weighs_each_by_the_shares_of_its_variants() -> None:
    accuracies = {("a", "x"): 1.0, ("a", "y"): 0.5, ("b", "x"): 0.8, ("b", "y"): 0.4}
    table = PairTable(("t0", "t1"), {pair: -math.log(accuracy) for pair, accuracy in accuracies.items()})
    mean = math.exp(-table.mean({"t0": {"a": 3.0, "b": 1.0}, "t1": {"x": 0.5, "y": 0.5}}))
    assert mean == pytest.approx(0.375 * 1.0 + 0.375 * 0.5 + 0.125 * 0.8 + 0.125 * 0.4)


def test_a_graph_of_very_many_paths_is_decided_at_once() -> None:
    """Forty layers of three tasks have 3**40 paths, all of which pass the first and the last task."""
    layers = [[f"l{depth}_{i}" for i in range(3)] for depth in range(40)]
    tasks = [task("first", {"X": "inputs.X"}, of=variants(2))]
    before = ["first"]
    for layer in layers:
        tasks += [task(name, {f"X{b}": f"{b}.Y" for b in before}) for name in layer]
        before = layer
    tasks.append(task("last", {f"X{b}": f"{b}.Y" for b in before}, of=variants(2)))
    of = graph(tasks, {"Y": "last.Y"})
    pairs = tuple(Combination({"first": one, "last": other}, 0.5) for one in ("v0", "v1") for other in ("v0", "v1"))
    (table,) = deciding_tables(replace(of, combinations=pairs))
    assert table.tasks == ("first", "last")
