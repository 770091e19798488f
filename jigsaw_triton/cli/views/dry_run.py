"""Preview of a rollout: changes of MIG, command lines and repositories. Nothing is changed."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from jigsaw_triton.api.controller import next_generation, orphaned_instances
from jigsaw_triton.api.rollout import Rollout
from jigsaw_triton.cli.io.output import View
from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Bundle, ModelFolder, Worker, WorkerModel
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core.immutable_settings import check_ground, check_ports
from jigsaw_triton.controller.fleet.commands import Commands
from jigsaw_triton.controller.fleet.edge import NAME as EDGE
from jigsaw_triton.controller.fleet.edge import edge_place
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import Edge, GatewayPorts, ServerImage
from jigsaw_triton.gpus.model import Cluster, GpuId, MigInstance, Placement
from jigsaw_triton.gpus.nvml_gpus import NvmlGpus
from jigsaw_triton.gpus.nvml_texts import calls_of
from jigsaw_triton.gpus.rearrangement import Rearrangement, rearrangement
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.haproxy.process import haproxy_argv
from jigsaw_triton.servers.haproxy.program import find_haproxy
from jigsaw_triton.servers.image import find_image
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.mps import daemon_argv, daemon_environment, find_control, mps_environment

_SECRET = "SECRET-OF-THE-DEPLOYMENT"
_UUID = "MIG-UUID-OF-"
"""Placeholders for values that a rollout creates."""

Change = Literal["starts", "stays", "ends"]
_GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that would be loaded.

    Attributes:
        name: Name of its folder in the repository.
        files: Paths of the files in the folder.
    """

    name: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Process:
    """A tritonserver, an MPS daemon or the edge.

    Attributes:
        name: Name of a worker, `gateway`, `edge`, or the MIG instance of an MPS daemon.
        change: Change that the rollout makes to it.
        argv: Command line, if it starts.
        env: Environment variables beside those of the controller, if it starts.
        repository: Model repository of a tritonserver.
        models: Models that would be loaded.
    """

    name: str
    change: Change
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    repository: str = ""
    models: tuple[Model, ...] = ()

    @property
    def line(self) -> str:
        """Command line for a shell."""
        return " ".join((*(f"{k}={shlex.quote(v)}" for k, v in (self.env or {}).items()), shlex.join(self.argv)))


