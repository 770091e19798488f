"""The tritonserver of a container image: docker or podman, what is in the image, and what is left of its containers."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError, MissingDependencyError, ServerError
from jigsaw_triton.gpus.model import ServerImage
from jigsaw_triton.servers import interpreter
from jigsaw_triton.servers.installation import Installation

RUNTIMES = ("docker", "podman")
"""Programs that run containers; the first that is there is taken."""

LABEL = "jigsaw-triton.deployment"
"""What containers are found by: the value is the deployment's run directory."""

_ROOT = Path("/opt/tritonserver")
"""Where NVIDIA's images have it."""

_LEAST_PYTHON = (3, 10)
"""On which the code runs that workers' models are made of."""

_PROBE = (
    'echo "path=$PATH"; echo "version=${TRITON_SERVER_VERSION:-unknown}"; '
    "echo \"python=$(python3 -c 'import sys; print(*sys.version_info[:2], sep=chr(46))')\"; "
    f'echo "backends="$(ls {_ROOT}/backends)'
)
_NO_SHELL = (126, 127)
"""Exit statuses of docker and podman where the image is there, and no shell in it."""

_TIMEOUT_S = 60.0
_PULL_TIMEOUT_S = 3600.0
_GONE_S = 10.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """A program that runs containers.

    Attributes:
        program: Absolute path of docker or podman.
        user: Ids of user and group that containers run as: this process's.
    """

    program: Path
    user: tuple[int, int]

    @property
    def podman(self) -> bool:
        """Whether it is podman, which differs in some flags."""
        return self.program.name == "podman"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is on this machine.

    Attributes:
        name: With its tag.
        runtime: That runs it.
        installation: The tritonserver in it; paths and variables are those inside.
        python: Folder on this machine that makes its Python find our package, with paths of the inside in it.
    """

    name: str
    runtime: Runtime
    installation: Installation
    python: Path


@dataclass(frozen=True, slots=True)
class Container:
    """A container that a server runs in.

    Attributes:
        runtime: That runs it.
        name: Its own.
    """

    runtime: Runtime
    name: str


def find_runtime(wanted: str | None = None) -> Runtime:
    """Docker or podman.

    Args:
        wanted: Which of `RUNTIMES`; None for the first that is there.

    Raises:
        MissingDependencyError: It is not on PATH.
    """
    names = RUNTIMES if wanted is None else (wanted,)
    for name in names:
        if found := shutil.which(name):
            return Runtime(Path(found), (os.getuid(), os.getgid()))
    raise MissingDependencyError(
        f"workers are to run from an image, and {' or '.join(names)} is not on PATH",
        hint="install it with NVIDIA's container toolkit, or leave `server` out of cluster.yaml",
    )


def require_answer(runtime: Runtime) -> None:
    """Sees to it that docker's daemon answers this user; podman has none.

    Raises:
        ServerError: It does not.
    """
    _listed(runtime, "name=^$")


def pull_image(wanted: ServerImage) -> bool:
    """Brings an image where it is not on this machine yet. Blocks, for as long as gigabytes take.

    Returns:
        Whether it had to be brought.

    Raises:
        MissingDependencyError: There is no docker or podman.
        InputError: It cannot be had.
    """
    runtime = find_runtime(wanted.runtime)
    if _run(runtime, "image", "inspect", wanted.name).returncode == 0:
        return False
    pulled = _run(runtime, "pull", wanted.name, timeout_s=_PULL_TIMEOUT_S)
    if pulled.returncode != 0:
        raise InputError(
            f"the image cannot be pulled: {_last(pulled)}", where=wanted.name, hint="name another in cluster.yaml"
        )
    return True


def find_image(wanted: ServerImage) -> Image:
    """An image that is here, and what is in it. Blocks for a second or two: a container is started to look.

    Raises:
        MissingDependencyError: There is no docker or podman.
        InputError: The image is not here, or has no tritonserver that our models run on.
    """
    runtime = find_runtime(wanted.runtime)
    arguments = ("run", "--rm", "--pull=never", "--network=none", "--entrypoint=/bin/sh", wanted.name, "-c", _PROBE)
    looked = _run(runtime, *arguments)
    if looked.returncode not in (0, *_NO_SHELL):
        hint = f"{runtime.program.name} pull {wanted.name}"
        raise InputError(f"the image cannot be looked into: {_last(looked)}", where=wanted.name, hint=hint)
    found = dict(line.partition("=")[::2] for line in looked.stdout.splitlines())
    backends = frozenset(found.get("backends", "").split())
    if "python" not in backends:
        raise InputError(
            f"the image has no tritonserver with a python backend at {_ROOT}",
            where=wanted.name,
            hint="use nvcr.io/nvidia/tritonserver:<release>-py3",
        )
    python = found["python"]
    if not python or tuple(map(int, python.split("."))) < _LEAST_PYTHON:
        least = ".".join(map(str, _LEAST_PYTHON))
        has = f"Python {python}" if python else "no python3"
        hint = "use nvcr.io/nvidia/tritonserver:<release>-py3, of a later release"
        raise InputError(f"the image has {has}, models need {least}", where=wanted.name, hint=hint)
    folder = interpreter.prepare_inside(python)
    installation = Installation(
        binary=_ROOT / "bin" / "tritonserver",
        backend_dir=_ROOT / "backends",
        backends=backends,
        version=found["version"],
        origin="image",
        env={"PATH": f"{folder / 'bin'}{os.pathsep}{found['path']}"},
    )
    return Image(wanted.name, runtime, installation, folder)


def main_process(container: Container) -> int | None:
    """Id of a container's first process, as this machine counts; None where that is not known."""
    looked = _run(container.runtime, "inspect", "--format={{.State.Pid}}", container.name)
    text = looked.stdout.strip()
    pid = int(text) if looked.returncode == 0 and text.isdigit() else 0
    return pid if pid and Path(f"/proc/{pid}").exists() else None


def end_container(container: Container) -> None:
    """Ends a container; one that is not there has ended. Blocks.

    Raises:
        ServerError: It is there all the same, or that cannot be found out.
    """
    # Removed without a look: that there is none is an error to some releases, and not to others.
    _remove(container.runtime, container.name)
    _end_listed(container.runtime, f"name=^/?{container.name}$")


def end_containers(runtime: Runtime, deployment: str) -> int:
    """Ends all containers of a deployment; how many there were. Blocks.

    Raises:
        ServerError: They cannot be ended, or that cannot be found out.
    """
    return _end_listed(runtime, f"label={LABEL}={deployment}")


def _end_listed(runtime: Runtime, condition: str) -> int:
    """Ends what a condition lists; how many there were."""
    found = left = _listed(runtime, condition)
    give_up_at = time.monotonic() + _GONE_S
    while left:
        # One that is just removed by itself is refused, and gone a moment later.
        _remove(runtime, *left)
        left = _listed(runtime, condition)
        if left and time.monotonic() > give_up_at:
            raise ServerError(f"containers {', '.join(left)} cannot be removed", where=str(runtime.program))
    return len(found)


def _remove(runtime: Runtime, *containers: str) -> None:
    # podman would give them ten seconds first.
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
    """The end of what a program complained of, but for docker's advice to read its manual."""
    lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip() and "--help'" not in line]
    return lines[-1] if lines else f"exit status {ran.returncode}"
