"""Compiles models for the workers of profiling."""

from collections.abc import Mapping
from itertools import count

from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.compiler.worker_config import Server, worker_model
from jigsaw_triton.evaluation.profiling.workers import ProfilingWorkers
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import PlacedModel


class Models:
    """Models of a graph as a deployment would serve them on a slice.

    Args:
        graph: Graph with the variants.
        templates: Templates of model repositories by name.
    """

    def __init__(self, graph: TaskGraph, templates: Mapping[str, Template]) -> None:
        self._graph, self._templates = graph, templates
        self._generations = count(1)
        self.identities = Identities()

    def compiled(
        self, workers: ProfilingWorkers, task: str, variant: str, kind: str, instances: int, batch: int
    ) -> WorkerModel:
        """Returns a model with a name that no earlier one has.

        Args:
            workers: Workers that will serve it.
            task: Name of the task.
            variant: Name of the variant.
            kind: Kind of the slice.
            instances: Triton instance count.
            batch: Largest batch.

        Raises:
            InputError: The model cannot be compiled.
        """
        board = workers.gpu.board
        server = Server(
            board,
            kind,
            workers.backends,
            gpu=board.arch != "cpu",
            shared=False,
            processes=instances if workers.mps else 1,
        )
        return worker_model(
            self._graph,
            PlacedModel(self._graph.name, task, variant, instances, batch),
            server,
            None,
            generation=next(self._generations),
            templates=self._templates,
            identity=self.identities,
        )
