"""Container images with a tritonserver: finding docker or podman, inspecting images, and ending containers."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError, MissingDependencyError, ServerError
from jigsaw_triton.gpus.gateway import ServerImage
from jigsaw_triton.runtime.spec import COMPILED_BACKEND, PACKAGES_VARIABLE
from jigsaw_triton.servers import backend, interpreter
from jigsaw_triton.servers.installation import Installation

RUNTIMES = ("docker", "podman")
"""Programs that run containers, in the order of preference."""

LABEL = "jigsaw-triton.deployment"
"""Label by which containers are found; its value is the run directory of the deployment."""

_ROOT = Path("/opt/tritonserver")
"""Folder of tritonserver in NVIDIA's images."""

_LEAST_PYTHON = (3, 10)
"""Oldest version of Python that runs the code of workers' models."""

_PROBE = (
    'echo "path=$PATH"; echo "version=${TRITON_SERVER_VERSION:-unknown}"; '
    "echo \"python=$(python3 -c 'import sys; print(*sys.version_info[:2], sep=chr(46))')\"; "
    "echo \"packages=$(python3 -c 'import site; print(*site.getsitepackages(), sep=chr(58))')\"; "
    f'echo "backends="$(ls {_ROOT}/backends)'
)
_NO_SHELL = (126, 127)
"""Exit statuses of docker and podman if the image exists but has no shell."""

_TIMEOUT_S = 60.0
_PULL_TIMEOUT_S = 3600.0
_GONE_S = 10.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """A program that runs containers.

    Attributes:
        program: Absolute path of docker or podman.
        user: User and group ids under which containers run, which are those of this process.
    """

    program: Path
    user: tuple[int, int]

    @property
    def podman(self) -> bool:
        """True if the program is podman, which differs in some flags."""
        return self.program.name == "podman"


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this machine.

    Attributes:
        name: Name of the image, with its tag.
        runtime: Program that runs it.
        installation: Tritonserver in the image; paths and variables are those in the container.
        python: Folder on this machine through which the Python in the container finds our package; the paths in it are
            those in the container.
    """

    name: str
    runtime: Runtime
    installation: Installation
    python: Path


@dataclass(frozen=True, slots=True)
class Container:
    """A container in which a server runs.

    Attributes:
        runtime: Program that runs it.
        name: Name of the container.
    """

    runtime: Runtime
    name: str


def find_runtime(wanted: str | None = None) -> Runtime:
    """Finds docker or podman.

    Args:
        wanted: One of `RUNTIMES`; None for the first that is installed.

    Raises:
        MissingDependencyError: The program is not on PATH.
    """
    names = RUNTIMES if wanted is None else (wanted,)
    for name in names:
        if found := shutil.which(name):
            return Runtime(Path(found), (os.getuid(), os.getgid()))
    raise MissingDependencyError(
        f"running servers from an image needs {' or '.join(names)}, which is not on PATH",
        hint="install it with NVIDIA's container toolkit, or remove `server` and `gateway.image` from cluster.yaml",
    )


def require_answer(runtime: Runtime) -> None:
    """Checks that docker's daemon answers this user; podman has no daemon.

    Raises:
        ServerError: The daemon does not answer.
    """
    _listed(runtime, "name=^$")


def pull_image(wanted: ServerImage) -> bool:
    """Pulls an image unless it is already on this machine. Blocks, possibly for the download of gigabytes.

    Returns:
        True if the image was pulled.

    Raises:
        MissingDependencyError: Neither docker nor podman is installed.
        InputError: The image cannot be pulled.
    """
    runtime = find_runtime(wanted.runtime)
    if _run(runtime, "image", "inspect", wanted.name).returncode == 0:
        return False
    pulled = _run(runtime, "pull", wanted.name, timeout_s=_PULL_TIMEOUT_S)
    if pulled.returncode != 0:
        raise InputError(
            f"the image cannot be pulled: {_last(pulled)}", where=wanted.name, hint="choose another in cluster.yaml"
        )
    return True


def find_image(wanted: ServerImage) -> Image:
    """Inspects an image on this machine. Starts a container for that, and blocks for a second or two.

    Raises:
        MissingDependencyError: Neither docker nor podman is installed.
        InputError: The image is not on this machine, or has no tritonserver that can run our models.
    """
    runtime = find_runtime(wanted.runtime)
    arguments = ("run", "--rm", "--pull=never", "--network=none", "--entrypoint=/bin/sh", wanted.name, "-c", _PROBE)
    looked = _run(runtime, *arguments)
    if looked.returncode not in (0, *_NO_SHELL):
        hint = f"run {runtime.program.name} pull {wanted.name}"
        raise InputError(f"the image cannot be inspected: {_last(looked)}", where=wanted.name, hint=hint)
    found = dict(line.partition("=")[::2] for line in looked.stdout.splitlines())
    backends = frozenset(found.get("backends", "").split())
    if "python" not in backends:
        raise InputError(
            f"the image has no tritonserver with a Python backend at {_ROOT}",
            where=wanted.name,
            hint="use nvcr.io/nvidia/tritonserver:<release>-py3",
        )
    python = found["python"]
    if not python or tuple(map(int, python.split("."))) < _LEAST_PYTHON:
        least = ".".join(map(str, _LEAST_PYTHON))
        has = f"Python {python}" if python else "no python3"
        hint = "use nvcr.io/nvidia/tritonserver:<release>-py3 of a later release"
        raise InputError(f"the image has {has}, but models need {least} or later", where=wanted.name, hint=hint)
    folder = interpreter.prepare_inside(python)
    backend_dir = _ROOT / "backends"
    installation = Installation(
        binary=_ROOT / "bin" / "tritonserver",
        backend_dir=backend_dir,
        # The image itself has no compiled backend: containers get it by a mount.
        backends=backends | {COMPILED_BACKEND} if backend.find_library() else backends - {COMPILED_BACKEND},
        version=found["version"],
        origin="image",
        env={
            "PATH": f"{folder / 'bin'}{os.pathsep}{found['path']}",
            PACKAGES_VARIABLE: found["packages"],
            backend.PRELOAD_VARIABLE: str(backend.preload_beside(backend.library_in(backend_dir))),
        },
    )
    return Image(wanted.name, runtime, installation, folder)


def main_process(container: Container) -> int | None:
    """Returns the id, on the host, of a container's first process; None if it is unknown."""
    looked = _run(container.runtime, "inspect", "--format={{.State.Pid}}", container.name)
    text = looked.stdout.strip()
    pid = int(text) if looked.returncode == 0 and text.isdigit() else 0
    return pid if pid and Path(f"/proc/{pid}").exists() else None


