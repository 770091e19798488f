import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError, MissingDependencyError, ServerError
from jigsaw_triton.gpus.gateway import ServerImage
from jigsaw_triton.servers.command import worker_command
from jigsaw_triton.servers.container import in_container
from jigsaw_triton.servers.image import (
    Container,
    end_container,
    end_containers,
    find_image,
    find_runtime,
    pull_image,
)
from jigsaw_triton.servers.process import ServerProcess, group_members
from tests.fakes.docker import Docker

IMAGE = ServerImage("triton:24.10-py3")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    docker = Docker(tmp_path / "docker", IMAGE.name, "bare", "empty", "old", "snakeless")
    monkeypatch.setenv("PATH", f"{docker.folder}{os.pathsep}{os.environ['PATH']}")
    return docker


def test_the_content_of_an_image_is_inspected(docker: Docker, cache: Path) -> None:
    image = find_image(IMAGE)
    assert image.runtime.program == docker.program
    installation = image.installation
    assert installation.backends == {"python", "onnxruntime", "jigsaw"}
    assert installation.env["LD_PRELOAD"] == "/opt/tritonserver/backends/jigsaw/libjigsaw_private.so"
    assert (installation.version, installation.origin) == ("2.51.0", "image")
    assert installation.env["PATH"] == f"{image.python}/bin:/opt/tritonserver/bin:/usr/bin"
    assert installation.env["JIGSAW_PACKAGES"] == "/usr/lib/python3"
    assert (image.python / "bin" / "python3").readlink() == Path("/usr/bin/python3")
    (path_file,) = image.python.glob("lib/python3.10/site-packages/jigsaw.pth")
    assert path_file.read_text().splitlines()[0] == "/opt/jigsaw-triton"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "cannot be inspected: Error response from daemon: No such image: absent; run docker pull absent"),
        ("bare", "no tritonserver with a Python backend at /opt/tritonserver"),
        ("empty", "no tritonserver with a Python backend at /opt/tritonserver"),
        ("snakeless", r"has no python3, but models need 3\.10 or later"),
        ("old", r"has Python 3\.8, but models need 3\.10 or later"),
    ],
)
def test_an_unsuitable_image_is_refused(docker: Docker, cache: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_image(ServerImage(name))


@pytest.mark.slow
def test_an_image_is_pulled_once(docker: Docker) -> None:
    assert not pull_image(IMAGE)
    assert pull_image(ServerImage("other"))
    assert not pull_image(ServerImage("other"))
    with pytest.raises(InputError, match=r"cannot be pulled: .*manifest unknown"):
        pull_image(ServerImage("missing"))


def test_the_runtime_is_docker_or_podman_or_the_requested_one(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    podman = Docker(tmp_path / "podman", program="podman")
    monkeypatch.setenv("PATH", str(podman.folder))
    assert find_runtime().podman
    with pytest.raises(MissingDependencyError, match="needs docker, which is not on PATH"):
        find_runtime("docker")
    monkeypatch.setenv("PATH", f"{podman.folder}{os.pathsep}{docker.folder}")
    assert not find_runtime().podman
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match="needs docker or podman, which is not on PATH"):
        find_runtime()


def left(docker: Docker, name: str, deployment: str) -> None:
    """Starts a container and kills the program that shows its output."""
    label = f"--label=jigsaw-triton.deployment={deployment}"
    command = [str(docker.program), "run", f"--name={name}", label, IMAGE.name, "/bin/sleep", "600"]
    with subprocess.Popen(command) as program:
        while name not in docker.containers():
            time.sleep(0.01)
        program.kill()


@pytest.mark.slow
def test_containers_are_ended_by_name_and_by_deployment(docker: Docker) -> None:
    for name, deployment in (("a", "/run/1"), ("b", "/run/1"), ("c", "/run/1"), ("d", "/run/10")):
        left(docker, name, deployment)
    runtime = find_runtime()
    end_container(Container(runtime, "a"))
    end_container(Container(runtime, "a"))
    assert docker.containers() == ["b", "c", "d"]
    assert end_containers(runtime, "/run/1") == 2
    assert end_containers(runtime, "/run/1") == 0
    assert docker.containers() == ["d"]
    end_container(Container(runtime, "d"))


def test_a_failure_to_list_containers_is_an_error(docker: Docker) -> None:
    docker.program.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    with pytest.raises(ServerError, match="cannot be listed: Cannot connect"):
        end_container(Container(find_runtime(), "a"))


@pytest.mark.e2e
def test_the_life_cycle_of_a_server_in_a_container(docker: Docker, run_dir: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    image = find_image(IMAGE)
    plain = worker_command(
        image.installation,
        name="a-0-1g-0",
        repository=repository,
        run_dir=run_dir,
        secret="0123456789abcdef",
        device="MIG-1",
    )
    command = in_container(plain, image, run_dir=run_dir, repository=repository, gpu=False)
    assert command.container is not None
    name = command.container.name

    async def main() -> None:
        server = ServerProcess("a-0-1g-0", command, run_dir / "a.log")
        await server.start()
        assert docker.containers() == [name]
        first = server.pid
        assert first is not None
        assert (await asyncio.to_thread(Path(f"/proc/{first}/comm").read_text)).strip() == "tritonserver"
        # The program that shows the container's output dies, but the container runs until it is stopped.
        server.kill()
        assert await server.wait() == -signal.SIGKILL
        assert docker.containers() == [name]
        await server.stop()
        assert docker.containers() == [] and group_members(first) == []
        again = ServerProcess("a-0-1g-0", command, run_dir / "a.log")
        await again.start()
        await again.stop(grace_s=20.0)
        assert again.returncode == 0
        assert docker.containers() == []

    asyncio.run(main())
