import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.errors import MissingDependencyError, ServerError
from jigsaw_triton.servers.mps import MpsDaemon, end_processes, find_control, why_without
from tests.fakes import mps

UUID = "MIG-1"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Provides the folder of a daemon, and checks that no process uses its pipes at the end."""
    yield tmp_path / "d"
    assert end_processes(tmp_path / "d" / "pipes") == 0


def daemon(folder: Path, like: str = "") -> MpsDaemon:
    (control,) = mps.install(folder / "bin", like=like).iterdir()
    return MpsDaemon(control, UUID, folder / "pipes", folder / "logs")


def client(pipes: Path) -> subprocess.Popen[bytes]:
    """Starts a process that should compute through the daemon with these pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(pipes)},
    )


def environment_of(pid: Path) -> list[bytes]:
    """Returns the environment variables of the process whose id is in a file."""
    return Path(f"/proc/{int(pid.read_text())}/environ").read_bytes().split(b"\0")


def test_only_clients_of_the_daemon_are_listed(folder: Path) -> None:
    made = daemon(folder)

    async def main() -> None:
        await made.start()
        assert await made.clients() == frozenset()
        assert made.env["CUDA_MPS_PIPE_DIRECTORY"] == str(folder / "pipes")
        with client(folder / "pipes") as one, client(folder / "other") as other:
            assert await made.clients() == {one.pid}
            one.kill()
            other.kill()
        await made.stop()
        await made.stop()

    asyncio.run(main())
    assert not made.runs
    assert not (folder / "pipes").exists()


def test_the_daemon_gets_the_instance_in_its_environment(folder: Path) -> None:
    made = daemon(folder)

    async def main() -> None:
        await made.start()
        variables = await asyncio.to_thread(environment_of, folder / "pipes" / "nvidia-cuda-mps-control.pid")
        assert f"CUDA_VISIBLE_DEVICES={UUID}".encode() in variables
        assert f"CUDA_MPS_LOG_DIRECTORY={folder / 'logs'}".encode() in variables
        await made.stop()

    asyncio.run(main())


def test_a_daemon_that_does_not_start_is_reported_with_its_output(folder: Path) -> None:
    with pytest.raises(ServerError, match="ended before it answered; its log ends with:\n  Cannot create") as caught:
        asyncio.run(daemon(folder, "broken").start())
    assert caught.value.where == UUID
    assert not (folder / "pipes").exists()


def test_listing_the_clients_of_an_ended_daemon_is_an_error(folder: Path) -> None:
    made = daemon(folder)

    async def main() -> None:
        await made.start()
        await made.stop()
        (folder / "pipes").mkdir()
        with pytest.raises(ServerError, match="refused `get_server_list`: Cannot find MPS"):
            await made.clients()

    asyncio.run(main())


def test_a_daemon_that_hangs_does_not_answer_but_can_be_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = daemon(folder)

    async def main() -> None:
        await made.start()
        assert await made.answers()
        monkeypatch.setattr("jigsaw_triton.servers.mps._ANSWER_S", 0.1)
        os.kill(int((folder / "pipes" / "nvidia-cuda-mps-control.pid").read_text()), signal.SIGSTOP)
        assert made.runs and not await made.answers()
        await made.stop()

    asyncio.run(main())
    assert not made.runs


def test_a_daemon_can_be_stopped_without_its_program(folder: Path) -> None:
    made = daemon(folder)

    async def main() -> None:
        await made.start()
        (folder / "bin" / "nvidia-cuda-mps-control").unlink()
        with pytest.raises(ServerError, match="`get_server_list` cannot be sent to the MPS daemon"):
            await made.clients()
        await made.stop()

    asyncio.run(main())
    assert not made.runs


def test_only_processes_that_use_the_pipes_are_killed(folder: Path) -> None:
    with client(folder / "pipes") as one, client(folder / "pipes2") as other:
        assert end_processes(folder / "pipes") == 1
        assert one.wait(timeout=10) == -9
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    ("own", "holders", "clients", "reason"),
    [
        ({1, 2}, {2, 3}, {2, 3}, None),
        ({1, 2}, set(), {2}, None),
        ({1, 2}, {1, 2}, {2}, "its processes 1 compute on the slice without MPS"),
        ({1, 2}, {3}, {3}, "none of its processes computes through the MPS daemon"),
    ],
)
def test_a_server_that_computes_without_the_daemon_is_detected(
    own: set[int], holders: set[int], clients: set[int], reason: str | None
) -> None:
    assert why_without(own, holders, clients) == reason


def test_a_missing_mps_is_reported_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="not on PATH; it comes with NVIDIA's driver"):
        find_control()
    monkeypatch.setenv("PATH", str(mps.install(tmp_path / "bin")))
    assert find_control() == tmp_path / "bin" / "nvidia-cuda-mps-control"
