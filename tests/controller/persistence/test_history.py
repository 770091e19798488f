from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.step import step
from jigsaw_triton.controller.persistence.history import earlier, keep, outcomes
from jigsaw_triton.controller.persistence.journal import RESTORABLE, Journal
from jigsaw_triton.controller.persistence.records import Outcome
from jigsaw_triton.errors import StateError
from tests.controller.worlds import ONE, TWO, World, generation, wanted


class Observed(World):
    """A world that collects the outcomes of generations."""

    def collect(self, event: e.Event) -> list[tuple[int, Outcome]]:
        found: list[tuple[int, Outcome]] = []
        queue = [event]
        while queue:
            before = self.state
            self.state, outputs = step(before, queue.pop(0))
            found += outcomes(before, self.state)
            queue += [self.outcome(output) for output in outputs if isinstance(output, a.Issued)]
        return found


def test_a_generation_serves_until_another_replaces_it_or_the_deployment_is_taken_down() -> None:
    world = Observed({1: ONE, 2: TWO})
    assert world.collect(e.DeployRequested(wanted())) == [(1, "serves")]
    assert world.collect(e.DeployRequested(wanted(20.0))) == [(1, "replaced"), (2, "serves")]
    assert world.collect(e.DownRequested()) == [(2, "stopped")]


def test_a_generation_that_cannot_be_reached_has_failed() -> None:
    world = Observed({1: ONE, 2: TWO})
    world.collect(e.DeployRequested(wanted()))
    world.fault = lambda action: "no such weights" if isinstance(action, a.BringUp) else ""
    assert world.collect(e.DeployRequested(wanted(20.0))) == [(2, "failed")]


def test_a_plan_that_runs_already_changes_nothing() -> None:
    world = Observed({1: ONE, 2: replace(ONE, generation=2)})
    world.collect(e.DeployRequested(wanted()))
    assert world.collect(e.DeployRequested(wanted(10.0))) == [(2, "unchanged")]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "journal.db")
    yield found
    found.close()


def kept(journal: Journal, *served: Outcome) -> None:
    """Records generations with these outcomes, numbered from 1."""
    for number, outcome in enumerate(served, 1):
        made = generation(replace(ONE, generation=number), 10.0 * number)
        keep(journal, made, f"change {number}", by_load=number == 2)
        journal.conclude(number, outcome)


def test_the_history_has_who_why_and_how_it_ended(journal: Journal) -> None:
    kept(journal, "replaced", "failed", "serves")
    assert [(r.number, r.by, r.reason, r.slices, r.slices_total, r.outcome) for r in journal.generations()] == [
        (1, "user", "change 1", 2, 14, "replaced"),
        (2, "load", "change 2", 2, 14, "failed"),
        (3, "user", "change 3", 2, 14, "serves"),
    ]
    assert [r.number for r in journal.generations(2)] == [2, 3]


def test_an_earlier_generation_is_found_as_it_was(journal: Journal) -> None:
    kept(journal, "replaced", "replaced", "failed", "serves")
    assert earlier(journal, 4, None) == generation(replace(ONE, generation=2), 20.0)
    assert earlier(journal, 4, 1).wanted.demand_rps == {"app": 10.0}


@pytest.mark.parametrize(
    ("number", "message"),
    [(3, "generation 3 is unknown, or never served"), (4, "already serves"), (9, "generation 9 is unknown")],
)
def test_a_generation_that_cannot_be_returned_to_is_refused(journal: Journal, number: int, message: str) -> None:
    kept(journal, "replaced", "replaced", "failed", "serves")
    with pytest.raises(StateError, match=message):
        earlier(journal, 4, number)


def test_without_an_earlier_generation_there_is_no_rollback(journal: Journal) -> None:
    kept(journal, "serves")
    with pytest.raises(StateError, match="no generation served before"):
        earlier(journal, 1, None)


def test_only_the_latest_generations_can_be_returned_to(journal: Journal) -> None:
    outcomes_: list[Outcome] = ["replaced"] * (RESTORABLE + 1)
    kept(journal, *outcomes_, "serves")
    assert earlier(journal, RESTORABLE + 2, 3).bundle.generation == 3
    with pytest.raises(StateError, match="no longer kept"):
        earlier(journal, RESTORABLE + 2, 2)


def test_the_history_outlives_the_controller(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.db")
    kept(first, "replaced", "serves")
    first.close()
    second = Journal(tmp_path / "journal.db")
    assert earlier(second, 2, None).bundle.generation == 1
    second.close()
