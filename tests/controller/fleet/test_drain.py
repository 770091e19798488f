import asyncio
import fcntl
import os
import struct
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.drain import drained, locked
from tests.waiting import WAIT_LIMIT_S


class Gateway:
    """Locks a file's first byte, as a front of the gateway does.

    Args:
        path: File to lock.
        kind: Kind of the lock: F_WRLCK for calls in flight, F_RDLCK for the use of a route.
    """

    def __init__(self, path: Path, kind: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        self.lock(kind)

    def lock(self, kind: int) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 1, 0))

    def close(self) -> None:
        os.close(self._file)


def test_an_unlocked_file_is_drained_at_once(tmp_path: Path) -> None:
    assert asyncio.run(drained(tmp_path / "slots" / "w" / "m", 0.0))


@pytest.mark.parametrize("kind", [fcntl.F_WRLCK, fcntl.F_RDLCK])
def test_draining_waits_for_the_gateways_lock(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "w" / "m"
    gateway = Gateway(path, kind)

    async def main() -> None:
        assert not await drained(path, 0.02)
        waiting = asyncio.create_task(drained(path, WAIT_LIMIT_S))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        gateway.lock(fcntl.F_UNLCK)
        assert await waiting

    asyncio.run(main())
    gateway.close()


def test_the_gateway_uses_nothing_that_is_locked(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "m", fcntl.F_UNLCK)
    with locked(tmp_path / "m") as unused:
        assert unused
        with pytest.raises(BlockingIOError):
            gateway.lock(fcntl.F_WRLCK)
    gateway.lock(fcntl.F_WRLCK)
    with locked(tmp_path / "m") as unused:
        assert not unused
    gateway.close()


def test_a_gateway_that_has_ended_holds_no_lock(tmp_path: Path) -> None:
    Gateway(tmp_path / "m", fcntl.F_WRLCK).close()
    assert asyncio.run(drained(tmp_path / "m", 0.0))
