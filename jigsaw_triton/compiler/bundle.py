"""Results of compiling a plan as plain values: model folders, workers and routes. Only `store` writes them to disk."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.spec.words import LOCAL_NODE


@dataclass(frozen=True, slots=True)
class Artifact:
    """A user's file that becomes part of a model folder unchanged.

    Attributes:
        source: Absolute path of the file, or the name of its copy in the state folder of a deployment.
    """

    source: Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model in a Triton repository.

    Attributes:
        name: Name of the model and its folder.
        files: Path inside the folder (`config.pbtxt`, `1/model.py`) -> content.
    """

    name: str
    files: Mapping[str, bytes | Artifact]


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """A model that a worker loads: a variant, or a chain of variants that takes one call.

    Attributes:
        folder: Model folder, named `<graph>.<task>.<variant>.g<generation>` after the generation that added it to this
            worker.
        graph: Name of the graph.
        task: Name of the task; `first~second` for a chain (`runtime.chains`).
        variant: Name of the variant; `small~large` for a chain.
        instances: Triton instance count; for a chain, the number of batches in flight at a time.
        batch: Largest batch, its `max_batch_size`.
        digest: SHA-256 of the folder's content without its name. Models with equal digests are interchangeable.
        members: Names of the worker's models that a chain calls, in order.
        tokens: Number of outputs that carry the token of the call; 0 for a native backend.
        pads: True if the model pads rows, so that items with different numbers of rows can form one batch.
        content: SHA-256 of what the answers depend on, whatever the slice, the instances and the batch size; empty if
            it is not known apart from `digest`.
    """

    folder: ModelFolder
    graph: str
    task: str
    variant: str
    instances: int
    batch: int
    digest: str
    members: tuple[str, ...] = ()
    tokens: int = 0
    pads: bool = False
    content: str = ""

    @property
    def name(self) -> str:
        """Model name on the worker."""
        return self.folder.name

    @property
    def answers(self) -> tuple[str, str, str, str]:
        """Key that is equal for models that give the same answers."""
        return self.graph, self.task, self.variant, self.content or self.digest


def in_order(models: Iterable[WorkerModel]) -> tuple[WorkerModel, ...]:
    """Sorts models in loading order: by name, with chains after their members."""
    return tuple(sorted(models, key=lambda model: (bool(model.members), model.name)))


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a MIG instance.

    Attributes:
        gpu: GPU of the instance.
        board: Name of the GPU's model.
        placement: Slice and its start on the GPU.
    """

    gpu: GpuId
    board: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Worker:
    """A tritonserver on a MIG instance, alone or beside others under MPS, or one for the Python steps of a graph.

    Attributes:
        name: Name of the worker, `<node>-<gpu index>-<slice>-<start>`. It is stable while the instance stays in place;
            see `names`.
        models: Models in loading order.
        place: Place of the MIG instance; None for a steps worker, which runs on the host's CPU.
        memory_mib: Memory of the slice, or the worker's part of it; None if unknown.
        process: Number of the worker among those that share the instance, from 1; 0 if it is alone there.
        standby: Models that are loaded after the others and stay idle until they replace them on the routes.
        remote: True if the worker runs on another machine than the gateway.
    """

    name: str
    models: tuple[WorkerModel, ...]
    place: Place | None = None
    memory_mib: int | None = None
    process: int = 0
    standby: tuple[WorkerModel, ...] = ()
    remote: bool = False

    @property
    def node(self) -> str:
        """Node on which the worker runs."""
        return self.place.gpu.node if self.place is not None else LOCAL_NODE

    def shares_with(self, other: "Worker") -> bool:
        """Returns True if both workers share one MIG instance as processes under MPS."""
        return bool(self.process and other.process) and self.place is not None and self.place == other.place


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A model on a worker to which a front may send batches.

    Attributes:
        worker: Name of the worker, whose socket is `workers/<worker>.sock` in the run directory.
        model: Name of the model on the worker.
        batch: Largest number of items in one batch.
        slots: Largest number of batches that the model runs at a time. The slot file is `slots/<worker>/<model>` in the
            run directory.
        variant: Variant of the task.
        share: Share of the task's items for all entries of this variant together; 0 if any share will do.
        tokens: Number of outputs that carry the token of the call; 0 for a native backend.
        pads: True if the model pads rows, so that items with different numbers of rows can form one batch.
        service_ms: Batch size -> usual milliseconds of a batch, from the profile.
        deadline_ms: Batch size -> milliseconds after which a call counts as hanging.
        slo_ms: Latency SLO for which the plan has the entry; 0 if it is not known. A front promises the longest of its
            own and those on its routes: during a change, the workers of the next plan may be too slow for a shorter
            one.
        generations: Generations whose requests it may answer; empty for all. While a graph changes from one generation
            to the next, all calls of a request go to entries of one generation.
        weights: Share of the requests that are bound to each of these generations on arrival, in a canary, or in a
            change in which the first free worker must not decide; empty if it does.
        closed: True if it gets only requests that no open entry may answer: those that have already used a generation
            that is about to end.
        remote: True if the worker runs on another host than the gateway, behind a proxy that listens at its socket.
            Large tensors then do not use shared memory.
        node: Name of the node that the worker runs on. A call that failed there is preferably repeated on another one.
    """

    worker: str
    model: str
    batch: int
    slots: int
    variant: str = ""
    share: float = 0.0
    tokens: int = 0
    pads: bool = False
    service_ms: Mapping[str, float] = field(default_factory=dict, hash=False)
    deadline_ms: Mapping[str, float] = field(default_factory=dict, hash=False)
    slo_ms: float = 0.0
    generations: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    closed: bool = False
    remote: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True)
