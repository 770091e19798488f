import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.drain import drained


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


def clock(step_s: float = 1.0) -> Callable[[], float]:
    """A clock that advances by `step_s` with each reading."""
    seconds = iter(range(1000))
    return lambda: next(seconds) * step_s


def test_an_unlocked_file_is_drained_at_once(tmp_path: Path) -> None:
    with drained(tmp_path / "slots" / "w" / "m", 0.0) as ended:
        assert ended


@pytest.mark.parametrize("kind", [fcntl.F_WRLCK, fcntl.F_RDLCK])
def test_draining_waits_for_the_gateways_lock(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "w" / "m"
    gateway = Gateway(path, kind)
    with drained(path, 5.0, clock(), lambda _: None) as ended:
        assert not ended
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            gateway.lock(fcntl.F_UNLCK)

    with drained(path, 100.0, clock(), sleep) as ended:
        assert ended and len(naps) == 3
        with pytest.raises(BlockingIOError):
            gateway.lock(kind)
    gateway.lock(kind)
    gateway.close()


def test_a_gateway_that_has_ended_holds_no_lock(tmp_path: Path) -> None:
    Gateway(tmp_path / "m", fcntl.F_WRLCK).close()
    with drained(tmp_path / "m", 0.0) as ended:
        assert ended
