import sqlite3
from contextlib import closing
from pathlib import Path

from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import Revision
from jigsaw_triton.gpus.model import CreationStage, GpuId, Placement


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


def test_the_checkpoint_of_a_journal_with_one_row_for_it_stays(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as old:
        old.execute("CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), version TEXT, state BLOB)")
        old.execute("INSERT INTO checkpoint VALUES (1, '0.1/5', x'6f6c64')")
        old.execute("PRAGMA user_version=7")
    for _ in range(2):
        with closing(Journal(tmp_path / "j")) as journal:
            assert journal.checkpoint() == ("0.1/5", b"old")


def test_the_states_of_generations_in_a_journal_with_columns_for_them_stay(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as old:
        old.execute(
            "CREATE TABLE generations (number INTEGER PRIMARY KEY, at TEXT, reason TEXT, plan TEXT, by TEXT, "
            "outcome TEXT, version TEXT, state BLOB)"
        )
        old.execute("INSERT INTO generations VALUES (4, '2026', 'load', '{}', 'load', 'replaced', '0.1/6', x'6f6c64')")
        old.execute("INSERT INTO generations VALUES (3, '2026', 'load', '{}', 'load', 'failed', '', NULL)")
        old.execute("PRAGMA user_version=8")
    for _ in range(2):
        with closing(Journal(tmp_path / "j")) as journal:
            assert journal.generation_state(4) == ("0.1/6", b"old")
            assert journal.generation_state(3) == ("", b"")
            assert [revision.outcome for revision in journal.generations()] == ["failed", "replaced"]


def test_a_reader_leaves_a_journal_of_an_earlier_release_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.execute("CREATE TABLE generations (number INTEGER PRIMARY KEY, at TEXT, reason TEXT, plan TEXT)")
        old.execute("INSERT INTO generations VALUES (4, '2026-01-01', 'requested by the user', '{}')")
        old.execute("CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), version TEXT, state BLOB)")
        old.execute("INSERT INTO checkpoint VALUES (1, '0.1/5', x'6f6c64')")
        old.execute("PRAGMA user_version=7")
        before = list(old.iterdump())
        with closing(JournalReader(tmp_path / "j")) as reader:
            assert reader.checkpoint() == ("0.1/5", b"old")
            assert reader.generations() == (Revision(4, "2026-01-01", "user", "requested by the user", 0, 0, ""),)
            assert reader.last_generation() == 4
        assert list(old.iterdump()) == before
        assert old.execute("PRAGMA user_version").fetchone() == (7,)