@dataclass(frozen=True, slots=True)
class DryRun:
    """Result of a preview.

    Attributes:
        driver: MIG driver.
        mig: Changes of MIG; calls of NVML if the GPUs are real.
        daemons: MPS daemons.
        servers: Servers, the edge and the gateway first.
    """

    driver: str
    mig: tuple[str, ...]
    daemons: tuple[Process, ...]
    servers: tuple[Process, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the preview as JSON."""
        return {"dry_run": True, **asdict(self)}

    def view(self) -> Iterator[View]:
        """Yields the lines of the preview."""
        yield f"MIG ({self.driver}):"
        yield from _indented(self.mig or ("nothing changes",))
        for daemon in self.daemons:
            yield f"MPS of {daemon.name} {daemon.change}" + (":" if daemon.argv else "")
            yield from _indented([daemon.line] if daemon.argv else [])
        for server in self.servers:
            yield f"{server.name} {server.change}" + (":" if server.argv or server.models else "")
            yield from _indented([server.line] if server.argv else [])
            if server.models:
                yield from _indented([f"{server.repository}:"])
                yield from _indented(f"  {model.name}: {', '.join(model.files)}" for model in server.models)
        yield f"({_UUID}... and {_SECRET} are placeholders for values that the deployment creates;"
        yield " the file after `=@` contains the secret and exists only while the server starts)"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def preview_rollout(rollout: Rollout, installation: Installation, paths: Paths) -> DryRun:
    """Returns what a rollout would do. Blocks.

    A model counts as unchanged if its task, variant, instances and batch are the same. Only the controller sees whether
    its files have changed.

    Args:
        rollout: Rollout, on the GPUs as they are.
        installation: The tritonserver of this machine.
        paths: Paths of the deployment.

    Raises:
        InputError: The plan cannot be compiled, the image is missing, or the gateway's ports would change.
        StateError: The running deployment uses another MIG driver or another image.
        MissingDependencyError: MPS, docker or podman is missing.
        MigError: The driver does not answer.
    """
    wanted, status = rollout.wanted, rollout.before
    cluster = wanted.cluster
    if status is not None:
        _check(cluster, status)
    commands = Commands(
        paths,
        installation,
        _SECRET,
        image=find_image(cluster.image) if cluster.image is not None else None,
        gpu=cluster.driver == "nvml",
        edge=cluster.edge is not None,
        gateway_image=find_image(cluster.gateway_image) if cluster.gateway_image is not None else None,
    )
    bundle = compile_plan(
        rollout.plan,
        wanted.graphs,
        cluster,
        wanted.profiles,
        generation=next_generation(paths),
        templates=load_templates(templates_dir()),
        backends=commands.workers.backends,
        identity=str,
        deterministic=wanted.deterministic,
    )
    running = list(status["workers"]) if status is not None else []
    orphans = orphaned_instances(paths, cluster) if status is None else ()
    return DryRun(
        cluster.driver,
        tuple(_mig(cluster, bundle, running, orphans)),
        tuple(_daemons(cluster, bundle, running, paths)),
        (
            *_edge(cluster, paths, status),
            _gateway(commands, cluster, bundle, status),
            *_workers(commands, cluster, bundle, running),
        ),
    )


def _check(cluster: Cluster, status: Mapping[str, Any]) -> None:
    """Raises the errors that the controller would raise."""
    if "ports" in status["gateway"]:
        check_ports(GatewayPorts(**status["gateway"]["ports"]), cluster.gateway)
    if status["driver"]:
        name = status["server"]["workers"]["image"]
        # The status does not have the container runtime.
        runtime = cluster.image.runtime if cluster.image is not None else None
        image = ServerImage(name, runtime) if name is not None else None
        edge = cluster.edge or Edge() if status.get("edge") is not None else None
        check_ground(replace(cluster, driver=status["driver"], image=image, edge=edge), cluster)


# --- MIG and MPS ---------------------------------------------------------------------------------------------------


def _place(worker: Mapping[str, Any]) -> tuple[GpuId, Placement]:
    return GpuId(worker["node"], worker["gpu"]), Placement(worker["start"], worker["slice"])


def _mig(
    cluster: Cluster, bundle: Bundle, running: Sequence[Mapping[str, Any]], orphans: Sequence[MigInstance]
) -> Iterator[str]:
    """Yields the changes of each GPU. A running deployment makes them in the order of its steps."""
    alone = {(w.place.gpu, w.place.placement): not w.process for w in bundle.workers.values() if w.place is not None}
    present: dict[str, MigInstance] = {}
    replaced: dict[str, MigInstance] = {}
    for worker in running:
        if worker["slice"] is None:
            continue
        place = _place(worker)
        # An instance is replaced if it changes between one server alone and several servers that share it.
        stays = alone.get(place, not worker["process"]) == (not worker["process"])
        (present if stays else replaced)[worker["uuid"]] = MigInstance(*place, worker["uuid"])
    wanted: dict[GpuId, set[Placement]] = {}
    for gpu, placement in alone:
        wanted.setdefault(gpu, set()).add(placement)
    changes = [Rearrangement(instance.gpu, (), (instance,), ()) for instance in (*orphans, *replaced.values())]
    changes += [
        rearrangement(gpu, [i for i in present.values() if i.gpu == gpu], tuple(sorted(wanted.get(gpu, ()))))
        for gpu in sorted({*wanted, *(i.gpu for i in present.values())})
    ]
    if cluster.driver == "emulated":
        yield from (text for change in changes for text in _emulated(change))
        return
    reported = {gpu.index: gpu for gpu in NvmlGpus("", {}).gpus()}
    for change in changes:
        found = reported[change.gpu.index]
        # A GPU without MIG is used as it is.
        yield from calls_of(change, found) if found.cut else ()


def _emulated(change: Rearrangement) -> Iterator[str]:
    yield from (f"destroy {instance.placement} of {change.gpu}" for instance in change.destroy)
    yield from (f"create {placement} of {change.gpu}" for placement in change.create)


def _daemons(cluster: Cluster, bundle: Bundle, running: Sequence[Mapping[str, Any]], paths: Paths) -> Iterator[Process]:
    if cluster.driver != "nvml":
        return
    before = {names.worker(*_place(w)): w["uuid"] for w in running if w["process"]}
    after = {names.worker(w.place.gpu, w.place.placement) for w in bundle.workers.values() if w.process and w.place}
    for place in sorted({*before, *after}):
        if place in before:
            yield Process(place, "stays" if place in after else "ends")
        else:
            environment = daemon_environment(_UUID + place, paths.mps(place), paths.mps_logs(place))
            yield Process(place, "starts", daemon_argv(find_control()), environment)


# --- servers -------------------------------------------------------------------------------------------------------


def _started(name: str, command: Command, repository: str, models: tuple[Model, ...]) -> Process:
    return Process(name, "starts", command.argv, command.env, repository, models)


def _gateway(commands: Commands, cluster: Cluster, bundle: Bundle, status: Mapping[str, Any] | None) -> Process:
    models = _models(folder for graph in bundle.graphs.values() for folder in (*graph.models, graph.front))
    repository = str(commands.paths.gateway_repository)
    if status is not None and "pid" in status["gateway"]:
        return Process(_GATEWAY, "stays", repository=repository, models=models)
    return _started(_GATEWAY, commands.gateway(cluster.gateway), repository, models)


def _edge(cluster: Cluster, paths: Paths, status: Mapping[str, Any] | None) -> Iterator[Process]:
    if cluster.edge is None:
        return
    running = status.get("edge") if status is not None else None
    if running is not None and running["pid"] is not None:
        yield Process(EDGE, "stays")
    else:
        yield Process(EDGE, "starts", haproxy_argv(find_haproxy(), edge_place(paths)), {})


def _workers(
    commands: Commands, cluster: Cluster, bundle: Bundle, running: Sequence[Mapping[str, Any]]
) -> Iterator[Process]:
    before = {worker["name"]: worker for worker in running}
    for name in sorted({*before, *bundle.workers}):
        worker = bundle.workers.get(name)
        if worker is None:
            yield Process(name, "ends")
            continue
        repository = str(commands.paths.worker_repository(name))
        if name in before:
            loaded = {_key(**model) for model in before[name]["models"]}
            missing = [m for m in worker.models if _key(m.graph, m.task, m.variant, m.instances, m.batch) not in loaded]
            yield Process(name, "stays", repository=repository, models=_models(_folders(missing)))
        else:
            yield _started(name, _command(commands, cluster, worker), repository, _models(_folders(worker.models)))


def _command(commands: Commands, cluster: Cluster, worker: Worker) -> Command:
    if worker.place is None:
        return commands.worker(worker, "")
    place = names.worker(worker.place.gpu, worker.place.placement)
    paths, shared = commands.paths, worker.process and cluster.driver == "nvml"
    return commands.worker(
        worker, _UUID + place, mps_environment(paths.mps(place), paths.mps_logs(place)) if shared else {}
    )


def _key(graph: str, task: str, variant: str, instances: int, batch: int, **_: Any) -> tuple[object, ...]:
    """Returns the identity of a model in a status."""
    return graph, task, variant, instances, batch


def _folders(models: Iterable[WorkerModel]) -> Iterator[ModelFolder]:
    return (model.folder for model in models)


def _models(folders: Iterable[ModelFolder]) -> tuple[Model, ...]:
    return tuple(Model(folder.name, tuple(sorted(folder.files))) for folder in folders)
