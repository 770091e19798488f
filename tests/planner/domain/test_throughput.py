import math

import pytest

from jigsaw_triton.planner.domain.throughput import graph_throughput_rps, throughput_by_task
from tests.fakes.graphs import chain, conditional, fan_out
from tests.fakes.problems import docread


def test_the_tightest_task_limits_the_graph() -> None:
    usable = {"t0": {"v0": 30.0, "v1": 60.0}, "t1": {"v0": 80.0}}
    assert graph_throughput_rps(chain(2, variant_count=2), usable, {"t0": {"v0": 1, "v1": 1}, "t1": {"v0": 1}}) == 60
    assert graph_throughput_rps(chain(2, variant_count=2), usable, usable) == 80


def test_rows_depend_on_the_variants_that_yield_them() -> None:
    graph = docread(lines=10.0)
    usable = {"detect": {"base": 10.0, "tiny": 10.0}, "recognise": {"small": 90.0}}
    assert graph_throughput_rps(graph, usable, {"detect": {"base": 1}, "recognise": {"small": 1}}) == pytest.approx(9)
    assert graph_throughput_rps(graph, usable, usable) == pytest.approx(10)


def test_a_task_without_replicas_carries_nothing() -> None:
    graph = fan_out(rows=3.0)
    assert (
        graph_throughput_rps(
            graph, {"detect": {"v0": 5.0}, "classify": {}}, {"detect": {"v0": 1}, "classify": {"v0": 1}}
        )
        == 0
    )
    assert graph_throughput_rps(graph, {"detect": {"v0": 5.0}}, {"detect": {"v0": 5.0}}) == 0


def test_throughput_of_each_task_ignores_the_others_limits() -> None:
    graph = conditional(probability=0.25)
    usable = {"screen": {"v0": 8.0}, "inspect": {"v0": 1.0}}
    assert throughput_by_task(graph, usable, usable) == {"screen": 8.0, "inspect": 4.0}


def test_a_task_that_is_never_called_does_not_limit_the_graph() -> None:
    graph = fan_out(rows=0.0)
    usable = {"detect": {"v0": 5.0}, "classify": {}}
    assert throughput_by_task(graph, usable, usable) == {"detect": 5.0, "classify": math.inf}
    assert graph_throughput_rps(graph, usable, usable) == 5
