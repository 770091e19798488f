"""Planning problems for tests: a page reader on small boards, with made-up profiles, and the parts of such problems."""

from collections.abc import Mapping, Sequence

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Board, Cluster, Gpu, GpuId
from jigsaw_triton.graph.model import Slo, TaskGraph, Variant, Workload
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from tests.fakes.graphs import graph, task

SPEED = {"1g": 1.0, "1gx2": 1.0, "2g": 1.9, "3g": 2.7, "4g": 3.5, "7g": 5.6}
"""Speed of each slice relative to 1g, with losses for larger slices as on real GPUs."""

MEMORY_MIB = 900.0

TWO_P95 = Options(latency_model="2p95")
"""Options for results that can be computed by hand: 80% of a throughput is used, and latencies are multiples of p95."""

LONG = Options(time_limit_s=120.0)
"""A time limit that no problem here reaches, however busy the machine. A search that is cut short may end elsewhere."""

SOLVE_S = 3.0
"""Time limit of a solver in seconds, for tests in which an incumbent will do if the optimum takes longer. An example
without either does not count."""


def row(
    task_name: str,
    variant: str,
    *,
    slice_: str = "1g",
    instances: int = 1,
    batch: int = 1,
    p95_ms: float = 10.0,
    rps: float | None = None,
    memory_mib: float = MEMORY_MIB,
    gpu: str = "cpu",
) -> ProfileRow:
    """Returns a row of profiles.csv; by default with the throughput of back-to-back batches of `p95_ms`."""
    return ProfileRow(
        key=ProfileKey(gpu, task_name, variant, slice_, instances, batch),
        latency_p50_ms=0.8 * p95_ms,
        latency_p95_ms=p95_ms,
        latency_p99_ms=1.1 * p95_ms,
        throughput_rps=1000.0 * batch * instances / p95_ms if rps is None else rps,
        memory_mib=memory_mib,
        source="assumed",
    )


def grid(
    task_name: str,
    variant: str,
    item_ms: float,
    *,
    slices: Sequence[str] = ("1g", "2g", "3g", "4g", "7g"),
    instances: Sequence[int] = (1, 2),
    batches: Sequence[int] = (1, 2, 4, 8),
    gpu: str = "cpu",
) -> list[ProfileRow]:
    """Returns profiles of a variant that takes `item_ms` for one item on a 1g, and less per item in a batch."""
    return [
        row(
            task_name,
            variant,
            slice_=slice_,
            instances=k,
            batch=b,
            p95_ms=round(item_ms * (0.3 + 0.7 * b) * (0.2 + 0.8 * k) / SPEED[slice_], 4),
            memory_mib=MEMORY_MIB * k,
            gpu=gpu,
        )
        for slice_ in slices
        for k in instances
        for b in batches
    ]


def docread(*, slo: Slo | None = None, name: str = "docread", lines: float = 6.0) -> TaskGraph:
    """Returns the graph PAGE -> detect text lines -> recognise (for each line). Better detectors find more lines."""
    page = TensorType("UINT8", (-1, -1, 3))
    detect = task(
        "detect",
        {"PAGE": "inputs.PAGE"},
        outputs={"BOXES": TensorType("FP32", (-1, 4)), "CROPS": TensorType("FP32", (-1, 3, 48, 320))},
        of=[
            Variant("tiny", 0.777, "emulated", yields={"CROPS": 0.8 * lines}),
            Variant("small", 0.951, "emulated", yields={"CROPS": 0.95 * lines}),
            Variant("base", 0.985, "emulated", yields={"CROPS": lines}),
        ],
    )
    recognise = task(
        "recognise",
        {"CROP": "detect.CROPS"},
        outputs={"TEXT": TensorType("BYTES", (1,))},
        of=[Variant("tiny", 0.8, "emulated"), Variant("small", 0.96, "emulated")],
        for_each="detect.CROPS",
    )
    return graph(
        [detect, recognise],
        {"BOXES": "detect.BOXES", "TEXT": "recognise.TEXT"},
        name=name,
        slo=slo or Slo(latency_ms=400.0, accuracy=0.8),
        inputs={"PAGE": page},
    )


def docread_profiles(gpu: str = "cpu", *, batches: Sequence[int] = (1, 2, 4, 8)) -> ProfileTable:
    """Returns made-up profiles of all variants of `docread` on all slices."""
    costs = {
        ("detect", "tiny"): 9.0,
        ("detect", "small"): 19.0,
        ("detect", "base"): 45.0,
        ("recognise", "tiny"): 5.0,
        ("recognise", "small"): 14.0,
    }
    return ProfileTable(r for (t, v), ms in costs.items() for r in grid(t, v, ms, gpu=gpu, batches=batches))


def cluster(gpus: int = 2, *, of: str | Board = "cpu", node: str = "a") -> Cluster:
    """Returns a cluster of GPUs of one model on one node."""
    model = board(of) if isinstance(of, str) else of
    return Cluster(tuple(Gpu(GpuId(node, i), model) for i in range(gpus)))


def docread_problem(
    demand_rps: float = 20.0,
    *,
    gpus: int = 2,
    slo: Slo | None = None,
    running: Plan | None = None,
    batches: Sequence[int] = (1, 2, 4, 8),
) -> Problem:
    """Returns the problem of serving `docread` on `cpu` boards."""
    profiles = docread_profiles(batches=batches)
    return problem(docread(slo=slo), profiles, demand_rps=demand_rps, gpus=gpus, running=running)


def problem(
    task_graph: TaskGraph,
    profiles: ProfileTable | Sequence[ProfileRow],
    *,
    demand_rps: float = 10.0,
    gpus: int = 1,
    running: Plan | None = None,
) -> Problem:
    """Returns the problem of serving one graph on `cpu` boards."""
    table = profiles if isinstance(profiles, ProfileTable) else ProfileTable(profiles)
    workloads: tuple[Workload, ...] = (Workload(task_graph, demand_rps),)
    tables: Mapping[str, ProfileTable] = {task_graph.name: table}
    return Problem(workloads, cluster(gpus), tables, running)
