import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence import journal_file, sqlite_file
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, SupersededError
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import GpuId, MigInstance, Placement
from tests.controller.disks import fill_disk, free_disk
from tests.waiting import WAIT_LIMIT_S

INSTANCE = MigInstance(GpuId("n", 1), Placement(4, "3g"), "MIG-1")

GARBAGE = b"not a database, and long enough to be looked at closely by SQLite" * 200


def filled(path: Path) -> Journal:
    """A journal with an instance, a checkpoint and an event."""
    journal = Journal(path)
    journal.keep_instance(INSTANCE)
    journal.keep_checkpoint("1", b"state")
    journal.event("plan", "one", 3)
    return journal


def without_pages(data: bytes) -> bytes:
    """The beginning of a file, as a crash of the machine may leave it."""
    return data[: len(data) // 2]


def with_zeros(data: bytes) -> bytes:
    """A file that has lost the contents of its tables, but not its header."""
    return data[:4096] + bytes(len(data) - 4096)


@pytest.mark.parametrize("damaged", [lambda _: GARBAGE, without_pages, with_zeros])
def test_a_damaged_file_is_moved_aside_at_the_start(tmp_path: Path, damaged: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "j"
    filled(path).close()
    damage = damaged(path.read_bytes())
    for number in (1, 2):
        path.write_bytes(damage)
        with pytest.raises(StateError, match="the journal cannot be read"), closing(JournalReader(path)) as reader:
            reader.events()
        with closing(Journal(path)) as journal:
            assert journal.instances() == () and journal.failure == ""
            (event,) = journal.events()
            assert event.text.startswith(f"the journal's file is damaged and was moved to {path}.damaged-{number};")
        assert Path(f"{path}.damaged-{number}").read_bytes() == damage


@pytest.mark.parametrize("damaged", [lambda _: GARBAGE, lambda _: b"", without_pages])
def test_a_file_that_is_damaged_while_it_is_open_is_written_anew(
    tmp_path: Path, damaged: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "j"
    with closing(filled(path)) as journal:
        journal.sync()
        path.write_bytes(damaged(path.read_bytes()))
        journal.sync()
        with closing(JournalReader(path)) as reader:
            assert reader.instances() == (INSTANCE,)
            assert reader.checkpoint() == ("1", b"state")
            assert [event.code for event in reader.events()] == [3, 0]
            assert reader.events()[-1].text.startswith("the journal's file is damaged and was moved to")
    assert Path(f"{path}.damaged-1").exists()


def test_a_table_that_is_missing_from_an_open_file_prevents_no_action(tmp_path: Path) -> None:
    with closing(filled(tmp_path / "j")) as journal:
        with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as other:
            other.execute("DROP TABLE actions")
        journal.end(journal.begin(1, "Solve", ""))
        assert journal.failure == ""
        with closing(JournalReader(tmp_path / "j")) as reader:
            assert reader.instances() == (INSTANCE,)


@pytest.mark.parametrize("ends", [("",), ("", "-wal", "-shm")])
def test_a_file_that_is_deleted_while_it_is_open_is_written_anew(tmp_path: Path, ends: tuple[str, ...]) -> None:
    path = tmp_path / "j"
    with closing(filled(path)) as journal:
        for end in ends:
            Path(f"{path}{end}").unlink()
        journal.sync()
        journal.event("ready", "two")
        with closing(JournalReader(path)) as reader:
            assert reader.instances() == (INSTANCE,)
            assert [event.text for event in reader.events()][::2] == ["one", "two"]
    assert path.stat().st_mode & 0o077 == 0


def log_header(path: Path) -> bytes:
    """Header of the write-ahead log. SQLite waits for the disk whenever it writes one, and only then."""
    return Path(f"{path}-wal").read_bytes()[:32]


def test_a_flush_makes_the_disk_have_all_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "j", list[bytes]()
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").read_bytes()))
    with closing(filled(path)) as journal:
        journal.flush()
        journal.event("plan", "written since")
        journal.flush()
        assert [b"written since" in log for log in synced] == [False, True]
        journal.flush()
        assert len(synced) == 2


@pytest.mark.parametrize("long", [False, True])
def test_no_change_after_a_flush_begins_the_log_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    path = tmp_path / "j"
    if long:
        monkeypatch.setattr(sqlite_file, "_LONG_LOG_BYTES", 0)
    with closing(filled(path)) as journal:
        for _ in range(3):
            before = log_header(path)
            journal.flush()
            flushed = log_header(path)
            assert (flushed != before) == long
            journal.event("plan", "one")
            assert log_header(path) == flushed


def test_a_flush_copies_a_long_log_into_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, log = tmp_path / "j", Path(f"{tmp_path / 'j'}-wal")
    monkeypatch.setattr(sqlite_file, "_LONG_LOG_BYTES", 2**18)
    with closing(filled(path)) as journal:
        journal.event("plan", "in a short log")
        journal.flush()
        assert b"in a short log" not in path.read_bytes()
        journal.keep_checkpoint("1", b"long" * 2**16)
        journal.flush()
        assert b"in a short log" in path.read_bytes()
        assert log.stat().st_size < 2**16
        begun = log_header(path)
        journal.event("plan", "one")
        journal.flush()
        assert log_header(path) == begun


def test_the_file_is_closed_after_a_flush_that_has_opened_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, go_on, open_meanwhile = threading.Event(), threading.Event(), list[bool]()
    connect = sqlite_file.connect

    def slow(path: Path) -> sqlite3.Connection:
        file = connect(path)
        opened.set()
        assert go_on.wait(WAIT_LIMIT_S)
        open_meanwhile.append(journal._opened is not None)
        return file

    journal = filled(tmp_path / "j")
    monkeypatch.setattr(sqlite_file, "_LONG_LOG_BYTES", 0)
    monkeypatch.setattr(sqlite_file, "connect", slow)
    flush, close = threading.Thread(target=journal.flush), threading.Thread(target=journal.close)
    flush.start()
    assert opened.wait(WAIT_LIMIT_S)
    close.start()
    close.join(0.2)
    go_on.set()
    flush.join(WAIT_LIMIT_S)
    close.join(WAIT_LIMIT_S)
    # The file stayed open meanwhile, since closing it would have released the locks of the flush.
    assert open_meanwhile == [True]
    assert not close.is_alive() and journal._opened is None


@pytest.mark.parametrize("damaged", [lambda _: GARBAGE, without_pages, None])
def test_a_flush_leaves_a_damaged_or_missing_file_to_the_next_sync(
    tmp_path: Path, damaged: Callable[[bytes], bytes] | None
) -> None:
    path = tmp_path / "j"
    with closing(filled(path)) as journal:
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged(path.read_bytes()))
        journal.flush()
        journal.sync()
        journal.event("ready", "two")
        journal.flush()
        with closing(JournalReader(path)) as reader:
            assert reader.instances() == (INSTANCE,)
            assert reader.events() == journal.events()


def test_a_full_disk_refuses_what_must_be_durable_and_nothing_else(tmp_path: Path) -> None:
    with closing(filled(tmp_path / "j")) as journal:
        fill_disk(journal)
        assert journal.failure == "cannot be written: No space left on device"
        other = replace(INSTANCE, uuid="MIG-2")
        for refused in (
            lambda: journal.keep_instance(other),
            lambda: journal.begin_creation(INSTANCE.gpu, INSTANCE.placement),
            lambda: journal.begin(1, "BringUp", "a"),
        ):
            with pytest.raises(StateError, match="the journal cannot be written: No space left on device"):
                refused()
        assert journal.instances() == (INSTANCE,) and journal.creations() == {}
        journal.keep_checkpoint("1", b"next")
        journal.forget_instance("MIG-1")
        assert journal.checkpoint() == ("1", b"next") and journal.instances() == ()
        alarms = [event.text for event in journal.events() if event.kind == "error"]
        assert len(alarms) == 1 and alarms[0].startswith("the journal cannot be written: No space left on device.")


def test_a_journal_is_complete_once_the_disk_has_room(tmp_path: Path) -> None:
    with closing(filled(tmp_path / "j")) as journal:
        fill_disk(journal)
        journal.keep_checkpoint("1", b"next")
        journal.sync()
        assert journal.failure
        free_disk(journal)
        journal.sync()
        assert journal.failure == ""
        with closing(JournalReader(tmp_path / "j")) as reader:
            assert reader.checkpoint() == ("1", b"next")
            assert reader.events() == journal.events()
            assert reader.events()[-1].text == "the journal is complete again"


def test_a_process_whose_epoch_is_over_changes_nothing_more(tmp_path: Path) -> None:
    seen: list[SupersededError] = []
    with closing(Journal(tmp_path / "j", seen.append)) as old:
        old.event("plan", "one")
        old.check_epoch()
        with closing(Journal(tmp_path / "j")) as new:
            changes: list[Callable[[], object]] = [
                old.check_epoch,
                old.sync,
                lambda: old.event("plan", "two"),
                lambda: old.begin(1, "Solve", ""),
                lambda: old.keep_checkpoint("1", b"old"),
                lambda: old.keep_instance(INSTANCE),
            ]
            for change in changes:
                with pytest.raises(
                    SupersededError, match=r"in epoch 2\..*, and this controller's epoch, 1\..*, is over"
                ):
                    change()
            assert len(seen) == len(changes)
            new.event("ready", "three")
        with closing(JournalReader(tmp_path / "j")) as reader:
            assert [event.text for event in reader.events()] == ["one", "three"]
            assert reader.checkpoint() == ("", b"") and reader.instances() == ()


def test_a_journal_that_a_successor_wrote_anew_is_not_taken_for_a_lost_one(tmp_path: Path) -> None:
    with closing(filled(tmp_path / "j")) as old:
        for path in tmp_path.iterdir():
            path.unlink()
        # The epochs of both files have the same number.
        with closing(Journal(tmp_path / "j")) as new:
            for change in (old.check_epoch, old.sync):
                with pytest.raises(SupersededError):
                    change()
            new.event("ready", "one")
        with closing(JournalReader(tmp_path / "j")) as reader:
            assert [event.text for event in reader.events()] == ["one"]


def test_an_epoch_begins_later_if_the_file_cannot_be_written_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(tmp_path / "j").close()
    before = epoch_of(tmp_path / "j")

    def connect_read_only(path: Path) -> sqlite3.Connection:
        found = connect(path)
        found.execute("PRAGMA query_only=ON")
        return found

    connect = sqlite_file.connect
    monkeypatch.setattr(journal_file, "connect", connect_read_only)
    with closing(Journal(tmp_path / "j")) as opened:
        assert opened.failure
        opened.check_epoch()
        assert epoch_of(tmp_path / "j") == before
        assert opened._file is not None
        opened._file.execute("PRAGMA query_only=OFF")
        opened.sync()
        opened.event("ready", "one")
        assert epoch_of(tmp_path / "j") != before


def epoch_of(path: Path) -> str:
    """Epoch that a journal's file is in."""
    with closing(JournalReader(path)) as reader:
        return reader.fact(EPOCH_FACT)
