import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.controller.journal import KEPT, Journal, ServerRecord
from jigsaw_triton.controller.paths import deployment_paths
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.model import CreationStage, GpuId, MigInstance, Placement

INSTANCE = MigInstance(GpuId("n", 1), Placement(4, "3g"), "MIG-1")


def test_records_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    first = Journal(path)
    first.keep_instance(INSTANCE)
    first.keep_server(ServerRecord("gateway", 4711, 99, "jigsaw-x-"))
    first.event("plan", "one")
    first.event("ready", "two")
    first.generation(7, "requested by the user", {"version": 1})
    first.close()
    again = Journal(path)
    assert again.instances() == (INSTANCE,)
    assert again.servers() == (ServerRecord("gateway", 4711, 99, "jigsaw-x-"),)
    assert [(x.kind, x.text) for x in again.events()] == [("plan", "one"), ("ready", "two")]
    assert [x.text for x in again.events(after=again.events()[0].id)] == ["two"]
    assert again.last_generation() == 7
    again.forget_instance("MIG-1")
    again.forget_server("gateway")
    assert again.instances() == () and again.servers() == ()
    again.close()


def test_only_the_owner_can_read_the_journal(tmp_path: Path) -> None:
    Journal(tmp_path / "j").close()
    assert (tmp_path / "j").stat().st_mode & 0o077 == 0


def test_a_file_that_is_not_a_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("not a database, and long enough to be looked at closely by SQLite" * 20)
    with pytest.raises(StateError, match="cannot be read"):
        Journal(tmp_path / "j")


def test_folders_are_private_to_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    paths = deployment_paths(tmp_path / "state")
    paths.create()
    assert paths.state.stat().st_mode & 0o077 == 0
    paths.run.chmod(0o755)
    with pytest.raises(InputError, match="open to other users"):
        paths.create()


def test_a_state_folder_that_triton_cannot_use_is_not_created(tmp_path: Path) -> None:
    state = tmp_path / "my state"
    with pytest.raises(InputError, match="cannot use a folder with ' ' in its path"):
        deployment_paths(state).create()
    assert not state.exists()


def test_two_deployments_do_not_share_folders(tmp_path: Path) -> None:
    assert deployment_paths(tmp_path / "a").run != deployment_paths(tmp_path / "b").run


def test_the_error_names_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written") as caught:
        deployment_paths(tmp_path / "file" / "state").create()
    assert str(tmp_path / "file" / "state") in str(caught.value)


def test_a_full_disk_allows_reads_and_refuses_writes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.event("plan", "one", 3)
    journal.keep_instance(INSTANCE)
    journal._db.execute("PRAGMA query_only=ON")  # SQLite refuses every change, as it does on a full disk.
    with pytest.raises(StateError, match="cannot be written"):
        journal.event("ready", "two")
    journal.forget_instance("MIG-1")
    assert [(event.text, event.code) for event in journal.events()] == [("one", 3)]
    assert journal.instances() == (INSTANCE,)
    journal.close()


def test_the_journal_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in KEPT:
        monkeypatch.setitem(KEPT, table, 100)
    journal = Journal(tmp_path / "j")
    journal.keep_instance(INSTANCE)
    for number in range(1, 1000):
        journal.event("plan", str(number))
        journal.end(journal.begin(number, "Solve", ""))
        journal.generation(number, "requested by the user", {})
    count = journal._db.execute("SELECT COUNT(*) FROM actions").fetchone()[0]
    assert 100 <= count < 200
    assert 100 <= len(journal.events()) < 200
    assert journal.events()[-1].text == "999"
    assert journal.last_generation() == 999
    assert journal.instances() == (INSTANCE,)
    journal.close()


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
