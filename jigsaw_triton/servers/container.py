"""Wraps a worker's command line to run it in a container. Pure functions without side effects."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jigsaw_triton
from jigsaw_triton.errors import InputError
from jigsaw_triton.runtime.spec import SECRET_VARIABLE
from jigsaw_triton.servers.backend import LIBRARY, library_in, preload_beside
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.image import LABEL, Container, Image, Runtime
from jigsaw_triton.servers.interpreter import INSIDE
from jigsaw_triton.servers.members import DEPLOYMENT_VARIABLE, SERVER_VARIABLE

_OUTSIDE = ("CUDA_VISIBLE_DEVICES", DEPLOYMENT_VARIABLE, SERVER_VARIABLE, SECRET_VARIABLE)
"""Variables that docker or podman itself gets too: they show which process holds an emulated instance, and whose it
is. The secret is passed on from there, because every user can read its command line."""


def container_of(runtime: Runtime, shm_prefix: str) -> Container:
    """Returns the container of the server whose regions in /dev/shm begin with this prefix."""
    return Container(runtime, shm_prefix.rstrip("-"))


def in_container(
    command: Command,
    image: Image,
    *,
    run_dir: Path,
    repository: Path,
    gpu: bool,
    mps: bool = False,
) -> Command:
    """Returns the command that runs the same server from an image.

    The container sees the repository, the run directory with its sockets, our package with the compiled backend and
    its own MIG instance, but no other files of the host. It shares the host's /dev/shm, which carries large tensors,
    and runs as our user.

    Args:
        command: Command of the server, built with the image's installation.
        image: Image to run.
        run_dir: Run directory of the deployment.
        repository: Model repository of the worker.
        gpu: True if the MIG instance is real, not emulated.
        mps: True if the server computes through an MPS daemon.

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
        # MPS identifies processes by their ids, so daemon, clients and driver must see the same ids.
        *(("--pid=host",) if mps else ()),
        *_user(image),
        *(_gpu(image, command.env["CUDA_VISIBLE_DEVICES"]) if gpu else ()),
        *_mounts(image, run_dir, repository),
        *(f"--env={name}" if name == SECRET_VARIABLE else f"--env={name}={text}" for name, text in command.env.items()),
        # The output reaches the worker's log through this program; another copy would never be read.
        "--log-driver=none",
        image.name,
    )
    return replace(
        command,
        argv=(str(image.runtime.program), *arguments, *command.argv),
        env={name: command.env[name] for name in _OUTSIDE if name in command.env},
        container=container,
    )


def _user(image: Image) -> Iterator[str]:
    user, group = image.runtime.user
    yield f"--user={user}:{group}"
    if image.runtime.podman:
        # Otherwise SELinux, if it is enabled, would deny access to all mounts.
        yield "--security-opt=label=disable"
        if user != 0:
            yield "--userns=keep-id"


def _gpu(image: Image, device: str) -> Iterator[str]:
    """Yields the flag that gives a container a MIG instance or a GPU by its UUID: docker's, or podman's CDI device."""
    if image.runtime.podman:
        yield f"--device=nvidia.com/gpu={device}"
    else:
        yield f'--gpus="device={device}"'


def _mounts(image: Image, run_dir: Path, repository: Path) -> Iterator[str]:
    package = Path(jigsaw_triton.__file__).resolve().parent
    folders = {
        run_dir: run_dir,
        repository: repository,
        image.python: image.python,
        package: INSIDE / package.name,
        LIBRARY: (library := library_in(image.installation.backend_dir)),
        preload_beside(LIBRARY): preload_beside(library),
    }
    for outside, inside in folders.items():
        if ":" in str(outside):
            hint = "choose a state directory, or JIGSAW_CACHE, without one"
            raise InputError("a folder with a colon in its path cannot be mounted", where=str(outside), hint=hint)
        yield f"--volume={outside}:{inside}" + ("" if outside == run_dir else ":ro")
