import math
from dataclasses import replace

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Multiplicities, Options, Problem
from tests.fakes.graphs import conditional, diamond
from tests.fakes.problems import cluster, docread, docread_problem


@pytest.mark.parametrize("demand", [0.0, 1e-320, -1.0, math.nan, math.inf, 1.1e9])
def test_a_demand_out_of_range_is_rejected(demand: float) -> None:
    with pytest.raises(InputError, match="cannot be planned for") as caught:
        docread_problem(demand).prepared()
    assert caught.value.where == "docread"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(features="AXT"), "X unknown"),
        (Options(formulation="best"), "formulation 'best' is unknown"),  # type: ignore[arg-type]
        (Options(latency_model="3p95"), "latency model '3p95' is unknown"),  # type: ignore[arg-type]
        (Options(latency_model="queue", formulation="paper"), "has its own latency model"),
        (Options(solver="gurobi"), "solver 'gurobi' is unknown"),  # type: ignore[arg-type]
        (Options(time_limit_s=0), "time limit"),
        (Options(time_limit_s=math.nan), "time limit"),
        (Options(utilisation=0), "utilisation"),
        (Options(utilisation=1.01), "utilisation"),
    ],
)
def test_invalid_options_are_rejected(options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        options.checked()
    assert caught.value.hint


def test_features_are_put_in_canonical_order() -> None:
    assert Options(features="TSA").checked() == Options()
    assert Options(features="SA").checked().features == "AS"
    assert Options(features="TPMA").checked() == Options()
    assert Options(features="").checked().features == ""


def test_a_problem_without_graphs_is_rejected() -> None:
    with pytest.raises(InputError, match="no graph"):
        Problem((), cluster(), {}).prepared()


def test_a_graph_given_twice_is_rejected() -> None:
    twice = Workload(docread(), 1.0)
    with pytest.raises(InputError, match="docread is given 2 times"):
        Problem((twice, twice), cluster(), {}).prepared()


def test_a_cluster_without_gpus_is_rejected() -> None:
    with pytest.raises(InputError, match="no GPUs"):
        replace(docread_problem(), cluster=Cluster(())).prepared()


def test_a_gpu_given_twice_is_rejected() -> None:
    gpu = Gpu(GpuId("a", 0), board("cpu"))
    with pytest.raises(InputError, match="GPU a/0 2 times"):
        replace(docread_problem(), cluster=Cluster((gpu, gpu))).prepared()


def test_gpus_of_one_model_with_different_profiles_are_rejected() -> None:
    cpu = board("cpu")
    other = replace(cpu, profiles={"7g": cpu.profiles["7g"]})
    mixed = Cluster((Gpu(GpuId("a", 0), cpu), Gpu(GpuId("a", 1), other)))
    with pytest.raises(InputError, match="cpu differ in their MIG profiles"):
        replace(docread_problem(), cluster=mixed).prepared()


def test_foreign_instances_that_overlap_are_rejected() -> None:
    gpu = Gpu(GpuId("a", 0), board("cpu"), (Placement(0, "3g"), Placement(2, "2g")))
    with pytest.raises(InputError, match="2g@2 overlaps 3g@0") as caught:
        replace(docread_problem(), cluster=Cluster((gpu,))).prepared()
    assert caught.value.where == "a/0"


def test_a_prepared_problem_is_in_canonical_order() -> None:
    a, b = Workload(docread(name="a"), 1.0), Workload(diamond(name="b"), 2)
    shuffled = replace(b.graph, tasks={n: b.graph.tasks[n] for n in ("a", "c", "b", "d")})
    gpus = cluster(3).gpus
    one = Problem((a, b), Cluster(gpus), {}).prepared()
    other = Problem((replace(b, graph=shuffled), a), Cluster(gpus[::-1]), {}).prepared()
    assert one == other
    assert [list(w.graph.tasks) for w in one.workloads] == [list(w.graph.tasks) for w in other.workloads]


def test_measured_yields_replace_estimates() -> None:
    g = docread(lines=10.0)
    measured = Multiplicities(yields={("detect", "tiny", "CROPS"): 3.0})
    problem = replace(docread_problem(), workloads=(Workload(g, 1.0),), multiplicities={"docread": measured}).prepared()
    (workload,) = problem.workloads
    assert [v.yields["CROPS"] for v in workload.graph.tasks["detect"].variants] == [3.0, 9.5, 10.0]
    assert problem.prepared() == problem


def test_measured_probabilities_and_rows_replace_estimates() -> None:
    g = Multiplicities(probability={"inspect": 0.9}, rows={"X": 4.0}).applied_to(conditional(probability=0.1))
    assert g.tasks["inspect"].when is not None
    assert (g.tasks["inspect"].when.probability, g.inputs["X"].rows) == (0.9, 4.0)


@pytest.mark.parametrize(
    "measured",
    [
        Multiplicities(rows={"X": math.nan}),
        Multiplicities(rows={"X": -1.0}),
        Multiplicities(probability={"inspect": 0.0}),
        Multiplicities(probability={"inspect": 1.5}),
    ],
)
def test_multiplicities_out_of_range_are_rejected(measured: Multiplicities) -> None:
    with pytest.raises(InputError) as caught:
        Problem((Workload(conditional(), 1.0),), cluster(), {}, multiplicities={"conditional": measured}).prepared()
    assert caught.value.where == "conditional"
