"""A variant as a worker loads it: its configuration, its files, and the digest that tells whether it may stay."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import front, names
from jigsaw_triton.compiler.bundle import Artifact, ModelFolder, WorkerModel
from jigsaw_triton.compiler.templates import CONFIG_FILE, MODEL_FILE, NATIVE_CONFIG_FILE, Template, template
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import Task, TaskGraph, TensorType, Variant
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.runtime.spec import ROWS_PREFIX, TOKEN_OUTPUT, RunnerSpec, TensorSpec

PYTHON = "python"
"""The backend that runs our own code."""

PYTORCH = "pytorch"
"""The backend that knows tensors by number."""

VARIANT_FILE = "variant.py"
"""File name of a variant's model.py where the template's stands in that place."""

EMULATED = "emulated"
"""The template that only takes the time a profile says."""

SLICE_RESOURCE = "slice"
"""Resource of Triton's rate limiter that models in a shared slice need, so that one execution runs at a time."""

JOIN_DELAY_US = 500
"""How long a worker waits for the rest of a batch that comes as one request an item: without, the first goes alone."""

Identity = Callable[[Path], str]
"""Tells a file's content by a string: equal strings, equal bytes."""


@dataclass(frozen=True, slots=True)
class Server:
    """The tritonserver of a slice, as far as the compiler has to know it.

    Attributes:
        board: Board of its GPU.
        slice: Kind of MIG instance.
        backends: Backends that it has.
        gpu: True if the slice is a real one, not an emulated one or the processor's.
        shared: True if it holds several models.
        processes: Number of servers that share the slice, each with as many instances of a model.
    """

    board: Board
    slice: str
    backends: frozenset[str]
    gpu: bool
    shared: bool
    processes: int = 1


def worker_model(
    graph: TaskGraph,
    placed: PlacedModel,
    server: Server,
    profile: ProfileTable | None,
    *,
    generation: int,
    templates: Mapping[str, Template],
    identity: Identity,
    one_by_one: bool = False,
) -> WorkerModel:
    """Compiles one replica, or what one of the processes has of it that it is spread over.

    Args:
        graph: Graph that has the task and the variant.
        placed: Replica to compile.
        server: Server that loads it.
        profile: Profile of the graph, for template `emulated`.
        generation: Number in its name.
        templates: Templates by name.
        identity: Identity of the content of artifacts.
        one_by_one: True if its batches come as one request an item though its own shapes do not call for it.

    Raises:
        InputError: The variant's template, artifacts, backend or profile is not there.
    """
    task = graph.tasks[placed.task]
    variant = task.variant(placed.variant)
    where = f"{graph.name}.{task.name}.{variant.name}"
    base = template(templates, variant.template, where=where)
    config = base_config(base, task, server.backends, where)
    python = config.backend == PYTHON
    config.name = names.worker_model(graph.name, task.name, variant.name, generation)
    inputs = {name: graph.input_type(task, name) for name in task.inputs}
    # Our runners give each call's token back, so that an answer is known to be its own.
    tokens = {TOKEN_OUTPUT: TensorType("INT64", (1,))} if python else {}
    # They fill up rows, so that items with different numbers of rows make one batch.
    pads = front.yields(graph, task) if python and not one_by_one and front.mode(graph, task) != "items" else ()
    tokens |= {f"{ROWS_PREFIX}{name}": TensorType("INT64", (1,)) for name in pads}
    if TOKEN_OUTPUT in task.outputs:
        raise InputError(f"no output may be named {TOKEN_OUTPUT}", where=where, hint="rename it")
    cfg.set_tensors(config, inputs, {**task.outputs, **tokens}, ragged=python)
    instances = placed.instances // server.processes
    cfg.set_instances(config, instances, gpu=server.gpu and base.name != EMULATED)
    items = one_by_one or (front.one_by_one(graph, task) and not pads)
    _set_scheduling(config, placed.batch, items=items, shared=server.shared)
    if python:
        spec = replace(_runner_spec(base, task, variant, inputs, server, placed), pads=pads)
        if base.name == EMULATED:
            spec = replace(spec, latency_ms=_latency_ms(placed, server, profile, where), yields=dict(variant.yields))
        cfg.set_spec(config, spec)
    else:
        for key, value in variant.parameters.items():
            config.parameters[key].string_value = value
    files = _files(base if python else None, variant, config, where)
    return WorkerModel(
        folder=ModelFolder(config.name, {CONFIG_FILE: cfg.render(config), **files}),
        graph=graph.name,
        task=task.name,
        variant=variant.name,
        instances=instances,
        batch=placed.batch,
        digest=digest(config, files, identity),
        tokens=int(python),
        pads=bool(pads),
    )


def _set_scheduling(config: ModelConfig, batch: int, *, items: bool, shared: bool) -> None:
    """Batches, and turns where several models share the slice.

    A front sends whole batches, for which Triton's own batcher would only be one more thread on the way. Where it sends
    their items side by side, that batcher joins them.

    Args:
        config: Changed, its instances set.
        batch: Largest.
        items: True if a batch comes as one request an item.
        shared: True if there are other models.
    """
    config.max_batch_size = batch
    if not items:
        config.ClearField("dynamic_batching")
    else:
        batching = config.dynamic_batching
        batching.SetInParent()
        if batch > 1 and not batching.max_queue_delay_microseconds:
            batching.max_queue_delay_microseconds = JOIN_DELAY_US
    if shared:
        config.instance_group[0].rate_limiter.resources.add(name=SLICE_RESOURCE, count=1, **{"global": True})


