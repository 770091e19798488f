import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.profiling.connection import Connection
from jigsaw_triton.evaluation.profiling.load import Pace
from jigsaw_triton.evaluation.profiling.measure import Failure, Measurement, Profiler, full_share
from jigsaw_triton.evaluation.profiling.workers import ProfilingWorkers
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Gpu, GpuId
from jigsaw_triton.graph.model import TaskGraph, Variant
from jigsaw_triton.profiles.table import ProfileKey
from jigsaw_triton.runtime.dtypes import Array, Arrays
from tests.compiler.samples import TEMPLATES
from tests.fakes.graphs import fan_out

QUICK = Pace(most_s=0.0, warm_up_s=0.0, warm_up_batches=1, least_batches=3)
REAL = (Variant("small", 0.8, "python"), Variant("large", 0.9, "python"))


def application(tmp_path: Path, *, sample: bool = True) -> TaskGraph:
    """Returns the graph X -> detect -> classify (for each of CROPS), both with real variants."""
    found = fan_out()
    tasks = {name: replace(task, variants=REAL) for name, task in found.tasks.items()}
    np.save(tmp_path / "x.npy", np.arange(16, dtype=np.float32))
    return replace(found, tasks=tasks, samples={"X": tmp_path / "x.npy"} if sample else {})


class FakeWorkers(ProfilingWorkers):
    """Workers that answer as `detect` does, with `rows` crops per request, and record all calls."""

    def __init__(self, rows: int = 3, broken: Collection[str] = ()) -> None:
        super().__init__(cast(Any, SimpleNamespace()), Gpu(GpuId("n", 0), CATALOG["cpu"]))
        self.rows = rows
        self.broken = broken
        self.stops = 0
        self.slices: list[str] = []
        self.loads: list[WorkerModel] = []
        self.sizes: Counter[int] = Counter()
        self.crops: set[float] = set()

    @property
    def backends(self) -> frozenset[str]:
        return frozenset({"python"})

    async def start(self, kind: str, instances: int) -> None:
        self.slices.append(kind)

    @asynccontextmanager
    async def loaded(self, model: WorkerModel) -> AsyncIterator[None]:
        self.loads.append(model)
        if model.variant in self.broken:
            raise ServerError("it does not load; the server's log:\n  line 1\n  line 2")
        yield

    async def stop(self) -> None:
        self.stops += 1

    async def model_mib(self) -> float:
        return 12.34

    def processor_s(self) -> float:
        """Two milliseconds for each item."""
        return 2e-3 * sum(size * count for size, count in self.sizes.items())

    async def infer(self, model: str, inputs: Arrays) -> dict[str, Array]:
        crops = np.array([np.full(16, n) for n in range(self.rows)], np.float32).reshape(-1, 16)
        return {"BOX": inputs["X"], "CROPS": crops[None]}

    async def statistics(self, model: str) -> list[dict[str, Any]]:
        return [{"batch_stats": [{"batch_size": s, "compute_infer": {"count": n}} for s, n in self.sizes.items()]}]

    def connect(self, lane: int) -> Connection:
        return cast(Connection, SimpleNamespace(send=self._send, receive=dict, close=lambda: None))

    def _send(self, model: str, inputs: Arrays, outputs: tuple[str, ...]) -> None:
        self.sizes[len(inputs["CROP"])] += 1
        self.crops |= set(inputs["CROP"][:, 0].tolist())


def profiler_on(graph: TaskGraph, workers: FakeWorkers) -> tuple[Profiler, list[str]]:
    warnings: list[str] = []
    return Profiler(graph, workers, TEMPLATES, warnings.append), warnings


