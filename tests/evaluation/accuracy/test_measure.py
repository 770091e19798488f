"""Measuring with models in this process, in place of tritonservers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.evaluation.accuracy.labels import LabelledSet, Request
from jigsaw_triton.evaluation.accuracy.measure import AccuracyMeter, best_variant, neighbours
from jigsaw_triton.evaluation.accuracy.results import Result, Unmeasured
from jigsaw_triton.evaluation.accuracy.running import Failure, Runner, Serving
from jigsaw_triton.evaluation.profiling.workers import ProfilingWorkers
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Gpu, GpuId
from jigsaw_triton.graph.measured import Labels, Metric
from jigsaw_triton.graph.model import Slo, TaskGraph, Variant, When
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from jigsaw_triton.runtime.dtypes import Array, Arrays
from tests.compiler.samples import TEMPLATES
from tests.fakes.graphs import graph, ref, step, task

X = TensorRef("inputs", "X")
ROWS = TensorType("INT64", (-1, 1))
ONE = TensorType("INT64", (1,))
Model = Callable[[Arrays], dict[str, Array]]


def real(*accuracies: float) -> tuple[Variant, ...]:
    return tuple(Variant(f"v{i}", accuracy, "python") for i, accuracy in enumerate(accuracies))


def app(**changes: Any) -> TaskGraph:
    """Returns X -> split into rows -> for each: square -> S. Both tasks have two variants."""
    split = task("split", {"X": "inputs.X"}, outputs={"ROWS": ROWS}, of=real(1.0, 0.5))
    square = task("square", {"N": "split.ROWS"}, outputs={"S": ONE}, of=real(0.9, 0.8), for_each="split.ROWS")
    of = graph([split, square], {"S": "square.S"}, inputs={"X": TensorType("INT64", (-1,))}, slo=Slo(100.0))
    metric = Metric("exact", "S")
    return replace(of, labels=Labels(of.folder / "labels.npz", {"square": metric}, metric), **changes)


MODELS: Mapping[str, Model] = {
    "split.v0": lambda inputs: {"ROWS": inputs["X"][..., None]},
    "split.v1": lambda inputs: {"ROWS": inputs["X"][:, 1:, None]},  # misses the first
    "square.v0": lambda inputs: {"S": inputs["N"] ** 2},
    "square.v1": lambda inputs: {"S": np.where(inputs["N"] < 3, inputs["N"] ** 2, 0)},
}


class InProcess(ProfilingWorkers):
    """Workers that run functions, and record the sizes of batches."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        super().__init__(cast(Any, SimpleNamespace()), Gpu(GpuId("n", 0), CATALOG["cpu"]))
        self.models = models
        self.now = ""
        self.loads: list[str] = []
        self.sizes: list[int] = []
        self.stops = 0

    @property
    def backends(self) -> frozenset[str]:
        return frozenset({"python"})

    async def start(self, kind: str, instances: int) -> None:
        assert (kind, instances) == ("1g", 2)

    async def stop(self) -> None:
        self.stops += 1

    @asynccontextmanager
    async def loaded(self, model: WorkerModel) -> AsyncIterator[None]:
        self.now = f"{model.task}.{model.variant}"
        self.loads.append(self.now)
        yield

    async def infer(self, model: str, inputs: Arrays) -> dict[str, Array]:
        await asyncio.sleep(0)
        self.sizes.append(len(next(iter(inputs.values()))))
        return self.models[self.now](inputs)


def requests(*rows: Sequence[int], labels: Callable[[Array], dict[str, Array]] | None = None) -> LabelledSet:
    labels = labels or (lambda x: {"square.S": (x**2)[:, None]})
    arrays = [np.array(row, np.int64) for row in rows]
    return LabelledSet("labels.npz", [Request({X: x}, labels(x)) for x in arrays])


def meter(of: TaskGraph, data: LabelledSet, workers: InProcess, batch: int = 4) -> AccuracyMeter:
    return AccuracyMeter(of, data, Runner(of, workers, TEMPLATES, Serving("1g", 2, batch)), lambda _: None)