class TaskFront:
    """The gateway's side of a task, a chain of tasks or a Python step.

    Attributes:
        name: Name of the route and of the model if there is one, `<graph>.<task>.g<generation>`. The route's file is
            `routes/<name>.json` in the run directory.
        task: Name of the task; `first~second` for a chain.
        route: Workers' models that execute the task, in order of preference.
        folder: One-task front; None if the graph's front executes the task.
        standby: Standby models of these workers. They may take the places of their workers' models on the route.
    """

    name: str
    task: str
    route: tuple[RouteEntry, ...]
    folder: ModelFolder | None = None
    standby: tuple[RouteEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """A graph as the gateway serves it.

    Attributes:
        front: Model with the graph's name, the only one that clients see: a front of the whole graph, or an ensemble.
        pipeline: Model `<graph>.pipeline.g<generation>` behind the front: a BLS pipeline, or an ensemble if one is
            needed (`ensemble.needs_whole`). None if the front calls the tasks itself.
        tasks: Tasks and Python steps in topological order. A chain that workers execute in one call is one task.
        target: Target of the graph, with `auto` resolved.
        apart: Form of the graph without chains, in which each task is called separately. It serves during a transition
            that removes workers with chains. None if the graph has no chains.
    """

    front: ModelFolder
    pipeline: ModelFolder | None
    tasks: tuple[TaskFront, ...]
    target: str
    apart: "CompiledGraph | None" = None

    @property
    def forms(self) -> "tuple[CompiledGraph, ...]":
        """Forms of the graph: this one, and the one without chains if there is one."""
        return (self,) if self.apart is None else (self, self.apart)

    @property
    def every_task(self) -> Mapping[str, TaskFront]:
        """Tasks of all forms, by the name of the route."""
        return {task.name: task for form in self.forms for task in form.tasks}

    @property
    def models(self) -> tuple[ModelFolder, ...]:
        """Models behind the front of this form, in loading order."""
        behind = (self.pipeline,) if self.pipeline is not None else ()
        return (*(task.folder for task in self.tasks if task.folder is not None), *behind)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything compiled from one plan.

    Attributes:
        generation: Number of the generation.
        workers: Workers, sorted by name.
        graphs: Compiled graphs, sorted by name.
    """

    generation: int
    workers: Mapping[str, Worker]
    graphs: Mapping[str, CompiledGraph]
