"""Compiles a variant to a worker's model: configuration, files, and a digest by which unchanged models are kept."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import front, names
from jigsaw_triton.compiler.bundle import Artifact, ModelFolder, WorkerModel
from jigsaw_triton.compiler.model_config import ModelConfig
from jigsaw_triton.compiler.templates import CONFIG_FILE, MODEL_FILE, NATIVE_CONFIG_FILE, Template, template
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import Task, TaskGraph, Variant
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.profiles.service import service_time
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.runtime.spec import (
    COMPILED_BACKEND,
    ROWS_PREFIX,
    TOKEN_OUTPUT,
    EmulationSpec,
    RunnerSpec,
    TensorSpec,
    to_json,
)

PYTHON = "python"
"""Name of the backend that runs our own Python code."""

PYTORCH = "pytorch"
"""Name of the backend that identifies tensors by number."""

VARIANT_FILE = "variant.py"
"""File name of a variant's model.py if the template has a model.py of its own."""

EMULATED = "emulated"
"""Name of the template whose models only wait, for times as in the profile."""

FOLDER = "folder"
"""Name of the template whose variants have a config.pbtxt of their own."""

SLICE_RESOURCE = "slice"
"""Resource of Triton's rate limiter that serialises the executions of models in a shared slice."""

JOIN_DELAY_US = 500
"""Microseconds that a worker waits for the other items of a batch that arrives as one request for each item. Without
this delay, the first item would be executed alone."""

Identity = Callable[[Path], str]
"""Function that maps a file's path to a string that identifies its content."""


@dataclass(frozen=True, slots=True)
class Server:
    """Properties of a slice's tritonserver that the compiler needs.

    Attributes:
        board: Board of the GPU.
        slice: Slice, the kind of MIG instance.
        backends: Backends of the server.
        gpu: True if the slice is part of a real GPU, not emulated or on the CPU.
        shared: True if the slice holds several models.
        processes: Number of servers that share the slice and divide the instances of a model equally.
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
    deterministic: bool = False,
) -> WorkerModel:
    """Compiles one replica, or the part of it that one of several processes loads.

    Args:
        graph: Graph with the task and the variant.
        placed: Replica to compile.
        server: Server that loads the model.
        profile: Profile of the graph, for template `emulated`.
        generation: Number in the model's name.
        templates: Templates, by name.
        identity: Function that identifies the content of artifacts.
        one_by_one: True if batches arrive as one request for each item although the model's own shapes do not require
            it.
        deterministic: True if emulated variants do not draw their times and rows.

    Raises:
        InputError: The variant's template, artifacts, backend or profile is missing.
    """
    task = graph.tasks[placed.task]
    variant = task.variant(placed.variant)
    where = f"{graph.name}.{task.name}.{variant.name}"
    base = template(templates, variant.template, where=where)
    own = base.name == FOLDER
    base = replace(base, config_text=variant.config) if own else base
    config = base_config(base, task, server.backends, where)
    python = config.backend == PYTHON and not own
    ours = python or (config.backend == COMPILED_BACKEND and not own)
    config.name = names.worker_model(graph.name, task.name, variant.name, generation)
    inputs = {name: graph.input_type(task, name) for name in task.inputs}
    # Runners in processes of their own return each call's token, so that the front can check that an answer belongs to
    # its call.
    tokens = {TOKEN_OUTPUT: TensorType("INT64", (1,))} if python else {}
    # All of our runners pad rows, so that items with different numbers of rows can form one batch.
    pads = front.yields(graph, task) if ours and not one_by_one and front.mode(graph, task) != "items" else ()
    tokens |= {f"{ROWS_PREFIX}{name}": TensorType("INT64", (1,)) for name in pads}
    if TOKEN_OUTPUT in task.outputs:
        raise InputError(f"no output may be named {TOKEN_OUTPUT}", where=where, hint="rename the output")
    if not (own and config.input and config.output):
        cfg.set_tensors(config, inputs, {**task.outputs, **tokens}, ragged=ours)
        cfg.set_scalars(config, task.scalar_inputs, task.scalar_outputs)
    spec = None
    if ours:
        spec = replace(runner_spec(graph, task, variant, threads=_threads(server, placed.instances)), pads=pads)
        if base.name == EMULATED:
            emulation = _emulation(placed, server, profile, where)
            spec = replace(spec, emulation=replace(emulation, yields=dict(variant.yields), deterministic=deterministic))
    else:
        for key, value in variant.parameters.items():
            config.parameters[key].string_value = value
    files = _files(base if ours else None, variant, config, where)
    content = _content(config, base.name, spec, files, identity)
    instances = placed.instances // server.processes
    gpu = server.gpu and base.name != EMULATED and not cfg.on_processors(config)
    cfg.set_instances(config, instances, gpu=gpu)
    items = one_by_one or (front.one_by_one(graph, task) and not pads)
    _set_scheduling(config, placed.batch, items=items, shared=server.shared)
    if spec is not None:
        cfg.set_spec(config, spec)
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
        content=content,
    )


def _set_scheduling(config: ModelConfig, batch: int, *, items: bool, shared: bool) -> None:
    """Sets the batching, and the rate limiter if several models share the slice.

    A front sends whole batches, for which Triton's batcher would only add a thread. If the front sends the items of a
    batch as separate requests, the batcher joins them.

    Args:
        config: Configuration to change, whose instances are set.
        batch: Largest batch.
        items: True if a batch arrives as one request for each item.
        shared: True if the slice holds other models.
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
    """Returns the template's native configuration if the server has its backend, otherwise the other one.

    Every server has the compiled backend, whether `backends` names it or not.

    Raises:
        InputError: The server has the backend of neither.
    """
    if base.native_config_text is not None:
        native = cfg.parse(base.native_config_text, where=f"{base.name}/{NATIVE_CONFIG_FILE}")
        if native.backend in backends and (native.backend != PYTORCH or _numbered(task)):
            return native
    config = cfg.parse(base.config_text, where=f"{base.name}/{CONFIG_FILE}")
    config.backend = cfg.backend_of(config)
    if config.backend not in backends | {COMPILED_BACKEND}:
        raise InputError(
            f"template {base.name!r} needs the backend {config.backend!r}, which the tritonserver does not have",
            where=where,
            hint=f"the server has {', '.join(sorted(backends)) or 'none'}; use a tritonserver with this backend",
        )
    return config


