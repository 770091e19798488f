"""The commands `history`, `rollback`, `pause` and `resume`, without servers."""

import json
from pathlib import Path

import pytest

from jigsaw_triton.cli.commands import rollback
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import deployment_paths
from tests.cli.conftest import Run
from tests.fakes.controller import FakeController


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder of a deployment with two generations."""
    paths = deployment_paths(tmp_path / "state")
    paths.create()
    journal = Journal(paths.journal)
    plan = {"slices_used": 3, "slices_total": 14}
    journal.generation(1, "user", "requested by the user", plan)
    journal.conclude(1, "replaced")
    journal.generation(2, "load", "measured load: words receives 9/s", plan)
    journal.close()
    return paths.state


def test_the_history_is_a_table(run: Run, state: Path) -> None:
    result = run("history", "--state", state)
    assert result.exit_code == 0
    header, first, second = (line.split() for line in result.stdout.splitlines())
    assert header == ["generation", "at", "by", "slices", "outcome", "reason"]
    assert (first[0], first[3:]) == ("1", ["user", "3", "of", "14", "replaced", "requested", "by", "the", "user"])
    assert second[3:10] == ["load", "3", "of", "14", "in", "progress", "measured"]


def test_the_history_as_json(run: Run, state: Path) -> None:
    document = json.loads(run("history", "--state", state, "-o", "json").stdout)
    assert [(g["number"], g["outcome"], g["slices"]) for g in document["generations"]] == [
        (1, "replaced", 3),
        (2, "", 3),
    ]


@pytest.mark.parametrize("command", ["history", "rollback", "pause", "resume"])
def test_where_nothing_is_deployed_there_is_nothing_to_operate(run: Run, tmp_path: Path, command: str) -> None:
    result = run(command, "--state", tmp_path / "none")
    assert result.exit_code == 4
    assert "deploy" in result.stderr


def test_a_rollback_waits_for_its_end(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeController().install(monkeypatch)
    fake.running = True
    monkeypatch.setattr(rollback, "status_view", lambda *_: ["the status"])
    assert run("rollback", "--state", tmp_path / "state").stdout == "the status\n"
    assert run("rollback", "3", "--no-wait", "--state", tmp_path / "state").stdout == ""
    assert fake.rollbacks == [None, 3]


def test_a_rollback_that_fails_says_why(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeController("no slice is free").install(monkeypatch)
    fake.running = True
    result = run("rollback", "--state", tmp_path / "state")
    assert result.exit_code == 1
    assert "no slice is free" in result.stderr


def test_a_rollback_that_ends_a_canary_succeeds(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeController("canary: rolled back: requested by the user").install(monkeypatch)
    fake.running = fake.canary = True
    monkeypatch.setattr(rollback, "status_view", lambda *_: ["the status"])
    result = run("rollback", "--state", tmp_path / "state")
    assert (result.exit_code, result.stdout) == (0, "the status\n")


@pytest.mark.parametrize("generation", ["0", "-1", "last"])
def test_a_generation_is_a_positive_number(run: Run, tmp_path: Path, generation: str) -> None:
    assert run("rollback", "--state", tmp_path / "state", "--", generation).exit_code == 2


def test_a_pause_lasts_until_resume(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeController().install(monkeypatch)
    fake.running = True
    assert json.loads(run("pause", "--state", tmp_path / "state", "-o", "json").stdout) == {"paused": True}
    assert fake.paused
    assert "follows the measured load" in run("resume", "--state", tmp_path / "state").stdout
    assert not fake.paused
