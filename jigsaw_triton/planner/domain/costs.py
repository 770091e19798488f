"""Costs of GPUs: what makes slices of different boards comparable.

A slice costs its share of the GPU: compute slices of the slice / compute slices of the board * cost of the GPU. A GPU
that is used as a whole therefore costs all of it. The cost of a GPU is the first of these that is known:

- `given`: cost per hour from cluster.yaml, in any currency.
- `throughput`: where boards are mixed, the throughput of a GPU relative to that of the slowest board. The throughput of
  a variant on a GPU is the largest of its profile rows, times the number of such slices that a GPU holds. The ratio of
  two boards is the geometric mean over the tasks that have a variant profiled on all boards; each task counts with the
  geometric mean of these variants. Two digits count, so that noise of measurements does not move plans.
- `slices`: otherwise each compute slice counts alike.

The planner counts cost in whole units (`Board.slice_cost`), so that optima can be proven as for slices. On boards of
one kind a unit is a compute slice. Otherwise it is the greatest common divisor of the costs of a compute slice, but at
least 1 / `RESOLUTION` of the dearest.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import fsum
from typing import Literal

from jigsaw_triton.gpus.model import Board, Cluster
from jigsaw_triton.planner.domain.plan import Plan, PlanCost, PlannedGpu
from jigsaw_triton.profiles.table import ProfileTable

RESOLUTION = 10_000
"""Largest cost of a compute slice in whole units. A convention: a finer difference is not worth a longer proof."""

_DIGITS = 2
"""Significant digits of relative throughputs."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of the boards of a cluster.

    Attributes:
        source: Source of the costs.
        gpus: Model of GPU -> cost of a GPU.
        boards: Model of GPU -> board with its `slice_cost`.
        mean: Mean cost of a compute slice of the cluster, in whole units: what a slice of a price costs.
    """

    source: Literal["slices", "given", "throughput"]
    gpus: Mapping[str, float]
    boards: Mapping[str, Board]
    mean: float

    def applied_to(self, cluster: Cluster) -> Cluster:
        """Returns the cluster with these costs of compute slices."""
        return replace(cluster, gpus=tuple(replace(g, board=self.boards[g.board.name]) for g in cluster.gpus))

    def units(self, plan: Plan) -> int:
        """Returns the cost of a plan in whole units. Slices on boards that the cluster lacks do not count."""
        if self.source == "slices":
            return plan.slices_used
        known = (gpu for gpu in plan.gpus if gpu.model in self.boards)
        return sum(self._slices(gpu) * self.boards[gpu.model].slice_cost for gpu in known)

    def of(self, gpus: Iterable[PlannedGpu], cluster: Cluster) -> PlanCost | None:
        """Returns the cost of a plan's slices; None if each compute slice counts alike."""
        if self.source == "slices":
            return None
        share = {name: cost / self.boards[name].compute_slices for name, cost in self.gpus.items()}
        return PlanCost(
            used=fsum(self._slices(gpu) * share[gpu.model] for gpu in gpus if gpu.model in share),
            total=fsum(gpu.compute_slices * share[gpu.board.name] for gpu in cluster.gpus),
            source=self.source,
            unit="per hour" if self.source == "given" else min(self.gpus, key=lambda name: (self.gpus[name], name)),
        )

    def _slices(self, gpu: PlannedGpu) -> int:
        profiles = (self.boards[gpu.model].profile(placed.placement.slice) for placed in gpu.layout)
        return sum(profile.compute_slices for profile in profiles if profile is not None)


def board_costs(cluster: Cluster, profiles: Mapping[str, ProfileTable]) -> Costs:
    """Returns the costs of a cluster's boards.

    Args:
        cluster: Cluster whose GPUs have a cost all or none, and those of one model the same.
        profiles: Graph name -> profiles, for the throughput of mixed boards without costs.
    """
    boards = {gpu.board.name: gpu.board for gpu in cluster.gpus}
    if not boards:
        return Costs("slices", {}, {}, 1.0)
    given = {gpu.board.name: gpu.cost for gpu in cluster.gpus if gpu.cost is not None}
    if given:
        return _costs("given", given, cluster)
    relative = relative_throughputs(boards, profiles) if len(boards) > 1 else None
    if relative is None:
        return _costs("slices", {name: float(board.compute_slices) for name, board in boards.items()}, cluster)
    return _costs("throughput", relative, cluster)


def _costs(source: Literal["slices", "given", "throughput"], gpus: Mapping[str, float], cluster: Cluster) -> Costs:
    boards = {gpu.board.name: gpu.board for gpu in cluster.gpus}
    # The fractions are made from the decimal digits that the user wrote, which binary fractions would not keep.
    shares = {name: Fraction(str(gpus[name])) / board.compute_slices for name, board in boards.items()}
    denominator = math.lcm(*(share.denominator for share in shares.values()))
    unit = Fraction(math.gcd(*(int(share * denominator) for share in shares.values())), denominator)
    unit = max(unit, max(shares.values()) / RESOLUTION)
    priced = {name: replace(board, slice_cost=max(1, round(shares[name] / unit))) for name, board in boards.items()}
    slices = sum(gpu.board.compute_slices for gpu in cluster.gpus)
    mean = sum(gpu.board.compute_slices * priced[gpu.board.name].slice_cost for gpu in cluster.gpus) / slices
    return Costs(source, dict(gpus), priced, mean)


def relative_throughputs(boards: Mapping[str, Board], profiles: Mapping[str, ProfileTable]) -> dict[str, float] | None:
    """Returns the throughput of a GPU of each board relative to the slowest; None if no variant is profiled on all."""
    logs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for graph, table in profiles.items():
        best: dict[tuple[str, str], dict[str, float]] = {}
        for row in table.rows():
            board = boards.get(row.key.gpu)
            profile = board.profile(row.key.slice) if board is not None else None
            if profile is not None and row.throughput_rps > 0:
                of = best.setdefault((row.key.task, row.key.variant), {})
                of[row.key.gpu] = max(of.get(row.key.gpu, 0.0), row.throughput_rps * profile.max_instances)
        for (task, _), of in best.items():
            if of.keys() == boards.keys():
                logs.setdefault((graph, task), []).append({name: math.log(rps) for name, rps in of.items()})
    if not logs:
        return None
    means = {
        name: math.fsum(math.fsum(log[name] for log in of) / len(of) for of in logs.values()) / len(logs)
        for name in boards
    }
    slowest = min(means.values())
    return {name: float(f"{math.exp(mean - slowest):.{_DIGITS}g}") for name, mean in means.items()}


def cluster_cost(cluster: Cluster) -> int:
    """Returns the cost of all compute slices that are not taken by others, in whole units."""
    return sum(gpu.compute_slices * gpu.board.slice_cost for gpu in cluster.gpus)
