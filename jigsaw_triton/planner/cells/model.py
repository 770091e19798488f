"""A partition of a cluster into cells, and its JSON format."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import fsum
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.cells.gateway import GatewayUse
from jigsaw_triton.planner.cells.weights import Weights
from jigsaw_triton.planner.domain.json_reader import Field, FieldError
from jigsaw_triton.planner.domain.plan import PLAN_VERSION, Plan, PlanCost, PlannedGpu
from jigsaw_triton.planner.domain.plan_reader import MAX_INT, cost_from_json, plan_from_json
from jigsaw_triton.planner.domain.tolerances import ROUNDING


@dataclass(frozen=True, slots=True)
class Cell:
    """Some nodes of a cluster, which one gateway serves.

    Attributes:
        name: Name of the cell.
        nodes: Names of its nodes, sorted. A node is in one cell.
        weights: Name of a graph -> share of the graph's demand that the cell serves. Other graphs are absent.
        gateway: Load that the plan puts on the gateway.
        plan: Plan for the cell's share of the demand, on the cell's nodes alone.
    """

    name: str
    nodes: tuple[str, ...]
    weights: Weights
    gateway: GatewayUse
    plan: Plan


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a cluster into cells.

    Attributes:
        cells: Cells, whose weights of each graph add up to 1.
        pool_slices: Compute slices of the plan that serves the whole demand from one pool.
        pool_bound: Lower bound on the compute slices of any plan of one pool; 0 if the objective is the cost.
        pool_cost: Cost of the plan of one pool; None if each compute slice counts alike.
        pool_cost_bound: Lower bound on the cost of any plan of one pool; 0 if none is known.
    """

    cells: tuple[Cell, ...]
    pool_slices: int
    pool_bound: int
    pool_cost: PlanCost | None = None
    pool_cost_bound: float = 0.0

    @property
    def slices_used(self) -> int:
        """Compute slices of all cells."""
        return sum(cell.plan.slices_used for cell in self.cells)

    @property
    def slices_total(self) -> int:
        """Compute slices of the cluster."""
        return sum(cell.plan.slices_total for cell in self.cells)

    @property
    def gpus(self) -> tuple[PlannedGpu, ...]:
        """GPUs in use in all cells."""
        return tuple(gpu for cell in self.cells for gpu in cell.plan.gpus)

    @property
    def gpus_used(self) -> int:
        """Number of GPUs in use in all cells."""
        return sum(cell.plan.gpus_used for cell in self.cells)

    @property
    def cost(self) -> PlanCost | None:
        """Cost of all cells; None if each compute slice counts alike."""
        if self.pool_cost is None:
            return None
        return replace(self.pool_cost, used=fsum(cell.plan.cost.used for cell in self.cells if cell.plan.cost))

    @property
    def price(self) -> float:
        """Additional cost of the cells (compute slices, if all count alike), as a share of that of one pool.

        It can be below 0: cells may divide the SLO among tasks in different ways, and a pool may not.
        """
        if self.pool_cost is not None and self.cost is not None:
            return self.cost.used / self.pool_cost.used - 1
        return self.slices_used / self.pool_slices - 1

    @property
    def reaches_bound(self) -> bool:
        """True if no plan of one pool costs less (takes fewer slices, if all count alike)."""
        if self.cost is not None:
            return self.cost.used <= self.pool_cost_bound * (1 + ROUNDING)
        return self.slices_used <= self.pool_bound

    def cells_of(self, graph: str) -> tuple[Cell, ...]:
        """Returns the cells that serve a graph."""
        return tuple(cell for cell in self.cells if graph in cell.weights)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the file that `plan --cells` writes."""
        return {
            "version": PLAN_VERSION,
            "cells": [
                {
                    "name": cell.name,
                    "nodes": list(cell.nodes),
                    "weights": dict(cell.weights),
                    "gateway": asdict(cell.gateway),
                    "plan": cell.plan.to_json(),
                }
                for cell in self.cells
            ],
            "pool_slices": self.pool_slices,
            "pool_bound": self.pool_bound,
            "pool_cost": None if self.pool_cost is None else asdict(self.pool_cost),
            "pool_cost_bound": self.pool_cost_bound,
            "cost": None if self.cost is None else asdict(self.cost),
            "slices_used": self.slices_used,
            "slices_total": self.slices_total,
            "gpus_used": self.gpus_used,
            "price": self.price,
        }


def partition_to_text(partition: Partition) -> str:
    """Returns the text of the file that `plan --cells` writes, on one line, since it describes thousands of GPUs."""
    return json.dumps(partition.to_json(), separators=(",", ":")) + "\n"


def is_partition(data: Any) -> bool:
    """Returns True if parsed JSON is the document of a partition rather than that of a plan."""
    return isinstance(data, dict) and "cells" in data


def partition_from_json(data: Mapping[str, Any], *, where: str) -> Partition:
    """Reads a partition that `Partition.to_json` wrote.

    Args:
        data: Parsed JSON.
        where: Name of the file, for error messages.

    Raises:
        InputError: The data is damaged, or has another version.
    """
    if type(data.get("version")) is not int or data["version"] != PLAN_VERSION:
        raise InputError(
            f"plan version {data.get('version')!r} is not {PLAN_VERSION}",
            where=where,
            hint="plan again with this release",
        )
    document = Field(data)
    try:
        bound = document.get("pool_cost_bound")
        found = Partition(
            cells=tuple(_cell(cell, where) for cell in document["cells"].listed()),
            pool_slices=document["pool_slices"].integer(1, MAX_INT),
            pool_bound=document["pool_bound"].integer(0, MAX_INT),
            pool_cost=cost_from_json(document.get("pool_cost")),
            pool_cost_bound=0.0 if bound is None else bound.number(),
        )
        nodes = [node for cell in found.cells for node in cell.nodes]
        if len(set(nodes)) < len(nodes):
            raise document["cells"].error("a node is in two cells")
    except FieldError as error:
        raise InputError(f"the plan is damaged ({error})", where=where, hint="plan again") from error
    return found


def _cell(data: Field, where: str) -> Cell:
    data.only(("name", "nodes", "weights", "gateway", "plan"))
    gateway = data["gateway"].only(("processors", "workers"))
    plan = plan_from_json(data["plan"].value, where=f"{where}: {data['plan'].path}")
    nodes = tuple(node.name() for node in data["nodes"].listed())
    for gpu in plan.gpus:
        if gpu.id.node not in nodes:
            raise data["plan"].error(f"GPU {gpu.id} is on none of the cell's nodes")
    return Cell(
        name=data["name"].name(),
        nodes=nodes,
        weights={name: share.number(most=1 + ROUNDING) for name, share in data["weights"].named().items()},
        gateway=GatewayUse(gateway["processors"].number(), gateway["workers"].integer(0, MAX_INT)),
        plan=plan,
    )
