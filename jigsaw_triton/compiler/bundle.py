"""What a plan compiles to, as values: model folders, workers, routes. Nothing here touches a disk; `store` does."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
        graph: Whose task it does.
        task: Which it does; of a chain `first~second` (`runtime.chains`).
        variant: What does it; of a chain likewise.
        instances: Triton instance count; of a chain batches under way at a time.
        batch: Largest batch (its max_batch_size).
        digest: Of everything that makes the folder except its name: equal digests are interchangeable.
        members: Names of the worker's models that a chain calls, in order.
    """

    folder: ModelFolder
    graph: str
    task: str
    variant: str
    instances: int
    batch: int
    digest: str
    members: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Model name on the worker."""
        return self.folder.name


def in_order(models: Iterable[WorkerModel]) -> tuple[WorkerModel, ...]:
    """In the order of loading: by name, each chain after what it calls."""
    return tuple(sorted(models, key=lambda model: (bool(model.members), model.name)))


@dataclass(frozen=True, slots=True)
class Worker:
    """The tritonserver of one MIG instance, or one of those that share it under MPS.

    Attributes:
        name: `<node>-<gpu index>-<slice>-<start>`, the same as long as the instance stays where it is; see `names`.
        gpu: Where.
        board: Name of the GPU's model.
        placement: On the GPU.
        memory_mib: Of the slice, or its part of it; None where unknown.
        models: In the order of loading.
        process: Which of those that share the instance, from 1; 0 where it has it to itself.
    """

    name: str
    gpu: GpuId
    board: str
    placement: Placement
    memory_mib: int | None
    models: tuple[WorkerModel, ...]
    process: int = 0

    def shares_with(self, other: "Worker") -> bool:
        """Whether both run on one MIG instance, as processes under MPS."""
        place = (self.gpu, self.placement)
        return bool(self.process and other.process) and place == (other.gpu, other.placement)


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A model on a worker that a dispatcher may send batches to.

    Attributes:
        worker: Name; its socket is `workers/<worker>.sock` in the run directory.
        model: Model name on the worker.
        batch: Most items in one batch.
        slots: Batches it takes at a time; slot files are `slots/<worker>/<model>` in the run directory.
        variant: Of the task.
        share: Of the task's items that the variant is to take, all its entries together; 0 where that does not matter.
    """

    worker: str
    model: str
    batch: int
    slots: int
    variant: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """The model at the gateway that does a task by sending it to workers.

    Attributes:
        folder: Named `<graph>.<task>.g<generation>`; its route is `routes/<name>.json` in the run directory.
        task: Which it does; of a chain `first~second`.
        route: In the order of preference.
    """

    folder: ModelFolder
    task: str
    route: tuple[RouteEntry, ...]

    @property
    def name(self) -> str:
        """Model name at the gateway."""
        return self.folder.name


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """A graph as the gateway serves it.

    Attributes:
        front: An ensemble of the graph's own name, the only model that clients see.
        pipeline: The model `<graph>.pipeline.g<generation>` behind the front: BLS, or an ensemble where one needs it
            (`ensemble.needs_whole`); None where the front is the pipeline.
        dispatchers: One a task, or a chain that workers do in one call, in topological order.
        target: What `auto` became.
        apart: The same with each task on its own; None where no workers do a chain in one call. On the way to a plan
            whose workers do not either, this form serves.
    """

    front: ModelFolder
    pipeline: ModelFolder | None
    dispatchers: tuple[Dispatcher, ...]
    target: str
    apart: "CompiledGraph | None" = None

    @property
    def forms(self) -> "tuple[CompiledGraph, ...]":
        """This one, and where there is one the one with each task on its own."""
        return (self,) if self.apart is None else (self, self.apart)

    @property
    def every_dispatcher(self) -> Mapping[str, Dispatcher]:
        """Of all forms, by name."""
        return {dispatcher.name: dispatcher for form in self.forms for dispatcher in form.dispatchers}

    @property
    def models(self) -> tuple[ModelFolder, ...]:
        """What stands behind the front, of this form, in the order of loading."""
        behind = (self.pipeline,) if self.pipeline is not None else ()
        return (*(dispatcher.folder for dispatcher in self.dispatchers), *behind)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything compiled from one plan.

    Attributes:
        generation: The plan's number.
        workers: By name, sorted.
        graphs: By name, sorted.
    """

    generation: int
    workers: Mapping[str, Worker]
    graphs: Mapping[str, CompiledGraph]
