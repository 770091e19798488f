import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.servers import process as process_module
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.process import ServerProcess, Stub, group_members, python_stubs, sweep
from tests.waiting import until

SECRET = "0123456789abcdef"
PREFIX = f"jigsaw-test-{os.getpid()}-"


def process(
    run_dir: Path, script: str, *, ports: tuple[tuple[str, int], ...] = (), found: OsProcess | None = None
) -> ServerProcess:
    """Returns a server process that runs a shell script, so that nothing ever listens on its socket."""
    http = run_dir / "t.sock"
    command = Command(
        argv=("/bin/sh", "-c", script),
        env={"GREETING": "hello"},
        address=str(http),
        metrics_address="",
        grpc_address="",
        sockets=(http,),
        ports=ports,
        shm_prefix=PREFIX,
        secret=SECRET,
        argument_file=run_dir / "t.restriction",
    )
    return ServerProcess("a-0-1g-0", command, run_dir / "t.log", found=found)


def test_an_early_exit_is_reported_with_the_end_of_the_log(run_dir: Path) -> None:
    (run_dir / "t.log").write_text("an earlier run\n")
    server = process(run_dir, "echo $GREETING; echo no backend >&2; exit 3")
    with pytest.raises(ServerError) as caught:
        asyncio.run(server.start())
    assert caught.value.message == (
        "tritonserver exited with status 3 before it was ready; its log ends with:\n  hello\n  no backend"
    )
    assert caught.value.where == "a-0-1g-0"
    assert str(run_dir / "t.log") in caught.value.hint


def test_a_server_that_is_not_ready_in_time_leaves_nothing(run_dir: Path) -> None:
    server = process(run_dir, f"sleep 60 & touch /dev/shm/{PREFIX}region; echo started; wait")
    with pytest.raises(ServerError, match=r"not ready within 0\.3 s"):
        asyncio.run(server.start(timeout_s=0.3))
    assert_nothing_left(server)


def test_a_cancelled_start_leaves_nothing(run_dir: Path) -> None:
    server = process(run_dir, f"sleep 60 & touch /dev/shm/{PREFIX}region; wait")

    async def main() -> None:
        start = asyncio.create_task(server.start())
        await until(lambda: any(path.name.startswith(PREFIX) for path in Path("/dev/shm").iterdir()))
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    asyncio.run(main())
    assert_nothing_left(server)


def test_a_server_that_ignores_sigterm_is_killed(run_dir: Path) -> None:
    server = process(run_dir, f"trap '' TERM; touch {run_dir}/ready; while :; do sleep 1; done")

    async def main() -> None:
        start = asyncio.create_task(server.start())
        await until(lambda: (run_dir / "ready").exists())
        await server.stop(grace_s=0.1)
        with pytest.raises(ServerError, match="signal 9"):
            await start
        await server.stop()  # A second call does nothing.

    asyncio.run(main())
    assert server.returncode == -9
    assert_nothing_left(server)


def test_a_stop_waits_for_an_earlier_one_that_was_cancelled(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the earlier one would remove the sockets of the next server."""
    looks: list[int] = []

    def members(group: int) -> list[int]:
        # At the first look, the processes of the server have not ended yet.
        looks.append(group)
        return [group] if len(looks) == 1 else []

    monkeypatch.setattr(process_module, "group_members", members)

    async def main() -> None:
        server = process(run_dir, "", found=OsProcess.spawn(("/bin/sleep", "60"), output=subprocess.DEVNULL))
        earlier = asyncio.create_task(server.stop())
        await until(lambda: bool(looks))
        earlier.cancel()
        await server.stop()
        (run_dir / "t.sock").touch()
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert (run_dir / "t.sock").exists()


def test_nothing_is_started_if_a_port_is_in_use(run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = process(run_dir, "exit 3", ports=(("127.0.0.1", listener.getsockname()[1]),))
        with pytest.raises(InputError, match="is already in use by"):
            asyncio.run(server.start())
    assert server.pid is None
    assert not (run_dir / "t.log").exists()


def test_a_socket_that_another_server_listens_on_is_kept(run_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(run_dir / "t.sock"))
        listener.listen()
        with pytest.raises(InputError, match="another server listens on this socket"):
            asyncio.run(process(run_dir, "exit 3").start())
    assert (run_dir / "t.sock").exists()


def test_the_socket_of_a_killed_server_is_removed(run_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(run_dir / "t.sock"))
    with pytest.raises(ServerError, match="status 3"):
        asyncio.run(process(run_dir, "exit 3").start())
    assert not (run_dir / "t.sock").exists()


def test_a_file_at_the_path_of_a_socket_is_kept(run_dir: Path) -> None:
    (run_dir / "t.sock").write_text("precious")
    with pytest.raises(InputError, match="is not a socket"):
        asyncio.run(process(run_dir, "exit 3").start())
    assert (run_dir / "t.sock").read_text() == "precious"


def test_only_the_regions_of_one_server_are_swept() -> None:
    mine, other = (Path("/dev/shm") / f"{prefix}{os.getpid()}-x" for prefix in ("jigsaw-mine-", "jigsaw-other-"))
    for path in (mine, other):
        path.touch()
    try:
        sweep("jigsaw-mine-")
        assert not mine.exists()
        assert other.exists()
    finally:
        other.unlink()
    with pytest.raises(ValueError, match="too short"):
        sweep("")


def assert_nothing_left(server: ServerProcess) -> None:
    assert server.pid is not None
    assert group_members(server.pid) == []
    assert not [path for path in Path("/dev/shm").iterdir() if path.name.startswith(server.command.shm_prefix)]
    assert not any(path.exists() for path in (*server.command.sockets, server.command.argument_file))


def test_only_the_owner_can_read_the_secret_and_only_while_the_server_starts(run_dir: Path) -> None:
    file = run_dir / "t.restriction"
    file.write_text("of a controller that was killed")
    file.chmod(0o644)
    server = process(run_dir, f"stat -c %a {file}; cat {file}; exit 3")
    with pytest.raises(ServerError, match=rf"\n  600\n  .*:x-jigsaw-secret={SECRET}"):
        asyncio.run(server.start())
    assert_nothing_left(server)


def test_a_dead_process_of_a_model_shows_its_exit_status(tmp_path: Path) -> None:
    model = tmp_path / "m" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("import os, signal, sys\nsys.stdin.read()\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with subprocess.Popen([sys.executable, model], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        while not (stub := python_stubs({os.getpid()}).get(child.pid)):
            pass
        assert stub == Stub(os.getpid(), "m", None)
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert python_stubs({os.getpid()})[child.pid] == Stub(os.getpid(), "", -11)
