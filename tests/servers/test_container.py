from dataclasses import replace
from pathlib import Path

import pytest

import jigsaw_triton
from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.command import Command, gateway_command, worker_command
from jigsaw_triton.servers.container import in_container
from jigsaw_triton.servers.image import Container, Image, Runtime
from jigsaw_triton.servers.installation import Installation

NAME = "nvcr.io/nvidia/tritonserver:24.10-py3"
PYTHON = Path("/cache/interpreters/inside-python3.10-1")
SECRET = "0123456789abcdef"
RUN, REPOSITORY = Path("/run/jigsaw/1"), Path("/state/repositories/workers/a-0-1g-0")
IMAGE = Image(
    NAME,
    Runtime(Path("/usr/bin/docker"), (1000, 1001)),
    Installation(
        binary=Path("/opt/tritonserver/bin/tritonserver"),
        backend_dir=Path("/opt/tritonserver/backends"),
        backends=frozenset({"python", "onnxruntime", "jigsaw"}),
        version="2.51.0",
        origin="image",
        env={"PATH": f"{PYTHON}/bin:/usr/bin"},
    ),
    PYTHON,
)
PACKAGE = Path(jigsaw_triton.__file__).parent


def worker(device: str = "MIG-1") -> Command:
    return worker_command(
        IMAGE.installation,
        name="a-0-1g-0",
        repository=REPOSITORY,
        run_dir=RUN,
        secret=SECRET,
        device=device,
        mps={"CUDA_MPS_PIPE_DIRECTORY": "/run/jigsaw/1/mps/a-0-1g-0"},
    )


def contained(image: Image = IMAGE, *, gpu: bool = True, mps: bool = True) -> Command:
    return in_container(worker(), image, run_dir=RUN, repository=REPOSITORY, gpu=gpu, mps=mps)


def test_the_whole_command_of_docker() -> None:
    name = worker().shm_prefix.rstrip("-")
    assert contained().argv == (
        "/usr/bin/docker",
        "run",
        "--rm",
        "--pull=never",
        f"--name={name}",
        "--label=jigsaw-triton.deployment=/run/jigsaw/1",
        "--network=host",
        "--ipc=host",
        "--pid=host",
        "--user=1000:1001",
        '--gpus="device=MIG-1"',
        "--volume=/run/jigsaw/1:/run/jigsaw/1",
        f"--volume={REPOSITORY}:{REPOSITORY}:ro",
        f"--volume={PYTHON}:{PYTHON}:ro",
        f"--volume={PACKAGE}:/opt/jigsaw-triton/jigsaw_triton:ro",
        f"--volume={PACKAGE}/_native/libtriton_jigsaw.so:/opt/tritonserver/backends/jigsaw/libtriton_jigsaw.so:ro",
        f"--volume={PACKAGE}/_native/libjigsaw_private.so:/opt/tritonserver/backends/jigsaw/libjigsaw_private.so:ro",
        f"--volume={PACKAGE}/servers/listener:/opt/tritonserver/backends/jigsaw/listener:ro",
        f"--env=PATH={PYTHON}/bin:/usr/bin",
        "--env=CUDA_VISIBLE_DEVICES=MIG-1",
        "--env=JIGSAW_RUN_DIR=/run/jigsaw/1",
        "--env=JIGSAW_CALL_SOCKET=/run/jigsaw/1/workers/a-0-1g-0.sock",
        "--env=JIGSAW_SECRET",
        "--env=CUDA_MPS_PIPE_DIRECTORY=/run/jigsaw/1/mps/a-0-1g-0",
        "--log-driver=none",
        NAME,
        *worker().argv,
    )
    assert worker().argv[0] == "/opt/tritonserver/bin/tritonserver"


def test_only_under_mps_does_a_container_share_the_hosts_process_ids() -> None:
    assert "--pid=host" not in contained(mps=False).argv


def test_the_secret_is_not_on_the_command_line_of_docker() -> None:
    plain = gateway_command(
        IMAGE.installation,
        repository=REPOSITORY,
        run_dir=RUN,
        secret=SECRET,
        address="127.0.0.1",
        http_port=8000,
        grpc_port=8001,
        metrics_port=8002,
    )
    command = in_container(plain, IMAGE, run_dir=RUN, repository=REPOSITORY, gpu=False)
    assert not any(SECRET in argument for argument in command.argv)
    assert "--env=JIGSAW_SECRET" in command.argv
    assert command.env["JIGSAW_SECRET"] == SECRET


def test_podman_differs_in_user_and_device() -> None:
    podman = replace(IMAGE, runtime=Runtime(Path("/usr/bin/podman"), (1000, 1000)))
    argv = contained(podman).argv
    assert argv[:2] == ("/usr/bin/podman", "run")
    assert {"--device=nvidia.com/gpu=MIG-1", "--userns=keep-id", "--security-opt=label=disable"} <= set(argv)
    assert not any(argument.startswith("--gpus") for argument in argv)
    root = replace(IMAGE, runtime=Runtime(Path("/usr/bin/podman"), (0, 0)))
    assert "--userns=keep-id" not in contained(root).argv


def test_an_emulated_instance_is_no_device_but_its_holder_is_visible() -> None:
    command = contained(gpu=False)
    assert not any(argument.startswith(("--gpus", "--device")) for argument in command.argv)
    assert command.env == {"CUDA_VISIBLE_DEVICES": "MIG-1", "JIGSAW_SECRET": SECRET}


def test_addresses_do_not_depend_on_the_container() -> None:
    command, plain = contained(), worker()
    assert command.container == Container(IMAGE.runtime, plain.shm_prefix.rstrip("-"))
    assert (command.address, command.sockets, command.shm_prefix) == (plain.address, plain.sockets, plain.shm_prefix)


def test_a_folder_that_cannot_be_mounted_is_refused() -> None:
    with pytest.raises(InputError, match="/state:1: a folder with a colon in its path cannot be mounted"):
        in_container(worker(), IMAGE, run_dir=RUN, repository=Path("/state:1"), gpu=True)
