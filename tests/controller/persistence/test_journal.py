import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence import journal
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, SupersededError
from jigsaw_triton.controller.persistence.journal import KEPT, Journal, JournalReader, Revision
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import CreationStage, GpuId, MigInstance, Placement
from tests.controller.disks import fill_disk, free_disk

INSTANCE = MigInstance(GpuId("n", 1), Placement(4, "3g"), "MIG-1")


def test_records_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    first = Journal(path)
    first.keep_instance(INSTANCE)
    first.keep_fact("driver", "nvml")
    first.event("plan", "one")
    first.event("ready", "two")
    first.generation(7, "user", "requested by the user", {"version": 1})
    first.close()
    again = Journal(path)
    assert again.instances() == (INSTANCE,)
    assert again.fact("driver") == "nvml"
    assert [(x.kind, x.text) for x in again.events()] == [("plan", "one"), ("ready", "two")]
    assert [x.text for x in again.events(after=again.events()[0].id)] == ["two"]
    assert again.last_generation() == 7
    again.forget_instance("MIG-1")
    assert again.instances() == ()
    again.close()


def test_only_the_owner_can_read_the_journal(tmp_path: Path) -> None:
    Journal(tmp_path / "j").close()
    assert (tmp_path / "j").stat().st_mode & 0o077 == 0


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


def test_the_journal_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in KEPT:
        monkeypatch.setitem(KEPT, table, 100)
    journal = Journal(tmp_path / "j")
    journal.keep_instance(INSTANCE)
    for number in range(1, 1000):
        journal.event("plan", str(number))
        journal.end(journal.begin(number, "Solve", ""))
        journal.generation(number, "user", "requested by the user", {})
    with closing(sqlite3.connect(tmp_path / "j")) as file:
        counts = [file.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in KEPT]
    assert all(100 <= count < 200 for count in counts)
    assert 100 <= len(journal.events()) < 200
    assert journal.events()[-1].text == "999"
    assert journal.last_generation() == 999
    assert journal.instances() == (INSTANCE,)
    journal.close()


def test_generations_of_a_journal_without_outcomes_stay_in_the_history(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as old:
        old.execute("CREATE TABLE generations (number INTEGER PRIMARY KEY, at TEXT, reason TEXT, plan TEXT)")
        old.execute("INSERT INTO generations VALUES (4, '2026-01-01', 'requested by the user', '{\"slices_used\": 3}')")
        old.execute("PRAGMA user_version=5")
    with closing(Journal(tmp_path / "j")) as journal:
        assert journal.generations() == (Revision(4, "2026-01-01", "user", "requested by the user", 3, 0, ""),)
        assert journal.generation_state(4) == ("", b"")
        assert journal.last_generation() == 4


def test_actions_of_a_journal_without_nodes_were_carried_out_by_the_controllers_own(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as old:
        old.execute(
            "CREATE TABLE actions (id INTEGER PRIMARY KEY, number INTEGER, kind TEXT, subject TEXT, begun TEXT, "
            "ended TEXT, error TEXT)"
        )
        old.execute("INSERT INTO actions VALUES (1, 1, 'BringUp', 'n-0-1g-0', '2026-01-01', NULL, NULL)")
        old.execute("PRAGMA user_version=6")
    with closing(Journal(tmp_path / "j")) as journal:
        journal.begin(2, "BringUp", "n-0-1g-1", "n")
    with closing(sqlite3.connect(tmp_path / "j")) as file:
        assert file.execute("SELECT subject, node FROM actions").fetchall() == [
            ("n-0-1g-0", "local"),
            ("n-0-1g-1", "n"),
        ]


def test_creations_of_a_journal_without_stages_count_as_whole(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as old:
        old.execute("CREATE TABLE creations (node TEXT, gpu INTEGER, slice TEXT, start INTEGER)")
        old.execute("INSERT INTO creations VALUES ('n', 0, '3g', 4)")
        old.execute("PRAGMA user_version=3")
    with closing(Journal(tmp_path / "j")) as journal:
        place = (GpuId("n", 0), Placement(4, "3g"))
        assert journal.creations() == {place: CreationStage.WHOLE}
        journal.reach(*place, CreationStage.PART)
        assert journal.creations() == {place: CreationStage.PART}
        journal.end_creation(*place)
        assert journal.creations() == {}


def test_a_checkpoint_consists_of_the_last_whole_state_and_what_follows(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "j")) as journal:
        for whole in (b"one", b"two"):
            journal.keep_checkpoint("1", whole)
            for added in (b"+a", b"+b"):
                journal.extend_checkpoint(added)
            assert journal.checkpoint() == ("1", whole + b"+a+b")
    with closing(Journal(tmp_path / "j")) as journal:
        assert journal.checkpoint() == ("1", b"two+a+b")
        journal.forget_checkpoint()
        assert journal.checkpoint() == ("", b"")


def test_the_checkpoint_of_a_journal_with_one_row_for_it_stays(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as old:
        old.execute("CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), version TEXT, state BLOB)")
        old.execute("INSERT INTO checkpoint VALUES (1, '0.1/5', x'6f6c64')")
        old.execute("PRAGMA user_version=7")
    for _ in range(2):
        with closing(Journal(tmp_path / "j")) as journal:
            assert journal.checkpoint() == ("0.1/5", b"old")


def test_many_events_are_added_in_order(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "j")) as journal:
        journal.event("plan", "before")
        journal.add_events([("diff", str(number), number) for number in range(2500)])
        journal.add_events([])
    with closing(JournalReader(tmp_path / "j")) as reader:
        first, *others = reader.events(limit=5000)
        assert first.text == "before"
        assert [(x.kind, x.text, x.code) for x in others] == [("diff", str(n), n) for n in range(2500)]


def test_a_remark_is_added_to_the_reason_of_a_generation(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        for number in (1, 2):
            journal.generation(number, "user", "requested by the user", {"version": 1})
        journal.annotate(2, "canary promoted: it is good")
        assert [r.reason for r in journal.generations()] == [
            "requested by the user",
            "requested by the user; canary promoted: it is good",
        ]


# --- epochs -----------------------------------------------------------------------------------------------------------


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

    connect = journal._connect
    monkeypatch.setattr(journal, "_connect", connect_read_only)
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
