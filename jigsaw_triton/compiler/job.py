"""The arguments and intermediate results of a compilation, which its parts share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.compiler.templates import Template, template
from jigsaw_triton.compiler.worker_config import Identity
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.chain import Chain
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.profiles.table import ProfileTable


@dataclass(frozen=True, slots=True)
class Job:
    """The arguments of `compile_plan`, and what its parts have computed from them.

    Attributes:
        chains: Graph -> chains of tasks that a worker executes in one call.
        compiled: Models that have been compiled so far. Most slices of a large cluster hold copies of a few models.
    """

    plan: Plan
    graphs: Mapping[str, TaskGraph]
    cluster: Cluster
    profiles: Mapping[str, ProfileTable]
    generation: int
    templates: Mapping[str, Template]
    backends: frozenset[str]
    identity: Identity
    chains: Mapping[str, tuple[Chain, ...]]
    deterministic: bool
    compiled: dict[tuple[PlacedModel, tuple[object, ...]], WorkerModel] = field(default_factory=dict)

    def template(self, name: str) -> Template:
        """Returns one of the compiler's own templates."""
        return template(self.templates, name, where="compiler")
