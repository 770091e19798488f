"""Survival: what the loss of any one failure domain, a node or a rack, must leave of each graph's capacity.

The planner counts replicas by failure domain. To do so it treats the GPUs of one model in different domains as GPUs of
different models, `MODEL@DOMAIN`. The program therefore grows with the number of domains, and not with that of GPUs.
More than `MOST_DOMAINS` domains are merged into as many groups: a plan that survives the loss of a group survives the
loss of each of its members.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import NODE, Cluster, GpuId, Survive
from jigsaw_triton.planner.domain.plan import Plan, PlannedGpu

MOST_DOMAINS = 8
"""Largest number of failure domains that the program counts one by one. A convention that limits planning time; with
more, a group is at most an eighth of the cluster or so, and surviving its loss costs little more."""

_SEPARATOR = "@"
"""Character between model and domain, which no model of GPU has in its name."""


@dataclass(frozen=True, slots=True)
class Domains:
    """Failure domains of a cluster, as the planner counts them.

    Attributes:
        of: GPU -> its domain or group of domains.
        merged: True if there are groups of several domains.
    """

    of: Mapping[GpuId, str]
    merged: bool

    @property
    def number(self) -> int:
        """Number of domains or groups."""
        return len(set(self.of.values()))

    def apart(self, cluster: Cluster) -> Cluster:
        """Returns the cluster with a model of GPU for each domain."""
        gpus = (replace(g, board=replace(g.board, name=_model(g.board.name, self.of[g.id]))) for g in cluster.gpus)
        return replace(cluster, gpus=tuple(gpus))

    def apart_plan(self, plan: Plan) -> Plan:
        """Returns a plan with a model of GPU for each domain; GPUs that the cluster lacks stay as they are."""
        gpus = (replace(g, model=_model(g.model, self.of[g.id])) if g.id in self.of else g for g in plan.gpus)
        return replace(plan, gpus=tuple(gpus))


def domains(cluster: Cluster) -> Domains:
    """Returns the failure domains that the plan for a cluster must survive the loss of, merged if they are many."""
    found = failure_domains(cluster)
    names = sorted(set(found.values()))
    if len(names) <= MOST_DOMAINS:
        return Domains(found, merged=False)
    # Domains are assigned largest first, each to the smallest group, because groups of similar size cost least.
    sizes = {name: sum(gpu.compute_slices for gpu in cluster.gpus if found[gpu.id] == name) for name in names}
    groups = {f"group {number}": 0 for number in range(MOST_DOMAINS)}
    group_of: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (-sizes[name], name)):
        group_of[name] = min(groups, key=lambda group: (groups[group], group))
        groups[group_of[name]] += sizes[name]
    return Domains({gpu: group_of[name] for gpu, name in found.items()}, merged=True)


def failure_domains(cluster: Cluster) -> dict[GpuId, str]:
    """Returns the node of each GPU, or the value of the node's label that the cluster must survive the loss of."""
    label = cluster.survive.loss_of if cluster.survive is not None else NODE
    labels = {} if label == NODE else cluster.topology
    return {gpu.id: labels.get(gpu.id.node, {}).get(label, gpu.id.node) for gpu in cluster.gpus}


def condition(survive: Survive) -> str:
    """Returns what a loss must leave, as a clause."""
    return f"the loss of a {survive.loss_of} must leave {survive.share:.0%} of the demand"


def domain_of(model: str) -> str:
    """Returns the domain in a model of GPU that `Domains.apart` named."""
    return model.partition(_SEPARATOR)[2]


def model_of(model: str) -> str:
    """Returns the real model of a GPU that `Domains.apart` named."""
    return model.partition(_SEPARATOR)[0]


def together(gpus: Iterable[PlannedGpu]) -> tuple[PlannedGpu, ...]:
    """Returns the GPUs of a plan with their real models."""
    return tuple(replace(gpu, model=model_of(gpu.model)) for gpu in gpus)


def _model(board: str, domain: str) -> str:
    return f"{board}{_SEPARATOR}{domain}"
