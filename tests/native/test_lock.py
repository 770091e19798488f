"""Locks on files that have users: when they are taken, kept and released."""

from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.drain import locked
from tests.native.parts import KeptLocks

KEPT_MS = 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slots" / "w" / "m"


def is_locked(path: Path) -> bool:
    with locked(path) as free:
        return not free


def test_a_file_is_locked_once_for_users_that_follow_each_other(path: Path) -> None:
    users = KeptLocks().users(path)
    assert users.add(1000) == "locked"
    assert users.add(1000) == "added"
    for now_ms in range(1000, 1000 + KEPT_MS):
        users.remove(now_ms)
        users.remove(now_ms)
        assert is_locked(path)
        assert users.add(now_ms) == users.add(now_ms) == "added"


def test_a_lock_without_users_is_released_when_its_time_is_over(path: Path) -> None:
    locks = KeptLocks()
    users = locks.users(path)
    users.add(1000)
    users.remove(1004)
    assert locks.due_ms == 1000 + KEPT_MS
    assert locks.release(1005) == 1000 + KEPT_MS
    assert is_locked(path)
    assert locks.release(1000 + KEPT_MS) is None
    assert not is_locked(path)
    assert users.add(1011) == "locked"


def test_a_lock_with_users_is_released_after_the_last_one(path: Path) -> None:
    locks = KeptLocks()
    users = locks.users(path)
    users.add(1000)
    users.remove(1001)
    users.add(1002)
    assert locks.release(1000 + KEPT_MS) is None
    assert is_locked(path)
    users.remove(1500)
    assert not is_locked(path)
    users.add(2000)
    users.remove(2001)
    assert locks.due_ms == 2000 + KEPT_MS
    assert locks.release(2000 + KEPT_MS) is None
    assert not is_locked(path)


def test_each_lock_has_a_time_of_its_own(tmp_path: Path) -> None:
    locks = KeptLocks()
    paths = [tmp_path / "slots" / "w" / name for name in "ab"]
    first, second = (locks.users(path) for path in paths)
    first.add(1000)
    second.add(1003)
    first.remove(1004)
    second.remove(1004)
    assert locks.release(1000 + KEPT_MS) == 1003 + KEPT_MS
    assert [is_locked(path) for path in paths] == [False, True]
    assert locks.release(1003 + KEPT_MS) is None
    assert [is_locked(path) for path in paths] == [False, False]


def test_what_is_gone_has_no_lock(path: Path) -> None:
    locks = KeptLocks()
    users = locks.users(path)
    users.add(1000)
    users.remove(1001)
    del users
    assert not is_locked(path)
    assert locks.release(1002) is None


def test_no_user_is_added_while_another_process_holds_the_lock(path: Path) -> None:
    users = KeptLocks().users(path)
    with locked(path) as free:
        assert free
        assert users.add(1000) == "refused"
    assert users.add(1001) == "locked"


def test_a_deleted_file_is_locked_anew_when_the_time_of_the_old_lock_is_over(path: Path) -> None:
    """A lock on a deleted file would exclude nobody."""
    locks = KeptLocks()
    users = locks.users(path)
    users.add(1000)
    users.remove(1001)
    path.unlink()
    locks.release(1000 + KEPT_MS)
    assert users.add(1011) == "locked"
    assert is_locked(path)
