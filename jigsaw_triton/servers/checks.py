"""Whether this machine can run tritonservers, and how to get what is missing. Nothing is downloaded for it."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jigsaw_triton import __version__
from jigsaw_triton.errors import JigsawError, MissingDependencyError, ServerError
from jigsaw_triton.packages import cache_dir
from jigsaw_triton.servers import backend, interpreter
from jigsaw_triton.servers.cgroups import limits
from jigsaw_triton.servers.edge import haproxy
from jigsaw_triton.servers.image import find_runtime, require_answer
from jigsaw_triton.servers.installation import PACKAGE, find_installation, find_installed, require_packaged_platform
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer
from jigsaw_triton.servers.runner_packages import RUNNER_PACKAGES, install_command, installed_version

SHM = Path("/dev/shm")
SEND_BUFFER = Path("/proc/sys/net/core/wmem_default")
_SHM_FREE_MIB = 1024
_OPEN_FILES = 4096
_ANSWER_BYTES = 768
"""That Linux counts for each answer on its way to the thread of Triton's that sends it (docs/adr/0007)."""
_PROCESSES = 4096
_PROCESSORS = 2
_MEMORY_MIB = 4096
_PERF_ANALYZER_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Check:
    """What was found.

    Attributes:
        name: Of what was looked at: `tritonserver`.
        status: `warning` where it works until it does not.
        detail: What is so.
        remedy: What to do; empty where all is well.
    """

    name: str
    status: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""


def checks() -> list[Check]:
    """All of them, in the order in which a deployment needs things. Blocks for about a second."""
    looks: dict[str, Callable[[str], Check]] = {
        "cache folder": _cache,
        "tritonserver": _tritonserver,
        "backends": _backends,
        "compiled backend": _compiled_backend,
        "python backend": _python,
        **dict.fromkeys(RUNNER_PACKAGES, _runner_package),
        "perf_analyzer": _perf_analyzer,
        "/dev/shm": _shared_memory,
        "open files": _open_files,
        "socket buffers": _socket_buffers,
        "processes": _processes,
        "container": _container,
        "containers": _containers,
        "haproxy": _haproxy,
    }
    return [_guarded(name, look) for name, look in looks.items()]


def _guarded(name: str, look: Callable[[str], Check]) -> Check:
    try:
        return look(name)
    except JigsawError as error:
        return Check(name, "error", f"{error.where}: {error.message}" if error.where else error.message, error.hint)


def _cache(name: str) -> Check:
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "error", f"{folder} cannot be written", "set JIGSAW_CACHE to a folder that can be written")
    free_mib = shutil.disk_usage(existing).free // 2**20
    if free_mib < _SHM_FREE_MIB:
        return Check(name, "warning", f"{folder}, {free_mib} MiB free", "free some space, or set JIGSAW_CACHE")
    return Check(name, "ok", f"{folder}, {free_mib} MiB free")


def _fetched() -> bool:
    return (cache_dir() / "wheels" / PACKAGE.filename).is_file()


def _tritonserver(name: str) -> Check:
    if find_installed() is None and not _fetched():
        require_packaged_platform()
        return Check(
            name,
            "warning",
            "none on PATH or in /opt/tritonserver, and the packaged one is not fetched yet (53 MiB)",
            "nothing to do: the first command that needs it fetches it",
        )
    found = find_installation()
    origin = {"path": "on PATH", "opt": "in /opt/tritonserver", "package": f"from {PACKAGE.name} {PACKAGE.version}"}
    return Check(name, "ok", f"{found.version} {origin[found.origin]}, {found.binary}")


def _backends(name: str) -> Check:
    if find_installed() is None and not _fetched():
        return Check(name, "ok", "python (of the packaged tritonserver)")
    return Check(name, "ok", ", ".join(sorted(find_installation().backends)))


def _compiled_backend(name: str) -> Check:
    """Who compiled the backend of the gateway, for which version, and whether it fits the server."""
    library = backend.find_library()
    if library is None:
        raise backend.missing_library()
    built = backend.build_info(library)
    story = f"{built.version}, compiled by {built.compiler} for backend API {built.api}"
    if built.version != __version__:
        return Check(name, "error", f"{story}; jigsaw-triton is {__version__}", backend.REBUILD)
    if find_installed() is None and not _fetched():
        return Check(name, "ok", story)
    server = find_installation()
    api = backend.server_api(server.binary, server.env)
    if api is None:
        return Check(name, "ok", f"{story}; the API of tritonserver {server.version} is not known")
    if api.major != built.api.major or api < built.api:
        return Check(
            name,
            "error",
            f"{story}; tritonserver {server.version} has API {api}",
            f"use a tritonserver with backend API {built.api} or a later {built.api.major}.x",
        )
    return Check(name, "ok", f"{story}; tritonserver has {api}")


def _python(name: str) -> Check:
    library = interpreter.shared_library()
    if find_installed() is None:
        require_packaged_platform()
    return Check(name, "ok", f"Python {interpreter.VERSION}, {library}")


