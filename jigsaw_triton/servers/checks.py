"""Checks if this machine can run tritonservers, and says how to get what is missing. Downloads nothing."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from jigsaw_triton import __version__
from jigsaw_triton.errors import JigsawError, MissingDependencyError, ServerError
from jigsaw_triton.packages import cache_dir
from jigsaw_triton.servers import backend, interpreter
from jigsaw_triton.servers.certificates.credentials import REMIND_BEFORE, Credentials, check_credentials
from jigsaw_triton.servers.cgroups import limits
from jigsaw_triton.servers.haproxy import program as haproxy
from jigsaw_triton.servers.image import find_runtime, require_answer
from jigsaw_triton.servers.installation import PACKAGE, find_installation, find_installed, require_packaged_platform
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer
from jigsaw_triton.servers.runner_packages import RUNNER_PACKAGES, described, install_command, installed_version

SHM = Path("/dev/shm")
SEND_BUFFER = Path("/proc/sys/net/core/wmem_default")
_SHM_FREE_MIB = 1024
_OPEN_FILES = 4096
_ANSWER_BYTES = 768
"""Bytes that Linux accounts for each answer on its way to the Triton thread that sends it (docs/adr/0007)."""
_PROCESSES = 4096
_PROCESSORS = 2
_MEMORY_MIB = 4096
_PERF_ANALYZER_TIMEOUT_S = 20
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Programs that the tests of the web console can drive."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of a check.

    Attributes:
        name: Name of the checked item: `tritonserver`.
        status: Verdict; `warning` if the item works but may fail under load.
        detail: Description of what was found.
        remedy: Advice on how to fix it; empty if the item is ok.
    """

    name: str
    status: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""


def checks() -> list[Check]:
    """Runs all checks, in the order in which a deployment needs the items. Blocks for about a second."""
    functions: dict[str, Callable[[str], Check]] = {
        "cache folder": _cache,
        "tritonserver": _tritonserver,
        "backends": _backends,
        "compiled backend": _compiled_backend,
        "Python backend": _python,
        **dict.fromkeys(RUNNER_PACKAGES, _runner_package),
        "perf_analyzer": _perf_analyzer,
        "/dev/shm": _shared_memory,
        "open files": _open_files,
        "socket buffers": _socket_buffers,
        "processes": _processes,
        "control group": _control_group,
        "container runtime": _container_runtime,
        "HAProxy": _haproxy,
        "Prometheus": _prometheus,
        "Chromium": _chromium,
    }
    return [_guarded(name, function) for name, function in functions.items()]


def _guarded(name: str, function: Callable[[str], Check]) -> Check:
    try:
        return function(name)
    except JigsawError as error:
        return Check(name, "error", f"{error.where}: {error.message}" if error.where else error.message, error.hint)


def _cache(name: str) -> Check:
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "error", f"{folder} cannot be written", "set JIGSAW_CACHE to a writable folder")
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
            "none on PATH or in /opt/tritonserver, and the packaged one (53 MiB) is not downloaded yet",
            "nothing to do: the first command that needs it downloads it",
        )
    found = find_installation()
    origin = {"path": "on PATH", "opt": "in /opt/tritonserver", "package": f"from {PACKAGE.name} {PACKAGE.version}"}
    return Check(name, "ok", f"{found.version} {origin[found.origin]}, {found.binary}")


def _backends(name: str) -> Check:
    if find_installed() is None and not _fetched():
        return Check(name, "ok", "python (of the packaged tritonserver)")
    return Check(name, "ok", ", ".join(sorted(find_installation().backends)))


def _compiled_backend(name: str) -> Check:
    """Checks that the gateway's backend is built from this version and fits the API of the server."""
    library = backend.find_library()
    if library is None:
        raise backend.missing_library()
    built = backend.build_info(library)
    summary = f"{built.version}, compiled by {built.compiler} for backend API {built.api}"
    if built.version != __version__:
        return Check(name, "error", f"{summary}; jigsaw-triton is {__version__}", backend.REBUILD)
    if find_installed() is None and not _fetched():
        return Check(name, "ok", summary)
    server = find_installation()
    api = backend.server_api(server.binary, server.env)
    if api is None:
        return Check(name, "ok", f"{summary}; the API of tritonserver {server.version} is unknown")
    if api.major != built.api.major or api < built.api:
        return Check(
            name,
            "error",
            f"{summary}; tritonserver {server.version} has API {api}",
            f"use a tritonserver with backend API {built.api} or a later {built.api.major}.x",
        )
    return Check(name, "ok", f"{summary}; tritonserver has API {api}")


def _python(name: str) -> Check:
    library = interpreter.shared_library()
    if find_installed() is None:
        require_packaged_platform()
    return Check(name, "ok", f"Python {interpreter.VERSION}, {library}")