def outcomes(found: AsyncIterator[Result | Unmeasured]) -> dict[str, Result | Unmeasured]:
    async def all_of() -> dict[str, Result | Unmeasured]:
        return {one.name: one async for one in found}

    return asyncio.run(all_of())


def collected(found: AsyncIterator[Result | Unmeasured]) -> dict[str, Result]:
    """Returns the results by name, all of which must be measured."""
    return {name: cast(Result, one) for name, one in outcomes(found).items()}


def measured(
    of: TaskGraph, data: LabelledSet, names: Mapping[str, Sequence[str]], models: Mapping[str, Model] = MODELS
) -> dict[str, Result]:
    return collected(meter(of, data, InProcess(models)).variants(names))


def test_a_task_gets_the_output_of_the_best_variant_upstream() -> None:
    workers = InProcess(MODELS)
    found = collected(meter(app(), requests([1, 2], [3, 4]), workers).variants({"square": ("v0", "v1")}))
    assert workers.loads == ["split.v0", "square.v0", "square.v1"]
    assert {name: result.value for name, result in found.items()} == {"square v0": 1.0, "square v1": 0.5}
    result = found["square v1"]
    assert (result.metric, result.data, result.measured.n, result.best) == ("exact", "labels.npz", 2, "")
    assert result.measured.low < 0.5 < result.measured.high


def test_rows_are_sent_in_batches_and_items_that_make_rows_one_by_one() -> None:
    workers = InProcess(MODELS)
    collected(meter(app(), requests([1, 2, 3], [4, 5, 6]), workers).variants({"square": ("v0",)}))
    assert sorted(workers.sizes) == [1, 1, 2, 4]


def test_labels_are_the_input_where_the_set_has_them() -> None:
    workers = InProcess(MODELS)
    data = requests([1, 2], labels=lambda x: {"split.ROWS": x[:, None] + 1, "square.S": ((x + 1) ** 2)[:, None]})
    found = collected(meter(app(), data, workers).variants({"square": ("v0", "v1")}))
    assert workers.loads == ["square.v0", "square.v1"]
    assert {name: result.value for name, result in found.items()} == {"square v0": 1.0, "square v1": 0.5}


def test_a_variant_that_was_measured_to_be_better_makes_the_input_of_later_tasks() -> None:
    of = app()
    tasks = {**of.tasks, "split": replace(of.tasks["split"], variants=real(0.1, 0.9))}
    labels = replace(of.labels, tasks={"split": Metric("f1", "ROWS"), "square": Metric("exact", "S")})  # type: ignore[type-var]
    data = requests([1, 2, 3], labels=lambda x: {"split.ROWS": x[:, None], "square.S": (x**2)[:, None]})
    found = measured(replace(of, tasks=tasks, labels=labels), data, {"split": ("v0", "v1"), "square": ("v0",)})
    assert {name: result.value for name, result in found.items()} == {
        "split v0": 1.0,
        "split v1": 0.8,
        "square v0": 1.0,
    }


def test_requests_without_rows_count_nothing() -> None:
    found = measured(app(), requests([], [1]), {"square": ("v0",)})
    assert found["square v0"].value == 1.0
    with pytest.raises(InputError, match="the metric counts nothing"):
        measured(app(), requests([], []), {"square": ("v0",)})


def test_without_a_metric_variants_agree_with_the_best() -> None:
    of = replace(app(), labels=None)
    found = measured(of, requests([1, 2, 3, 4], labels=lambda _: {}), {"square": ("v0", "v1"), "split": ("v0",)})
    (result,) = found.values()
    assert (result.name, result.best, result.metric, result.value) == ("square v1", "v0", "agreement", 0.5)


