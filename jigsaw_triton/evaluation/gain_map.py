"""Map of what spatial partitioning (S) gains: an estimate of the largest demand of A+S+T over that of A+T.

The estimate follows the paper's formulation: slices without layouts, 2 x p95, at most four instances. It has two steps,
neither of which has a fitted parameter.

- **A model.** Its gain depends on three traits: the launch share, the tightness of the SLO, and the largest batch.
  `model_gain` computes it with the model of `evaluation.launching`.
- **A graph.** Each task gets a part of the SLO in proportion to its time, and its own gain is looked up in the
  profiles. The gain of the graph is the harmonic mean of its tasks' gains, weighted by the time for which they occupy
  GPUs without S. This leaves out that the planner divides the SLO in the best way, with S and without.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jigsaw_triton.evaluation.launching import Cost
from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.configurations import PAPER_INSTANCES, accuracy_budget, loss, why_not
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.planner.domain.rates import most_calls, request_rows
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, TOLERANCE
from jigsaw_triton.planner.latency.latency import two_p95_ms
from jigsaw_triton.profiles.table import ProfileTable

WITH_S, WITHOUT_S = "AST", "AT"
"""Features that are compared."""

_LEFT_OUT = "1gx2"
"""Kind of slice that a model does not use: it has two of eight memory slices, but the paper's formulation counts it as
one of seven compute slices."""

_ROUNDS = 3
"""Rounds in which variants and parts of the SLO are chosen in turn. A convention: more change nothing."""


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits on which the gain of a model depends.

    Attributes:
        launch_share: Share of the launch time in the time of one item, alone on a whole GPU.
        tightness: Latency SLO over the time of one item, alone on a whole GPU. Below 2 nothing can be served.
        largest_batch: Largest batch.
    """

    launch_share: float
    tightness: float
    largest_batch: int


@dataclass(frozen=True, slots=True)
class TaskGain:
    """Gain of S on a task alone.

    Attributes:
        task: Name of the task.
        variant: Variant without S.
        variant_with_s: Variant with S.
        weight: Share of the GPU time of a request that is the task's, without S.
        gain: GPU time without S over that with S.
    """

    task: str
    variant: str
    variant_with_s: str
    weight: float
    gain: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimate for a graph.

    Attributes:
        graph: Name of the graph.
        traits: Traits of the graph, if it is taken for one model. Its time is that of the slowest path, at the 95th
            percentile and with the variants that are used without S.
        tasks: Gains of the tasks.
    """

    graph: str
    traits: Traits
    tasks: tuple[TaskGain, ...]

    @property
    def gain(self) -> float:
        """Gain of the graph: the harmonic mean of its tasks' gains."""
        return 1 / sum(task.weight / task.gain for task in self.tasks)


def model_gain(traits: Traits, board: Board) -> float | None:
    """Returns the gain of one model; None if a whole GPU cannot keep the SLO.

    Args:
        traits: Traits of the model.
        board: Model of GPU.
    """
    sizes = _sizes(board)
    whole = board.whole.slice
    taken = Cost(traits.launch_share, (1 - traits.launch_share) * sizes[whole])
    batches = [2**power for power in range(traits.largest_batch.bit_length())]
    every = [
        (slice_, instances, batch)
        for slice_ in sizes
        if slice_ != _LEFT_OUT
        for instances in range(1, PAPER_INSTANCES + 1)
        for batch in batches
        if 2 * taken.batch_s(batch, instances, sizes[slice_]) <= traits.tightness * (1 + FLOAT_ERROR)
    ]

    def gpu_time(slice_: str, instances: int, batch: int) -> float:
        part = board.profiles[slice_].compute_slices / board.compute_slices
        return part * taken.batch_s(batch, instances, sizes[slice_]) / (instances * batch)

    without = min((gpu_time(*one) for one in every if one[:2] == (whole, 1)), default=None)
    return None if without is None else without / min(gpu_time(*one) for one in every)


def estimated(graph: TaskGraph, table: ProfileTable, board: Board) -> Estimate | None:
    """Returns the estimate for a graph; None if its tasks cannot keep their parts of the SLO without S.

    Args:
        graph: Graph.
        table: Profiles of the graph.
        board: Model of GPU.
    """
    offers = _offers(graph, table, board, WITHOUT_S)
    without, with_s = (_chosen(graph, found) for found in (offers, _offers(graph, table, board, WITH_S)))
    if without is None or with_s is None:
        return None
    total = sum(gpu_s for _, gpu_s in without.values())
    tasks = tuple(
        TaskGain(name, variant, with_s[name][0], gpu_s / total, gpu_s / with_s[name][1])
        for name, (variant, gpu_s) in without.items()
    )
    variants = {name: variant for name, (variant, _) in without.items()}
    alone_ms = {name: offers[name, variant].fastest_ms / 2 for name, variant in variants.items()}
    traits = Traits(
        _launch_share(graph, table, board, variants),
        graph.tasks_ms / max(longest_through(graph, alone_ms).values()),
        max(row.key.batch for row in table.rows(gpu=board.name)),
    )
    return Estimate(graph.name, traits, tasks)


