"""The controller's record of running servers and models. Only actions that the shell reports as done change it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from jigsaw_triton.compiler.bundle import ModelFolder, RouteEntry, Worker, in_order
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.spec.words import LOCAL_NODE


@dataclass(frozen=True, slots=True)
class Actual:
    """Servers, models and routes that exist now.

    Attributes:
        gateway: True if the gateway's tritonserver is running.
        workers: Name -> the worker with its loaded models.
        models: One-task fronts and pipelines loaded at the gateway, by name.
        fronts: Graph -> its loaded front.
        routes: Name of a route -> its entries on disk.
    """

    gateway: bool = False
    workers: Mapping[str, Worker] = field(default_factory=dict)
    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    fronts: Mapping[str, ModelFolder] = field(default_factory=dict)
    routes: Mapping[str, tuple[RouteEntry, ...]] = field(default_factory=dict)

    def after(self, action: a.Action) -> "Actual":
        """Returns the record after `action` has been carried out."""
        match action:
            case a.StartGateway():
                return replace(self, gateway=True)
            case a.BringUp(worker):
                return replace(self, workers={**self.workers, worker.name: worker})
            case a.LoadModels(name, models):
                worker = self.workers[name]
                loaded = {model.name: model for model in (*worker.models, *models)}
                return self._with_worker(replace(worker, models=in_order(loaded.values())))
            case a.UnloadModels(name, gone):
                if name not in self.workers:
                    return self
                worker = self.workers[name]
                return self._with_worker(replace(worker, models=tuple(m for m in worker.models if m.name not in gone)))
            case a.Retire(worker):
                return replace(self, workers={n: w for n, w in self.workers.items() if n != worker.name})
            case a.LoadGateway(folders, routes):
                loaded_models = {**self.models, **{f.name: f for f in folders}}
                return replace(self, models=loaded_models, routes={**self.routes, **routes})
            case a.SetRoutes(routes):
                return replace(self, routes={**self.routes, **routes})
            case a.Flip(graph, front):
                return replace(self, fronts={**self.fronts, graph: front})
            case a.UnloadGateway(names):
                return replace(
                    self,
                    models={n: f for n, f in self.models.items() if n not in names},
                    fronts={n: f for n, f in self.fronts.items() if n not in names},
                    routes={n: r for n, r in self.routes.items() if n not in names},
                )
            case a.StopGateway():
                return Actual(workers=self.workers)
            case _:
                return self

    def without_gpus(self, gpus: Collection[GpuId]) -> "Actual":
        """Returns the record without the workers on some GPUs. Routes may still lead to them."""
        kept = {n: w for n, w in self.workers.items() if w.place is None or w.place.gpu not in gpus}
        return replace(self, workers=kept)

    def node_of(self, action: a.Action) -> str:
        """Returns the node that carries out an action: that of its worker, and the controller's own for all others."""
        match action:
            case a.BringUp(worker) | a.Retire(worker) | a.RestartWorker(worker):
                return worker.node
            case a.LoadModels(worker=name) | a.UnloadModels(worker=name) | a.Drain(worker=name):
                return self.workers[name].node if name in self.workers else LOCAL_NODE
            case _:
                return LOCAL_NODE

    def _with_worker(self, worker: Worker) -> "Actual":
        return replace(self, workers={**self.workers, worker.name: worker})