def test_pairs_are_measured_end_to_end() -> None:
    """The second splitter misses a row of each request, and the second square knows only numbers below 3."""
    workers = InProcess(MODELS)
    pairs = [{"split": one, "square": other} for one in ("v0", "v1") for other in ("v0", "v1")]
    found = collected(meter(app(), requests([2, 2], [3, 3]), workers).combinations(pairs, Metric("exact", "S")))
    assert {name: result.value for name, result in found.items()} == {
        "split v0, square v0": 1.0,
        "split v0, square v1": 0.5,
        "split v1, square v0": 0.5,
        "split v1, square v1": 0.25,
    }
    assert workers.loads == ["split.v0", "square.v0", "square.v1", "split.v1", "square.v0", "square.v1"]


def test_of_pairs_only_those_that_are_missing_are_measured() -> None:
    workers = InProcess(MODELS)
    pairs = [{"split": "v1", "square": "v0"}, {"square": "v1"}]
    found = collected(meter(app(), requests([2, 2]), workers).combinations(pairs, Metric("exact", "S")))
    assert {name: result.value for name, result in found.items()} == {"split v1, square v0": 0.5, "square v1": 1.0}
    assert workers.loads == ["split.v1", "square.v0", "split.v0", "square.v1"]


def test_conditions_and_python_steps_are_run() -> None:
    double = step("double", {"x": "inputs.X"}, "def step(x): return {'Y': x * 2}", outputs={"Y": ONE})
    always = task("always", {"N": "double.Y"}, outputs={"S": ONE}, of=real(1.0))
    big = When(ref("always.S"), above=10.0, below=None, probability=0.5)
    seldom = task("seldom", {"N": "double.Y"}, outputs={"S": ONE}, of=real(1.0, 0.5), when=big)
    of = graph([always, seldom], {"S": "seldom.S"}, inputs={"X": ONE}, steps=[double])
    of = replace(of, labels=Labels(of.folder / "l.npz", {"seldom": Metric("exact", "S")}))
    models: Mapping[str, Model] = {
        "always.v0": lambda inputs: {"S": inputs["N"]},
        "seldom.v0": lambda inputs: {"S": inputs["N"] + 1},
        "seldom.v1": lambda inputs: {"S": inputs["N"] + 2},
    }
    data = LabelledSet(
        "l.npz",
        [
            Request({X: np.array([4])}, {"seldom.S": np.zeros((0, 1), np.int64)}),
            Request({X: np.array([6])}, {"seldom.S": np.array([[13]])}),
        ],
    )
    found = measured(of, data, {"seldom": ("v0", "v1")}, models)
    assert {name: result.value for name, result in found.items()} == {"seldom v0": 1.0, "seldom v1": 0.0}


def test_a_step_that_fails_is_the_users_error() -> None:
    broken = step("broken", {"x": "inputs.X"}, "def step(x): return {'Y': 1 / 0}", outputs={"Y": ONE})
    later = task("later", {"N": "broken.Y"}, outputs={"S": ONE}, of=real(1.0))
    of = graph([later], {"S": "later.S"}, inputs={"X": ONE}, steps=[broken])
    of = replace(of, labels=Labels(of.folder / "l.npz", {"later": Metric("exact", "S")}))
    data = LabelledSet("l.npz", [Request({X: np.array([4])}, {"later.S": np.array([1])})])
    with pytest.raises(InputError, match=r"step broken: .*ZeroDivisionError"):
        measured(of, data, {"later": ("v0",)}, {})


def failing(inputs: Arrays) -> dict[str, Array]:
    raise ServerError("out of memory; the server's log:\n  killed")


def test_a_variant_that_fails_is_reported_and_the_others_are_measured() -> None:
    workers = InProcess({**MODELS, "square.v0": failing})
    found = outcomes(meter(app(), requests([1, 2], [3]), workers).variants({"square": ("v0", "v1")}))
    failed, other = found["square v0"], found["square v1"]
    assert isinstance(failed, Unmeasured)
    assert failed.failure == Failure("out of memory", "  killed")
    assert isinstance(other, Result)
    assert other.value == 0.6667
    assert workers.stops == 1