def _runner_package(name: str) -> Check:
    """Checks a package that runs models in workers; only graphs with its template need it."""
    needed = f"for `template: {name}` in graph.yaml"
    found = installed_version(name)
    return Check(
        name,
        "ok",
        f"no {described(name)} is installed; {install_command(name)} {needed}"
        if found is None
        else f"{found}, {needed}",
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
        return Check(name, "error", f"{path} does not run: {error}", "reinstall tritonclient[all]")
    if ran.returncode != 0:
        lines = (ran.stderr or ran.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit status {ran.returncode}"
        return Check(name, "error", f"{path} does not run: {reason}", "install the missing library that it names")
    return Check(name, "ok", str(path))


def _shared_memory(name: str) -> Check:
    if not SHM.is_dir() or not os.access(SHM, os.W_OK | os.X_OK):
        return Check(name, "error", "cannot be written", "mount a tmpfs on /dev/shm that this user may write to")
    free_mib = shutil.disk_usage(SHM).free // 2**20
    if free_mib < _SHM_FREE_MIB:
        return Check(
            name,
            "warning",
            f"{free_mib} MiB free; Python models exchange tensors through it and fail if it is full",
            "in a container: docker run --shm-size=4g; elsewhere: mount -o remount,size=4g /dev/shm",
        )
    return Check(name, "ok", f"{free_mib} MiB free")


def _open_files(name: str) -> Check:
    # The launcher raises a server's soft limit to the hard limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES:
        return Check(
            name,
            "warning",
            f"a process may open only {hard} files; a gateway with many clients needs more",
            f"as root: ulimit -Hn {_OPEN_FILES}; in a container: docker run --ulimit nofile={_OPEN_FILES}",
        )
    return Check(name, "ok", "unlimited" if hard == resource.RLIM_INFINITY else f"{hard} per process")


def _socket_buffers(name: str) -> Check:
    try:
        size = int(SEND_BUFFER.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Check(name, "ok", f"unknown: {SEND_BUFFER} cannot be read")
    wanted = _OPEN_FILES * _ANSWER_BYTES
    if size < wanted:
        return Check(
            name,
            "warning",
            f"{size} bytes; with over {size // _ANSWER_BYTES} HTTP requests in flight, Triton may lose answers",
            f"on the host, before deploying: sysctl -w net.core.wmem_default={wanted}; or use gRPC",
        )
    return Check(name, "ok", f"{size} bytes")


def _processes(name: str) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and soft < _PROCESSES:
        return Check(
            name,
            "warning",
            f"this user may have only {soft} processes and threads; each tritonserver has dozens",
            f"ulimit -u {_PROCESSES if hard == resource.RLIM_INFINITY or hard >= _PROCESSES else hard}",
        )
    return Check(name, "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} per user")


def _control_group(name: str) -> Check:
    """Checks the limits of the control groups, because a worker that exceeds them fails without a clear message."""
    found = limits()
    figures = (
        (found.memory_mib, _MEMORY_MIB, "MiB", "--memory=8g"),
        (found.processors, _PROCESSORS, "processors", "--cpus=4"),
        (found.processes, _PROCESSES, "processes and threads", "--pids-limit=-1"),
    )
    allowed = ", ".join(f"{figure:g} {unit}" for figure, _, unit, _ in figures if figure is not None)
    remedies = [remedy for figure, least, _, remedy in figures if figure is not None and figure < least]
    if remedies:
        return Check(name, "warning", f"tight limits: {allowed}", f"docker run {' '.join(remedies)}")
    return Check(name, "ok", f"limits: {allowed}" if allowed else "no limits")


def _container_runtime(name: str) -> Check:
    """Checks the program that runs workers from an image, which most deployments do not need."""
    try:
        runtime = find_runtime()
    except MissingDependencyError:
        return Check(name, "ok", "neither docker nor podman found; `server: {image}` in cluster.yaml needs one")
    try:
        require_answer(runtime)
    except ServerError as error:
        hint = "start its daemon, or add this user to the group docker; only `server: {image}` needs it"
        return Check(name, "warning", error.message, hint)
    return Check(name, "ok", f"{runtime.program}, for `server: {{image}}` in cluster.yaml")


def _haproxy(name: str) -> Check:
    """Checks the program of the edge and of the transport between machines, which most deployments do not have."""
    needed = "for `edge: haproxy` and `engine: agents` in cluster.yaml"
    found = haproxy.find_installed()
    if found is not None:
        return Check(name, "ok", f"{found.version}, {found.binary}, {needed}")
    if haproxy.fetched():
        return Check(name, "ok", f"{haproxy.PACKAGE.version} from {haproxy.PACKAGE.name}, {needed}")
    return Check(name, "ok", f"no suitable one on PATH; `deploy` and `agent` download one (4 MiB) {needed}")


def certificates_check(credentials: Credentials) -> Check:
    """Checks the certificates of the transport between machines.

    Args:
        credentials: Certificate, key and authorities of this machine.
    """
    return _guarded("certificates", partial(_certificates, credentials))


def _certificates(credentials: Credentials, name: str) -> Check:
    expires = check_credentials(credentials)
    detail = f"{credentials.cert.parent}, valid until {expires:%Y-%m-%d %H:%M} UTC"
    if expires - datetime.now(UTC) < REMIND_BEFORE:
        return Check(name, "warning", detail, "issue new ones before then: jigsaw-triton certificates issue")
    return Check(name, "ok", detail)


def _prometheus(name: str) -> Check:
    """Checks the program that `launch/prometheus` is for, which usually runs on another machine."""
    found = shutil.which("prometheus")
    if found is not None:
        return Check(name, "ok", f"{found}, for launch/prometheus and its tests")
    return Check(
        name, "ok", "none on PATH; Debian: `apt-get install prometheus promtool`, for launch/prometheus and its tests"
    )


def _chromium(name: str) -> Check:
    """Checks the browser that only tests of the web console need; any browser of any machine shows the console."""
    found = next((path for program in BROWSERS if (path := shutil.which(program))), None)
    needed = "for tests of the web console"
    return Check(name, "ok", f"{found}, {needed}" if found else f"none installed; `apt-get install chromium` {needed}")