@dataclass(frozen=True, slots=True)
class _Offer:
    """Configurations of a variant.

    Attributes:
        loss: Loss of accuracy, which adds up along a path.
        configurations: (Latency in milliseconds, GPU time of a request in seconds) of each configuration.
    """

    loss: float
    configurations: Sequence[tuple[float, float]]

    @property
    def fastest_ms(self) -> float:
        """Shortest latency."""
        return min(latency_ms for latency_ms, _ in self.configurations)

    def gpu_s(self, limit_ms: float) -> float:
        """Returns the least GPU time within a latency; infinity if none is."""
        within = (gpu_s for latency_ms, gpu_s in self.configurations if latency_ms <= limit_ms * (1 + FLOAT_ERROR))
        return min(within, default=math.inf)


_Offers = Mapping[tuple[str, str], _Offer]
"""(Task, variant) -> its configurations."""


def _offers(graph: TaskGraph, table: ProfileTable, board: Board, features: str) -> _Offers:
    options = Options(features=features, formulation="paper", latency_model="2p95")
    rows = request_rows(graph)
    calls = most_calls(graph, {name: [v.name for v in task.variants] for name, task in graph.tasks.items()})
    found = {}
    for name, task in graph.tasks.items():
        for variant in task.variants:
            lost = loss(task, variant.name)
            configurations = [
                (two_p95_ms(row, rows[name]), calls[name] * part / row.throughput_rps)
                for row in table.rows(task=name, variant=variant.name, gpu=board.name)
                if row.throughput_rps > 0 and why_not(row, lost, board, options) is None
                for part in (board.profiles[row.key.slice].compute_slices / board.compute_slices,)
            ]
            if configurations:
                found[name, variant.name] = _Offer(lost, configurations)
    return found


def _chosen(graph: TaskGraph, offers: _Offers) -> dict[str, tuple[str, float]] | None:
    """Returns variant and GPU time of each task; None if a task cannot keep its part of the SLO."""
    chosen = {}
    for name, task in graph.tasks.items():
        profiled = [v for v in task.variants if (name, v.name) in offers]
        if not profiled:
            return None
        chosen[name] = max(profiled, key=lambda v: v.accuracy).name
    prices: dict[tuple[str, str], float] = {}
    for _ in range(_ROUNDS):
        fastest_ms = {name: offers[name, variant].fastest_ms for name, variant in chosen.items()}
        through_ms = longest_through(graph, fastest_ms)
        parts_ms = {name: graph.tasks_ms * fastest_ms[name] / through_ms[name] for name in chosen}
        prices = {key: offer.gpu_s(parts_ms[key[0]]) for key, offer in offers.items()}
        chosen = _exchanged(graph, offers, prices, chosen)
    found = {name: (variant, prices[name, variant]) for name, variant in chosen.items()}
    return found if all(math.isfinite(gpu_s) for _, gpu_s in found.values()) else None


def _exchanged(
    graph: TaskGraph, offers: _Offers, prices: Mapping[tuple[str, str], float], chosen: Mapping[str, str]
) -> dict[str, str]:
    """Exchanges variants as long as that saves GPU time, those first that save most for the accuracy that they lose."""
    kept = dict(chosen)
    while True:
        best: tuple[float, dict[str, str]] | None = None
        for (name, variant), offer in offers.items():
            saved = prices[name, kept[name]] - prices[name, variant]
            exchanged = {**kept, name: variant}
            losses = {task: offers[task, one].loss for task, one in exchanged.items()}
            accurate = max(longest_through(graph, losses).values()) <= accuracy_budget(graph) + TOLERANCE
            if accurate and saved > 0:
                worth = saved / max(FLOAT_ERROR, offer.loss - offers[name, kept[name]].loss)
                if best is None or worth > best[0]:
                    best = (worth, exchanged)
        if best is None:
            return kept
        kept = best[1]


def _launch_share(graph: TaskGraph, table: ProfileTable, board: Board, variants: Mapping[str, str]) -> float:
    """Returns the share of the launch time in the time of one item of each call, alone on a whole GPU."""
    sizes = _sizes(board)
    calls = most_calls(graph, {name: [variant] for name, variant in variants.items()})
    launching = computing = 0.0
    for name, variant in variants.items():
        taken = Cost.fitted(
            [
                (row.key.batch / sizes[row.key.slice], row.latency_p50_ms / 1000)
                for row in table.rows(task=name, variant=variant, gpu=board.name)
                if row.key.instances == 1 and row.key.slice in sizes
            ]
        )
        launching += calls[name] * taken.launch_s
        computing += calls[name] * taken.item_s / sizes[board.whole.slice]
    return launching / (launching + computing)


def _sizes(board: Board) -> dict[str, int]:
    """Returns the multiprocessors of each kind of slice, or its compute slices if those are not published."""
    sizes = {kind: profile.sm for kind, profile in board.profiles.items()}
    if all(size is not None for size in sizes.values()):
        return {kind: size for kind, size in sizes.items() if size is not None}
    return {kind: profile.compute_slices for kind, profile in board.profiles.items()}
