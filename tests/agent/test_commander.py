from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.agent.commander import Commander
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import StateError


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        yield journal


def test_a_later_epoch_ends_the_one_before(journal: Journal) -> None:
    commander = Commander(journal)
    commander.admit("d", "1.a", workers=1, standby=False)
    commander.admit("d", "2.b", workers=1, standby=False)
    commander.admit("d", "2.b", workers=1, standby=False)
    for epoch in ("1.a", "2.c"):
        with pytest.raises(StateError, match=f"epoch, {epoch}, is over: another one has begun epoch 2.b"):
            Commander(journal).admit("d", epoch, workers=1, standby=False)
    assert commander.to_json()["epoch"] == "2.b"


def test_another_deployment_gets_a_node_once_nothing_is_left_there(journal: Journal) -> None:
    commander = Commander(journal)
    commander.admit("d", "5.a", workers=0, standby=False)
    with pytest.raises(StateError, match="another deployment with 2 workers;"):
        commander.admit("other", "1.a", workers=2, standby=False)
    with pytest.raises(StateError, match="with 0 workers and a standby gateway;") as caught:
        commander.admit("other", "1.a", workers=0, standby=True)
    assert "jigsaw-triton down --state DIR" in caught.value.hint
    commander.admit("other", "1.a", workers=0, standby=False)
    found = commander.to_json()
    assert (found["deployment"], found["epoch"]) == ("other", "1.a")


def test_a_fence_is_that_of_the_present_deployment(journal: Journal) -> None:
    commander = Commander(journal)
    commander.admit("d", "7.b", workers=0, standby=False)
    assert commander.fence == ""
    commander.keep_fence("7.b", "other")
    assert Commander(journal).fence == "7.b"
    assert commander.to_json()["fenced_by"] == "other"
    commander.admit("another", "1.a", workers=0, standby=False)
    assert (commander.fence, commander.to_json()["fenced_by"]) == ("", "")
