"""A worker's command line, in a container. Pure: nothing here starts or touches anything."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import jigsaw_triton
from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.image import LABEL, Container, Image, Runtime
from jigsaw_triton.servers.interpreter import INSIDE

_OUTSIDE = ("CUDA_VISIBLE_DEVICES",)
"""Variables that the program itself has, too: by them it is seen what holds an emulated instance."""


def container_of(runtime: Runtime, shm_prefix: str) -> Container:
    """Container of the server whose regions in /dev/shm begin with this prefix."""
    return Container(runtime, shm_prefix.rstrip("-"))


def in_container(
    command: Command,
    image: Image,
    *,
    run_dir: Path,
    repository: Path,
    gpu: bool,
    mps: bool = False,
    mounts: Mapping[Path, Path] = MappingProxyType({}),
) -> Command:
    """The same server, run from an image.

    It sees its repository, the run directory with its sockets, our package, and its own MIG instance; the files of this
    machine otherwise not. It has the machine's /dev/shm, through which large tensors go, and the user of this process.

    Args:
        command: Made with the image's installation.
        image: To run from.
        run_dir: Of the deployment.
        repository: Of the worker.
        gpu: Whether its instance is a real one.
        mps: Whether it computes through an MPS daemon.
        mounts: Further files and folders that it sees, read-only: path here -> path inside.

    Raises:
        InputError: A folder cannot be mounted.
    """
    container = container_of(image.runtime, command.shm_prefix)
    arguments = (
        "run",
        "--rm",
        "--pull=never",
        f"--name={container.name}",
        f"--label={LABEL}={run_dir}",
        "--network=host",
        "--ipc=host",
        # Daemon, clients and driver know processes by their ids, which are to be the same to all of them.
        *(("--pid=host",) if mps else ()),
        *_user(image),
        *(_gpu(image, command.env["CUDA_VISIBLE_DEVICES"]) if gpu else ()),
        *_mounts(image, run_dir, repository, mounts),
        *(f"--env={name}={text}" for name, text in command.env.items()),
        # Its lines come through this program into the worker's log; nobody reads another copy.
        "--log-driver=none",
        image.name,
    )
    return replace(
        command,
        argv=(str(image.runtime.program), *arguments, *command.argv),
        env={name: command.env[name] for name in _OUTSIDE},
        container=container,
    )


def _user(image: Image) -> Iterator[str]:
    user, group = image.runtime.user
    yield f"--user={user}:{group}"
    if image.runtime.podman:
        # Where SELinux is on, else none of the mounts could be read.
        yield "--security-opt=label=disable"
        if user != 0:
            yield "--userns=keep-id"


def _gpu(image: Image, device: str) -> Iterator[str]:
    """What gives a container one MIG instance, or a GPU, by its UUID: docker's own flag, or podman's CDI device."""
    if image.runtime.podman:
        yield f"--device=nvidia.com/gpu={device}"
    else:
        yield f'--gpus="device={device}"'


def _mounts(image: Image, run_dir: Path, repository: Path, more: Mapping[Path, Path]) -> Iterator[str]:
    package = Path(jigsaw_triton.__file__).resolve().parent
    folders = {
        run_dir: run_dir,
        repository: repository,
        image.python: image.python,
        package: INSIDE / package.name,
        **more,
    }
    for outside, inside in folders.items():
        if ":" in str(outside):
            hint = "choose a state directory, or JIGSAW_CACHE, without one"
            raise InputError("a container cannot have a folder with a colon in its path", where=str(outside), hint=hint)
        yield f"--volume={outside}:{inside}" + ("" if outside == run_dir else ":ro")
