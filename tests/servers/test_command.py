from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError, MissingDependencyError
from jigsaw_triton.servers.command import (
    Command,
    gateway_command,
    gateway_sockets,
    shm_prefix,
    with_input_limit,
    worker_command,
)
from jigsaw_triton.servers.installation import Installation

INSTALLATION = Installation(
    binary=Path("/t/bin/tritonserver"),
    backend_dir=Path("/t/backends"),
    backends=frozenset({"python", "jigsaw"}),
    version="2.51.0",
    origin="package",
    env={"LD_LIBRARY_PATH": "/t/lib", "PATH": "/t/python/bin:/usr/bin"},
)
SECRET = "0123456789abcdef"


def worker(**changes: object) -> Command:
    options: dict[str, object] = {
        "name": "a-0-2g-4",
        "repository": Path("/run/j/workers/a-0-2g-4"),
        "run_dir": Path("/run/j"),
        "secret": SECRET,
        "device": None,
    }
    return worker_command(INSTALLATION, **(options | changes))  # type: ignore[arg-type]


def test_the_command_of_a_worker_without_a_gpu() -> None:
    command = worker()
    assert command.argv == (
        "/t/bin/tritonserver",
        "--id=a-0-2g-4",
        "--model-repository=/run/j/workers/a-0-2g-4",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        "--backend-directory=/t/backends",
        "--backend-config=python,shm-region-prefix-name=jigsaw-97cc94c6592d-a-0-2g-4-",
        "--http-restricted-api=@/run/j/workers/a-0-2g-4.restriction",
        "--grpc-restricted-protocol=@/run/j/workers/a-0-2g-4.restriction",
        "--allow-gpu-metrics=false",
        "--allow-cpu-metrics=false",
        "--exit-timeout-secs=30",
        "--log-format=ISO8601",
        "--http-address=unix:/run/j/workers/a-0-2g-4.sock",
        "--metrics-address=unix:/run/j/workers/a-0-2g-4.metrics.sock",
        "--grpc-address=unix:/run/j/workers/a-0-2g-4.grpc",
        "--grpc-port=1",
        "--pinned-memory-pool-byte-size=0",
    )
    assert command.env == {
        "LD_LIBRARY_PATH": "/t/lib",
        "PATH": "/t/python/bin:/usr/bin",
        "CUDA_VISIBLE_DEVICES": "",
        "JIGSAW_RUN_DIR": "/run/j",
    }
    assert command.address == "/run/j/workers/a-0-2g-4.sock"
    assert command.metrics_address == "/run/j/workers/a-0-2g-4.metrics.sock"
    assert command.grpc_address == "unix:/run/j/workers/a-0-2g-4.grpc:1"
    assert command.ports == ()


def test_a_worker_sees_only_its_mig_instance() -> None:
    command = worker(device="MIG-4fa1", shared=True, exit_timeout_s=60)
    assert command.env["CUDA_VISIBLE_DEVICES"] == "MIG-4fa1"
    added = set(command.argv) - set(worker().argv)
    assert added == {
        "--pinned-memory-pool-byte-size=33554432",
        "--cuda-memory-pool-byte-size=0:33554432",
        "--rate-limit=execution_count",
        "--exit-timeout-secs=60",
    }


def gateway(installation: Installation, *, behind_edge: bool = False) -> Command:
    return gateway_command(
        installation,
        repository=Path("/run/j/gateway"),
        run_dir=Path("/run/j"),
        secret=SECRET,
        address="0.0.0.0",
        http_port=8000,
        grpc_port=8001,
        metrics_port=8002,
        behind_edge=behind_edge,
    )


def test_a_server_needs_the_compiled_backend() -> None:
    with pytest.raises(MissingDependencyError, match="the compiled backend is not built") as caught:
        gateway(replace(INSTALLATION, backends=frozenset({"python"})))
    assert "make setup" in caught.value.hint