def test_the_best_variant_that_works_makes_the_input_of_later_tasks() -> None:
    workers = InProcess({**MODELS, "split.v0": failing})
    found = outcomes(meter(app(), requests([1, 2], [3, 4]), workers).variants({"square": ("v0",)}))
    assert workers.loads == ["split.v0", "split.v1", "square.v0"]
    assert isinstance(found["split v0"], Unmeasured) and isinstance(found["square v0"], Result)


def test_tasks_without_input_are_reported() -> None:
    of = app()
    labels = replace(of.labels, tasks={"split": Metric("f1", "ROWS"), "square": Metric("exact", "S")})  # type: ignore[type-var]
    data = requests([1, 2], labels=lambda x: {"split.ROWS": x[:, None], "square.S": (x**2)[:, None]})
    without = LabelledSet(data.name, [Request(r.inputs, {"square.S": r.labels["square.S"]}) for r in data.requests])
    broken = {**MODELS, "split.v0": failing, "split.v1": failing}
    found = outcomes(meter(of, without, InProcess(broken)).variants({"square": ("v0", "v1")}))
    reason = "square has no input, because split does not work"
    failed = {name: one.failure.reason for name, one in found.items() if isinstance(one, Unmeasured)}
    causes = {"split v0": "out of memory", "split v1": "out of memory"}
    assert failed == {**causes, "square v0": reason, "square v1": reason}
    labelled = outcomes(
        meter(replace(of, labels=labels), data, InProcess(broken)).variants({"split": ("v1",), "square": ("v0",)})
    )
    assert isinstance(labelled["split v1"], Unmeasured)
    assert isinstance(labelled["square v0"], Result)


def test_a_variant_that_fails_agrees_with_none() -> None:
    of = replace(app(), labels=None)
    broken = {**MODELS, "square.v0": failing}
    found = outcomes(meter(of, requests([1, 2]), InProcess(broken)).variants({"square": ("v0", "v1")}))
    assert list(found) == ["square v0"]
    assert isinstance(found["square v0"], Unmeasured)


def test_combinations_of_a_variant_that_fails_are_reported() -> None:
    wanted = [{"split": one, "square": other} for one in ("v0", "v1") for other in ("v0", "v1")]
    workers = InProcess({**MODELS, "square.v1": failing})
    metric = Metric("exact", "S")
    found = outcomes(meter(app(), requests([1, 2], [3, 4]), workers).combinations(wanted, metric))
    kinds = {name: type(one) for name, one in found.items()}
    assert kinds == {
        "split v0, square v0": Result,
        "split v0, square v1": Unmeasured,
        "split v1, square v0": Result,
        "split v1, square v1": Unmeasured,
    }


def test_a_request_without_its_label_is_named() -> None:
    data = LabelledSet("labels.npz", [*requests([1]).requests, Request({X: np.array([1])}, {})])
    with pytest.raises(InputError, match=r"labels\.npz, request 2: the labels have no square\.S"):
        measured(app(), data, {"square": ("v0",)})


def test_emulated_variants_cannot_make_the_input_of_others() -> None:
    with pytest.raises(InputError, match="all variants are emulated"):
        best_variant(task("t", {"X": "inputs.X"}))


def test_neighbours_have_several_variants_and_at_most_single_ones_between() -> None:
    tasks = [
        task("a", {"X": "inputs.X"}, of=real(1.0, 0.9)),
        task("only", {"X": "a.Y"}, of=real(1.0)),
        task("b", {"X": "only.Y"}, of=real(1.0, 0.9)),
        task("c", {"X": "b.Y"}, of=real(1.0, 0.9)),
    ]
    of = graph(tasks, {"Y": "c.Y"})
    names = {t.name: tuple(v.name for v in t.variants) for t in tasks}
    assert neighbours(of, names) == [("a", "b"), ("b", "c")]
    assert neighbours(of, {"a": ("v0", "v1"), "c": ("v0", "v1")}) == [("a", "c")]
    assert neighbours(of, {"a": ("v0",), "c": ("v0", "v1")}) == []