def test_a_configuration_is_measured_with_real_input_on_a_deployment_s_model(tmp_path: Path) -> None:
    workers, steps = FakeWorkers(), list[str]()
    profiler, warnings = profiler_on(application(tmp_path), workers)
    key = ProfileKey("cpu", "classify", "small", "2g", 2, 4)

    async def main() -> None:
        await profiler.prepare(["classify"], "1g", steps.append)
        found = await profiler.measure(key, QUICK)
        assert isinstance(found, Measurement)
        assert found.row.key == key
        assert (found.row.source, found.row.memory_mib) == ("measured", 12.3)
        assert 0 < found.row.latency_p50_ms <= found.row.latency_p95_ms <= found.row.latency_p99_ms
        assert found.full == 1.0
        assert found.batches >= 6
        assert found.row.processor_ms is not None and found.row.processor_ms > 0

    asyncio.run(main())
    upstream, measured = workers.loads
    assert (upstream.task, upstream.variant, upstream.instances, upstream.batch) == ("detect", "large", 1, 1)
    assert (measured.task, measured.variant, measured.instances, measured.batch) == ("classify", "small", 2, 4)
    assert cfg.of_folder(measured.folder).max_batch_size == 4
    assert upstream.name != measured.name
    assert list(dict.fromkeys(workers.slices)) == ["1g", "2g"]
    assert workers.crops == {0.0, 1.0, 2.0}
    assert list(workers.sizes) == [4]
    assert steps == ["running detect to make the input of later tasks"]
    assert warnings == []


def test_made_up_input_causes_warnings(tmp_path: Path) -> None:
    workers = FakeWorkers(rows=0)
    profiler, warnings = profiler_on(application(tmp_path, sample=False), workers)

    async def main() -> None:
        await profiler.prepare(["classify"], "1g", lambda _: None)
        await profiler.measure(ProfileKey("cpu", "classify", "small", "1g", 1, 2), QUICK)

    asyncio.run(main())
    assert len(warnings) == 2
    assert "no sample of X" in warnings[0]
    assert "detect.CROPS has no rows" in warnings[1]
    assert list(workers.sizes) == [2]


def test_a_task_without_upstream_tasks_needs_no_run(tmp_path: Path) -> None:
    workers = FakeWorkers()
    profiler, _ = profiler_on(application(tmp_path), workers)
    asyncio.run(profiler.prepare(["detect"], "1g", lambda _: None))
    assert workers.loads == []


def test_a_model_that_does_not_load_is_a_failure_and_its_server_is_not_used_again(tmp_path: Path) -> None:
    workers = FakeWorkers(broken=["small"])
    profiler, _ = profiler_on(application(tmp_path), workers)
    key = ProfileKey("cpu", "detect", "small", "1g", 1, 2)

    async def main() -> None:
        await profiler.prepare(["detect"], "1g", lambda _: None)
        assert await profiler.measure(key, QUICK) == Failure(key, "it does not load", "  line 1\n  line 2")

    asyncio.run(main())
    assert workers.stops == 1


@pytest.mark.parametrize(
    ("broken", "tried", "warnings"),
    [
        (("large",), ["large", "small"], ["detect.large"]),
        (
            ("large", "small"),
            ["large", "small"],
            ["detect.large", "detect.small", "no variant of detect"],
        ),
    ],
)
def test_another_variant_makes_the_input_if_the_best_one_fails(
    tmp_path: Path, broken: tuple[str, ...], tried: list[str], warnings: list[str]
) -> None:
    workers = FakeWorkers(broken=broken)
    profiler, told = profiler_on(application(tmp_path), workers)
    asyncio.run(profiler.prepare(["classify"], "1g", lambda _: None))
    assert [model.variant for model in workers.loads] == tried
    assert len(told) == len(warnings)
    assert all(text.startswith(begin) for begin, text in zip(warnings, told, strict=True))


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [({}, {4: 10}, 1.0), ({1: 1}, {1: 1, 4: 10}, 1.0), ({1: 1}, {1: 6, 4: 15}, 0.75), ({4: 3}, {4: 3}, 0.0)],
)
def test_the_share_of_full_batches_counts_executions_between_the_readings(
    before: dict[int, int], after: dict[int, int], share: float
) -> None:
    def statistics(sizes: dict[int, int]) -> dict[str, Any]:
        return {"batch_stats": [{"batch_size": s, "compute_infer": {"count": n}} for s, n in sizes.items()]}

    assert full_share([statistics(before)], [statistics(after)], 4) == share
    # Equal statistics on two servers give the same share.
    assert full_share([statistics(before)] * 2, [statistics(after)] * 2, 4) == share