def _numbered(task: Task) -> bool:
    """Returns True if the tensors' names end with `__0`, `__1`, ..., by which the pytorch backend identifies them."""
    sides = (task.inputs, task.outputs)
    return all(name.endswith(f"__{index}") for side in sides for index, name in enumerate(side))


def runner_spec(graph: TaskGraph, task: Task, variant: Variant, *, threads: int = 1) -> RunnerSpec:
    """Returns the specification of a variant that a runner executes.

    Args:
        graph: Graph of the task.
        task: Task of the variant.
        variant: The variant, whose template is the name of its runner.
        threads: Number of threads of one instance.
    """
    inputs = {name: graph.input_type(task, name) for name in task.inputs}
    return RunnerSpec(
        runner=variant.template,
        inputs=_model_tensors(inputs, task.scalar_inputs),
        outputs=_model_tensors(task.outputs, task.scalar_outputs),
        stack=not any(cfg.varies(t) for t in (*inputs.values(), *task.outputs.values())),
        threads=threads,
        parameters=dict(variant.parameters),
    )


def _model_tensors(tensors: cfg.Tensors, scalars: Collection[str]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, t.dtype, () if name in scalars else t.shape) for name, t in tensors.items())


def _threads(server: Server, instances: int) -> int:
    """Returns the threads of one instance: its share of a CPU slice's threads, or one thread to feed a GPU."""
    if server.board.arch != "cpu":
        return 1
    return max(1, server.board.profiles[server.slice].compute_slices // instances)


def _emulation(placed: PlacedModel, server: Server, profile: ProfileTable | None, where: str) -> EmulationSpec:
    """Returns the service times of the planned configuration, as the planner and the simulator fit them."""
    rows = profile.rows(task=placed.task, variant=placed.variant, gpu=server.board.name) if profile is not None else ()
    of_slice = [row for row in rows if (row.key.slice, row.key.instances) == (server.slice, placed.instances)]
    planned = next((row for row in of_slice if row.key.batch == placed.batch and row.throughput_rps > 0), None)
    if planned is None:
        raise InputError(
            f"there is no profile of {placed.instances} instances at batch {placed.batch} on a {server.slice} slice"
            f" of {server.board.name}, so the time to emulate is unknown",
            where=where,
            hint="plan again with the current profiles, or use those that the plan was made with",
        )
    time = service_time(planned, of_slice)
    return EmulationSpec(tuple(time.medians_ms.round(6).tolist()), time.p95, time.p99, time.rest)


def stored_name(artifact: str, *, templated: bool) -> str:
    """Returns the name of a variant's artifact in the version folder.

    Args:
        artifact: Name of the artifact in graph.yaml.
        templated: True if the template has a model.py of its own.
    """
    return VARIANT_FILE if artifact == MODEL_FILE and templated else artifact


def _files(base: Template | None, variant: Variant, config: ModelConfig, where: str) -> dict[str, bytes | Artifact]:
    """Returns the files of the version folder: the template's code and the variant's artifacts."""
    code = base.model_py if base is not None else None
    files: dict[str, bytes | Artifact] = {} if code is None else {f"{cfg.VERSION}/{MODEL_FILE}": code}
    for name, source in sorted(variant.artifacts.items()):
        if name == CONFIG_FILE and variant.template == FOLDER:
            continue
        path = PurePosixPath(cfg.VERSION, stored_name(name, templated=code is not None))
        if PurePosixPath(name).is_absolute() or ".." in path.parts or str(path) in files:
            raise InputError(
                f"an artifact cannot be stored as {name!r}",
                where=where,
                hint="use a file name that no other artifact has",
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


def _content(
    config: ModelConfig,
    runner: str,
    spec: RunnerSpec | None,
    files: Mapping[str, bytes | Artifact],
    identity: Identity,
) -> str:
    """Returns the digest of all that a model's answers depend on, and of nothing that depends on its slice.

    Args:
        config: Configuration without instances, batching and specification.
        runner: Name of the variant's template.
        spec: Specification of the variant; None if the backend is not ours.
        files: Files of the version folder.
        identity: Function that identifies the content of artifacts.
    """
    parts = {"runner": runner.encode()}
    if spec is not None:
        timeless = spec.emulation and replace(spec.emulation, medians_ms=(), p95=0.0, p99=0.0, rest=0.0)
        parts["spec"] = to_json(replace(spec, threads=1, emulation=timeless)).encode()
    return digest(config, {**files, **parts}, identity)


def digest(config: ModelConfig, files: Mapping[str, bytes | Artifact], identity: Identity) -> str:
    """Returns the SHA-256 of a model without its name. An artifact contributes its content."""
    nameless = ModelConfig()
    nameless.CopyFrom(config)
    nameless.name = ""
    result = hashlib.sha256()
    parts: list[bytes] = [cfg.render(nameless)]
    for path, content in sorted(files.items()):
        parts.append(path.encode())
        if isinstance(content, Artifact):
            parts += [b"artifact", identity(content.source).encode()]
        else:
            parts += [b"bytes", content]
    for part in parts:
        result.update(len(part).to_bytes(8))
        result.update(part)
    return result.hexdigest()
