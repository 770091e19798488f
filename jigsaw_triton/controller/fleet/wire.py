"""Messages between a controller and an agent, as JSON.

Files of models travel apart, by the digest of their content.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from jigsaw_triton.compiler.bundle import Artifact, ModelFolder, Place, Worker, WorkerModel
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.gateway import ServerImage
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement

Json = Mapping[str, Any]

WIRE_VERSION = 1
"""Version of these messages. Raise it when one changes so that the other side could misread it. Releases with the same
version work together, so that machines can be upgraded one after the other."""

DEPLOYMENT_HEADER = "jigsaw-deployment"
"""HTTP header with the identity of the deployment."""

Digest = Callable[[Path], str]
"""Function that returns the SHA-256 of a file."""


@dataclass(frozen=True, slots=True)
class Condemned:
    """The standby gateway has taken a worker of another node out of service.

    Attributes:
        worker: Name of the worker.
        cause: Reason to kill it, as the end of a sentence that begins with `killed, because`.
        incarnation: Process of the worker that is meant.
    """

    worker: str
    cause: str
    incarnation: str


NodeEvent = e.Event | Condemned

_EVENTS: Mapping[str, type[e.WorkerExited | e.Stalled | e.Loading | e.Answered | e.Noticed | Condemned]] = {
    kind.__name__: kind for kind in (e.WorkerExited, e.Stalled, e.Loading, e.Answered, e.Noticed, Condemned)
}
"""Events that concern a worker, by name."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A worker as it travels, and the files of its models.

    Attributes:
        json: The worker, with a digest in place of each file's content.
        contents: Digest -> content of the file.
    """

    json: Json
    contents: Mapping[str, bytes | Path] = field(default_factory=dict)


def sealed(worker: Worker, digest: Digest) -> Sealed:
    """Returns a worker as it travels. Blocks while it reads files.

    Args:
        worker: The worker.
        digest: Function that returns the SHA-256 of a file.
    """
    contents: dict[str, bytes | Path] = {}
    data = {
        "name": worker.name,
        "models": [_model_json(model, digest, contents) for model in worker.models],
        "place": _place_json(worker.place) if worker.place is not None else None,
        "memory_mib": worker.memory_mib,
        "process": worker.process,
    }
    return Sealed(data, contents)


def sealed_models(models: tuple[WorkerModel, ...], digest: Digest) -> Sealed:
    """Returns models as they travel: the `json` has them under `models`. Arguments as for `sealed`."""
    contents: dict[str, bytes | Path] = {}
    return Sealed({"models": [_model_json(model, digest, contents) for model in models]}, contents)


def opened(data: Json, content: Callable[[str], Path]) -> Worker:
    """Returns the worker of `sealed`.

    Args:
        data: JSON of the worker.
        content: Function that returns the file with the content of a digest.
    """
    place = data["place"]
    return Worker(
        name=data["name"],
        models=opened_models(data, content),
        place=_place(place) if place is not None else None,
        memory_mib=data["memory_mib"],
        process=data["process"],
    )


def opened_models(data: Json, content: Callable[[str], Path]) -> tuple[WorkerModel, ...]:
    """Returns the models of `sealed` or `sealed_models`. Arguments as for `opened`."""
    return tuple(_model(entry, content) for entry in data["models"])


def digests(data: Json) -> Iterator[str]:
    """Yields the digests of all files of the models in a message."""
    for model in data["models"]:
        yield from model["files"].values()


def cluster_json(cluster: Cluster) -> Json:
    """Returns what a node needs to know of the cluster with its GPUs."""
    return {
        "driver": cluster.driver,
        "processes": cluster.processes,
        "image": asdict(cluster.image) if cluster.image is not None else None,
        "gpus": [_gpu_json(gpu) for gpu in cluster.gpus],
    }


def read_cluster(data: Json) -> Cluster:
    """Returns the cluster of `cluster_json`."""
    image = data["image"]
    return Cluster(
        tuple(map(read_gpu, data["gpus"])),
        driver=data["driver"],
        processes=data["processes"],
        image=ServerImage(**image) if image is not None else None,
    )


def _gpu_json(gpu: Gpu) -> Json:
    foreign = [asdict(placement) for placement in gpu.foreign]
    return {"node": gpu.id.node, "index": gpu.id.index, "board": gpu.board.name, "foreign": foreign, "uncut": gpu.uncut}


def read_gpu(data: Json) -> Gpu:
    """Returns a GPU of `cluster_json`.

    Raises:
        InputError: This release does not know the board.
    """
    board = CATALOG.get(data["board"])
    if board is None:
        raise InputError(f"this node knows no GPU model {data['board']}", where="catalog of GPUs")
    foreign = tuple(Placement(**placement) for placement in data["foreign"])
    return Gpu(GpuId(data["node"], data["index"]), board, foreign, data["uncut"])


def event_json(event: NodeEvent) -> Json:
    """Returns an event that concerns a worker."""
    return {"event": type(event).__name__, **{f.name: getattr(event, f.name) for f in fields(event)}}


def read_event(data: Json) -> NodeEvent:
    """Returns the event of `event_json`."""
    values = dict(data)
    return _EVENTS[values.pop("event")](**values)


def sealed_folder(folder: ModelFolder, digest: Digest, contents: dict[str, bytes | Path]) -> Json:
    """Returns a model folder as it travels, with a digest in place of each file's content. Blocks while it reads files.

    Args:
        folder: The model folder.
        digest: Function that returns the SHA-256 of a file.
        contents: Digest -> content of each file; it is extended.
    """
    found: dict[str, str] = {}
    for name, content in folder.files.items():
        if isinstance(content, Artifact):
            found[name] = digest(content.source)
            contents[found[name]] = content.source
        else:
            found[name] = hashlib.sha256(content).hexdigest()
            contents[found[name]] = content
    return {"name": folder.name, "files": found}


def opened_folder(data: Json, content: Callable[[str], Path]) -> ModelFolder:
    """Returns the model folder of `sealed_folder`. Arguments as for `opened`."""
    return ModelFolder(data["name"], {name: Artifact(content(digest)) for name, digest in data["files"].items()})


def _model_json(model: WorkerModel, digest: Digest, contents: dict[str, bytes | Path]) -> Json:
    plain = {f.name: getattr(model, f.name) for f in fields(model) if f.name != "folder"}
    return {**plain, "members": list(model.members), **sealed_folder(model.folder, digest, contents)}


def _model(data: Json, content: Callable[[str], Path]) -> WorkerModel:
    values = dict(data)
    folder = opened_folder({"name": values.pop("name"), "files": values.pop("files")}, content)
    values["members"] = tuple(values["members"])
    return WorkerModel(folder=folder, **values)


def _place_json(place: Place) -> Json:
    gpu, placement = place.gpu, place.placement
    return {"node": gpu.node, "index": gpu.index, "board": place.board, **asdict(placement)}


def _place(data: Json) -> Place:
    return Place(GpuId(data["node"], data["index"]), data["board"], Placement(data["start"], data["slice"]))