def test_the_command_of_a_gateway() -> None:
    command = gateway(INSTALLATION)
    assert command.argv[-9:] == (
        "--http-address=0.0.0.0",
        "--http-port=8000",
        "--grpc-address=0.0.0.0",
        "--grpc-port=8001",
        "--http-header-forward-pattern=(?i)trace(parent|state)",
        "--grpc-header-forward-pattern=(?i)trace(parent|state)",
        "--metrics-address=0.0.0.0",
        "--metrics-port=8002",
        "--pinned-memory-pool-byte-size=0",
    )
    assert "--http-restricted-api=@/run/j/gateway.restriction" in command.argv
    assert command.file_content == f"model-repository,shared-memory,trace,logging:x-jigsaw-secret={SECRET}"
    assert command.env["JIGSAW_RUN_DIR"] == "/run/j"
    assert command.env["CUDA_VISIBLE_DEVICES"] == ""
    assert command.address == "http://127.0.0.1:8000"
    assert command.metrics_address == "http://127.0.0.1:8002"
    assert command.ports == (("0.0.0.0", 8000), ("0.0.0.0", 8001), ("0.0.0.0", 8002))
    assert command.sockets == ()


def test_a_gateway_behind_the_edge_has_no_ports_for_clients() -> None:
    command = gateway(INSTALLATION, behind_edge=True)
    http, grpc = gateway_sockets(Path("/run/j"))
    assert f"--http-address=unix:{http}" in command.argv
    # Triton appends the port to the path.
    assert f"--grpc-address=unix:{grpc}" == f"{command.argv[command.argv.index('--grpc-port=8001') - 1]}:8001"
    assert command.address == str(http)
    assert command.sockets == (http, grpc)
    assert command.ports == (("0.0.0.0", 8002),)
    assert command.metrics_address == "http://127.0.0.1:8002"


@pytest.mark.parametrize(("version", "known"), [("2.51.0", False), ("2.60.1", True), ("3.0", True), ("unknown", False)])
def test_releases_with_an_input_limit_get_a_larger_one(version: str, known: bool) -> None:
    command = with_input_limit(worker(), version)
    assert ("--http-max-input-size=1073741824" in command.argv) == known


def test_neither_the_arguments_nor_the_repr_contain_the_secret() -> None:
    for command in (worker(), gateway(INSTALLATION)):
        assert SECRET not in repr(command)
        assert not any(SECRET in argument for argument in command.argv)


def test_a_secret_cannot_change_the_meaning_of_an_argument() -> None:
    with pytest.raises(ValueError, match="secret"):
        worker(secret="abc:statistics=0123456789")


def test_a_socket_path_that_is_too_long_is_refused() -> None:
    folder = Path("/run") / ("x" * 80)
    with pytest.raises(InputError, match="may have at most 107 bytes, but this one has 115") as caught:
        worker(run_dir=folder)
    assert "shorter" in caught.value.hint


@pytest.mark.parametrize("name", ["my models", "$(touch x)", "a;b", "it's"])
def test_a_folder_with_characters_special_to_a_shell_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="in its path") as caught:
        worker(repository=Path("/state", name))
    assert caught.value.where == f"/state/{name}"
    worker(repository=Path("/home/jürgen/a-b_c.d+e"))


def test_no_prefix_of_a_server_matches_another_server() -> None:
    run = Path("/run/j")
    assert not shm_prefix(run, "a-0-1g-1").startswith(shm_prefix(run, "a-0-1g"))
    assert not shm_prefix(run, "a-0-1g-10").startswith(shm_prefix(run, "a-0-1g-1"))
    assert shm_prefix(run, "a") != shm_prefix(Path("/run/k"), "a")


def test_a_worker_under_mps_gets_the_folders_of_its_daemon() -> None:
    command = worker(device="MIG-1", mps={"CUDA_MPS_PIPE_DIRECTORY": "/run/mps"})
    assert command.env["CUDA_MPS_PIPE_DIRECTORY"] == "/run/mps"
    assert command.env["CUDA_VISIBLE_DEVICES"] == "MIG-1"


@pytest.mark.parametrize(
    ("device_mib", "pool_mib"), [(None, 32), (1024, 32), (4864, 76), (9728, 152), (40192, 512), (180_000, 512)]
)
def test_the_pools_of_a_worker_are_a_share_of_the_memory_of_its_slice(device_mib: int | None, pool_mib: int) -> None:
    command = worker(device="MIG-1", device_mib=device_mib)
    assert f"--pinned-memory-pool-byte-size={pool_mib * 2**20}" in command.argv
    assert f"--cuda-memory-pool-byte-size=0:{pool_mib * 2**20}" in command.argv
