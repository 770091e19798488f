"""Results of compiling a plan, as values: model folders, workers, routes. Only `store` writes them to a disk."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jigsaw_triton.gpus.model import GpuId, Placement


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file copied as it is from where the user keeps it.

    Attributes:
        source: Absolute path.
    """

    source: Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model of a Triton repository.

    Attributes:
        name: Folder and model name.
        files: Path inside the folder (`config.pbtxt`, `1/model.py`) -> content.
    """

    name: str
    files: Mapping[str, bytes | Artifact]


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """A variant as a worker loads it, or a chain of them that is called at once.

    Attributes:
        folder: Named `<graph>.<task>.<variant>.g<generation>`, the generation that brought it to this worker.
        graph: Name of the graph.
        task: Name of the task; of a chain `first~second` (`runtime.chains`).
        variant: Name of the variant; of a chain `small~large`.
        instances: Triton instance count; of a chain batches under way at a time.
        batch: Largest batch (its max_batch_size).
        digest: SHA-256 of the folder's content without its name: models of equal digests are interchangeable.
        members: Names of the worker's models that a chain calls, in order.
        tokens: Outputs that carry the token of the call; 0 for a native backend.
        pads: True if it fills up rows, so that items with different numbers of rows make one batch.
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

    @property
    def name(self) -> str:
        """Model name on the worker."""
        return self.folder.name


def in_order(models: Iterable[WorkerModel]) -> tuple[WorkerModel, ...]:
    """Models in the order of loading: by name, each chain after its members."""
    return tuple(sorted(models, key=lambda model: (bool(model.members), model.name)))


@dataclass(frozen=True, slots=True)
class Place:
    """A MIG instance.

    Attributes:
        gpu: GPU that it is cut from.
        board: Name of the GPU's model.
        placement: Slice and start on the GPU.
    """

    gpu: GpuId
    board: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Worker:
    """The tritonserver of one MIG instance, one of those that share it under MPS, or that of a graph's python steps.

    Attributes:
        name: `<node>-<gpu index>-<slice>-<start>`, the same as long as the instance stays where it is; see `names`.
        models: Models in the order of loading.
        place: MIG instance under it; None for a steps worker, which runs on the host's processors.
        memory_mib: Memory of the slice, or its part of it; None where unknown.
        process: Number among the servers that share the instance, from 1; 0 where it has it to itself.
    """

    name: str
    models: tuple[WorkerModel, ...]
    place: Place | None = None
    memory_mib: int | None = None
    process: int = 0

    def shares_with(self, other: "Worker") -> bool:
        """True if both run on one MIG instance, as processes under MPS."""
        return bool(self.process and other.process) and self.place is not None and self.place == other.place


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A model on a worker that a front may send batches to.

    Attributes:
        worker: Name of the worker; its socket is `workers/<worker>.sock` in the run directory.
        model: Model name on the worker.
        batch: Most items in one batch.
        slots: Batches under way at a time; the slot file is `slots/<worker>/<model>` in the run directory.
        variant: Variant of the task.
        share: Part of the task's items that the variant is to take, all its entries together; 0 where that does not
            matter.
        tokens: Outputs of the model that carry the token of the call; 0 for a native backend.
        pads: True if the model fills up rows, so that items with different numbers of rows make one batch.
        service_ms: Batch size -> usual milliseconds of a batch, by the profile.
        deadline_ms: Batch size -> milliseconds after which a call counts as hanging.
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


@dataclass(frozen=True, slots=True)
class TaskFront:
    """A task, a chain of tasks or a python step as the gateway has workers do it.

    Attributes:
        name: `<graph>.<task>.g<generation>`: name of its route (`routes/<name>.json` in the run directory), and of its
            model where it has one.
        task: Name of the task; of a chain `first~second`.
        route: Workers that do it, in the order of preference.
        folder: Its model, a front of one task; None where the graph's front executes it.
    """

    name: str
    task: str
    route: tuple[RouteEntry, ...]
    folder: ModelFolder | None = None


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """A graph as the gateway serves it.

    Attributes:
        front: Model of the graph's own name, the only one that clients see: a front of the whole graph, or an ensemble.
        pipeline: Model `<graph>.pipeline.g<generation>` behind the front: BLS, or an ensemble where one needs it
            (`ensemble.needs_whole`); None where the front is the pipeline.
        tasks: Tasks and python steps in topological order, a chain that workers do in one call as one task.
        target: Target that `auto` became.
        apart: Form of the graph with each task on its own; None where no workers do a chain in one call. It serves on
            the way to a plan whose workers do not either.
    """

    front: ModelFolder
    pipeline: ModelFolder | None
    tasks: tuple[TaskFront, ...]
    target: str
    apart: "CompiledGraph | None" = None

    @property
    def forms(self) -> "tuple[CompiledGraph, ...]":
        """This one, and where there is one the one with each task on its own."""
        return (self,) if self.apart is None else (self, self.apart)

    @property
    def every_task(self) -> Mapping[str, TaskFront]:
        """Tasks of all forms, by the names of their routes."""
        return {task.name: task for form in self.forms for task in form.tasks}

    @property
    def models(self) -> tuple[ModelFolder, ...]:
        """Models that stand behind the front of this form, in the order of loading."""
        behind = (self.pipeline,) if self.pipeline is not None else ()
        return (*(task.folder for task in self.tasks if task.folder is not None), *behind)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything compiled from one plan.

    Attributes:
        generation: The plan's number.
        workers: Workers by name, sorted.
        graphs: Graphs by name, sorted.
    """

    generation: int
    workers: Mapping[str, Worker]
    graphs: Mapping[str, CompiledGraph]