def _runner_package(name: str) -> Check:
    """A package that runs models in the python backend; only graphs with its template need it."""
    needed = f"for `template: {name}` in graph.yaml"
    found = installed_version(name)
    return Check(
        name, "ok", f"not installed; {install_command(name)} {needed}" if found is None else f"{found}, {needed}"
    )


def _perf_analyzer(name: str) -> Check:
    path = find_perf_analyzer()
    try:
        ran = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_PERF_ANALYZER_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, "error", f"{path} does not run: {error}", "install tritonclient[all] again")
    if ran.returncode != 0:
        story = (ran.stderr or ran.stdout).strip().splitlines()
        return Check(
            name, "error", f"{path} does not run: {story[-1] if story else ran.returncode}", "install what it names"
        )
    return Check(name, "ok", str(path))


def _shared_memory(name: str) -> Check:
    if not SHM.is_dir() or not os.access(SHM, os.W_OK | os.X_OK):
        return Check(name, "error", "cannot be written", "mount a tmpfs on /dev/shm that this user may write")
    free_mib = shutil.disk_usage(SHM).free // 2**20
    if free_mib < _SHM_FREE_MIB:
        return Check(
            name,
            "warning",
            f"{free_mib} MiB free; Python models pass tensors through it and fail when it is full",
            "in a container: docker run --shm-size=4g; else: mount -o remount,size=4g /dev/shm",
        )
    return Check(name, "ok", f"{free_mib} MiB free")


def _open_files(name: str) -> Check:
    # Servers are started with as many as they may have.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES:
        return Check(
            name,
            "warning",
            f"a process may open {hard} files; a gateway with many clients needs more",
            f"as root: ulimit -Hn {_OPEN_FILES}; in a container: docker run --ulimit nofile={_OPEN_FILES}",
        )
    return Check(name, "ok", "unlimited" if hard == resource.RLIM_INFINITY else f"{hard} a process")


def _socket_buffers(name: str) -> Check:
    try:
        size = int(SEND_BUFFER.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Check(name, "ok", f"not told: {SEND_BUFFER} cannot be read here")
    wanted = _OPEN_FILES * _ANSWER_BYTES
    if size < wanted:
        return Check(
            name,
            "warning",
            f"of {size} bytes; with over {size // _ANSWER_BYTES} requests under way over HTTP, Triton may lose answers",
            f"on the host, before deploying: sysctl -w net.core.wmem_default={wanted}; or use gRPC",
        )
    return Check(name, "ok", f"of {size} bytes")


def _processes(name: str) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and soft < _PROCESSES:
        return Check(
            name,
            "warning",
            f"this user may have {soft} processes and threads; a tritonserver has dozens",
            f"ulimit -u {_PROCESSES if hard == resource.RLIM_INFINITY or hard >= _PROCESSES else hard}",
        )
    return Check(name, "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} of this user")


def _container(name: str) -> Check:
    """What the control groups allow; a worker that is killed for memory or cannot start a thread says little."""
    found = limits()
    figures = (
        (found.memory_mib, _MEMORY_MIB, "MiB", "--memory=8g"),
        (found.processors, _PROCESSORS, "processors", "--cpus=4"),
        (found.processes, _PROCESSES, "processes and threads", "--pids-limit=-1"),
    )
    allowed = ", ".join(f"{figure:g} {unit}" for figure, _, unit, _ in figures if figure is not None)
    remedies = [remedy for figure, least, _, remedy in figures if figure is not None and figure < least]
    if remedies:
        return Check(name, "warning", f"its limits are tight: {allowed}", f"docker run {' '.join(remedies)}")
    return Check(name, "ok", f"its limits: {allowed}" if allowed else "no limits of a container")


def _containers(name: str) -> Check:
    """What runs workers from an image; most machines need none."""
    try:
        runtime = find_runtime()
    except MissingDependencyError:
        return Check(name, "ok", "neither docker nor podman is here; `server: {image}` in cluster.yaml needs one")
    try:
        require_answer(runtime)
    except ServerError as error:
        hint = "start its daemon, or add this user to the group docker; needed for `server: {image}` alone"
        return Check(name, "warning", error.message, hint)
    return Check(name, "ok", f"{runtime.program}, for `server: {{image}}` in cluster.yaml")


def _haproxy(name: str) -> Check:
    """The edge; most deployments have none."""
    needed = "for `edge: haproxy` in cluster.yaml"
    found = haproxy.find_installed()
    if found is not None:
        return Check(name, "ok", f"{found.version}, {found.binary}, {needed}")
    if haproxy.fetched():
        return Check(name, "ok", f"{haproxy.PACKAGE.version} from {haproxy.PACKAGE.name}, {needed}")
    return Check(name, "ok", f"none on PATH with all that the edge needs; `deploy` fetches one (4 MiB) {needed}")