def base_config(base: Template, task: Task, backends: frozenset[str], where: str) -> ModelConfig:
    """Returns a template's native base if the server has the backend for it, else its other base.

    Raises:
        InputError: The server has the backend of neither.
    """
    if base.native_config_text is not None:
        native = cfg.parse(base.native_config_text, where=f"{base.name}/{NATIVE_CONFIG_FILE}")
        if native.backend in backends and (native.backend != PYTORCH or _numbered(task)):
            return native
    config = cfg.parse(base.config_text, where=f"{base.name}/{CONFIG_FILE}")
    if config.backend not in backends:
        raise InputError(
            f"template {base.name!r} needs the backend {config.backend!r}, which the tritonserver does not have",
            where=where,
            hint=f"it has {', '.join(sorted(backends)) or 'none'}; use a tritonserver with that backend",
        )
    return config


def _numbered(task: Task) -> bool:
    """True if the names of the tensors end with `__0`, `__1`, ... by which the pytorch backend tells them apart."""
    sides = (task.inputs, task.outputs)
    return all(name.endswith(f"__{index}") for side in sides for index, name in enumerate(side))


def _runner_spec(
    base: Template,
    task: Task,
    variant: Variant,
    inputs: cfg.Tensors,
    server: Server,
    placed: PlacedModel,
) -> RunnerSpec:
    return RunnerSpec(
        runner=base.name,
        inputs=tuple(TensorSpec(name, t.dtype, t.shape) for name, t in inputs.items()),
        outputs=tuple(TensorSpec(name, t.dtype, t.shape) for name, t in task.outputs.items()),
        stack=not any(cfg.varies(t) for t in (*inputs.values(), *task.outputs.values())),
        threads=_threads(server, placed.instances),
        parameters=dict(variant.parameters),
    )


def _threads(server: Server, instances: int) -> int:
    """Threads of one instance: its share of the slice's where the processor is the board; on a GPU one feeds it."""
    if server.board.arch != "cpu":
        return 1
    return max(1, server.board.profiles[server.slice].compute_slices // instances)


def _latency_ms(placed: PlacedModel, server: Server, profile: ProfileTable | None, where: str) -> dict[str, float]:
    """Batch size, up to the planned one -> median milliseconds with the planned instances on this slice."""
    rows = profile.rows(task=placed.task, variant=placed.variant, gpu=server.board.name) if profile is not None else ()
    latency = {
        str(row.key.batch): row.latency_p50_ms
        for row in rows
        if (row.key.slice, row.key.instances) == (server.slice, placed.instances) and row.key.batch <= placed.batch
    }
    if str(placed.batch) not in latency:
        raise InputError(
            f"there is no profile of {placed.instances} instances at batch {placed.batch} on a {server.slice} slice"
            f" of {server.board.name}, so the time to emulate is not known",
            where=where,
            hint="plan again with the profiles at hand, or bring those that the plan was made with",
        )
    return latency


def _files(base: Template | None, variant: Variant, config: ModelConfig, where: str) -> dict[str, bytes | Artifact]:
    """The version folder: the template's code and the variant's artifacts."""
    code = base.model_py if base is not None else None
    files: dict[str, bytes | Artifact] = {} if code is None else {f"{cfg.VERSION}/{MODEL_FILE}": code}
    for name, source in sorted(variant.artifacts.items()):
        path = PurePosixPath(cfg.VERSION, VARIANT_FILE if name == MODEL_FILE and code is not None else name)
        if PurePosixPath(name).is_absolute() or ".." in path.parts or str(path) in files:
            raise InputError(
                f"an artifact cannot be stored as {name!r}",
                where=where,
                hint="name it by a file name that no other has",
            )
        files[str(path)] = Artifact(source)
    wanted = config.default_model_filename
    if wanted and f"{cfg.VERSION}/{wanted}" not in files:
        raise InputError(
            f"template {variant.template!r} needs a file {wanted!r}, which the variant does not have",
            where=where,
            hint=f"add it to the variant: `artifacts: {{{wanted}: <path>}}`",
        )
    return files


def digest(config: ModelConfig, files: Mapping[str, bytes | Artifact], identity: Identity) -> str:
    """SHA-256 of everything but the name; of an artifact, where it is and what is in it."""
    nameless = ModelConfig()
    nameless.CopyFrom(config)
    nameless.name = ""
    told = hashlib.sha256()
    parts: list[bytes] = [cfg.render(nameless)]
    for path, content in sorted(files.items()):
        parts.append(path.encode())
        if isinstance(content, Artifact):
            parts += [b"artifact", str(content.source).encode(), identity(content.source).encode()]
        else:
            parts += [b"bytes", content]
    for part in parts:
        told.update(len(part).to_bytes(8))
        told.update(part)
    return told.hexdigest()
