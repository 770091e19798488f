import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.schema import MOST_ROWS
from jigsaw_triton.gpus.model import GpuId, MigInstance, Placement

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


def test_the_journal_has_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in MOST_ROWS:
        monkeypatch.setitem(MOST_ROWS, table, 100)
    journal = Journal(tmp_path / "j")
    journal.keep_instance(INSTANCE)
    for number in range(1, 1000):
        journal.event("plan", str(number))
        journal.end(journal.begin(number, "Solve", ""))
        journal.generation(number, "user", "requested by the user", {})
    with closing(sqlite3.connect(tmp_path / "j")) as file:
        counts = [file.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in MOST_ROWS]
    assert all(100 <= count < 200 for count in counts)
    assert 100 <= len(journal.events()) < 200
    assert journal.events()[-1].text == "999"
    assert journal.last_generation() == 999
    assert journal.instances() == (INSTANCE,)
    journal.close()


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