def end_container(container: Container) -> None:
    """Ends a container if it exists. Blocks.

    Raises:
        ServerError: The container could not be removed, or its removal could not be verified.
    """
    # The result is ignored, because some releases report a missing container as an error and others do not.
    _remove(container.runtime, container.name)
    _end_listed(container.runtime, f"name=^/?{container.name}$")


def end_containers(runtime: Runtime, deployment: str) -> int:
    """Ends all containers of a deployment; returns their number. Blocks.

    Raises:
        ServerError: A container could not be removed, or the removal could not be verified.
    """
    return _end_listed(runtime, f"label={LABEL}={deployment}")


def _end_listed(runtime: Runtime, condition: str) -> int:
    """Ends the containers that match a condition; returns their number."""
    found = left = _listed(runtime, condition)
    give_up_at = time.monotonic() + _GONE_S
    while left:
        # The removal of a container that is just removing itself fails, but it is gone a moment later.
        _remove(runtime, *left)
        left = _listed(runtime, condition)
        if left and time.monotonic() > give_up_at:
            hint = f"remove them by hand: {runtime.program.name} rm --force ID"
            raise ServerError(f"containers {', '.join(left)} cannot be removed", where=str(runtime.program), hint=hint)
    return len(found)


def _remove(runtime: Runtime, *containers: str) -> None:
    # Without a timeout, podman would wait ten seconds before it kills them.
    _run(runtime, "rm", "--force", *(["--time=0"] if runtime.podman else []), *containers)


def _listed(runtime: Runtime, condition: str) -> list[str]:
    listed = _run(runtime, "ps", "--all", "--quiet", f"--filter={condition}")
    if listed.returncode != 0:
        raise ServerError(f"containers cannot be listed: {_last(listed)}", where=str(runtime.program))
    return listed.stdout.split()


def _run(runtime: Runtime, *arguments: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [runtime.program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"`{arguments[0]}` failed: {error}", where=str(runtime.program)) from error


def _last(ran: subprocess.CompletedProcess[str]) -> str:
    """Returns the last line of a program's output, except docker's reference to its help."""
    lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip() and "--help'" not in line]
    return lines[-1] if lines else f"exit status {ran.returncode}"
