import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api.wanted import read_wanted
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.recovery import essential, recovered
from jigsaw_triton.controller.core.rows import Count, Source
from jigsaw_triton.controller.core.state import Restarts, State
from jigsaw_triton.controller.persistence.checkpoint import (
    VERSION,
    Checkpoints,
    UnknownFormatError,
    _made,
    load,
    pickled,
)
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.errors import StateError
from jigsaw_triton.resources import applications_dir
from tests.controller.worlds import World, bundle, wanted, worker

WRITER = """
import sys
from itertools import count
from pathlib import Path

from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.checkpoint import Checkpoints
from jigsaw_triton.controller.persistence.journal import Journal

journal = Journal(Path(sys.argv[1]))
checkpoints = Checkpoints(journal)
large = "x" * 500_000


for number in count(1):
    checkpoints.save(State(error=large, next_id=number, restarts={}))
    print(number, flush=True)
    checkpoints.replace(checkpoints.renewed())
"""
"""Program that saves numbered states, prints the number of each, and then replaces it by a whole one."""

STORED = Path(__file__).parent / "checkpoint.pickle"
ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
TWO = bundle(2, [worker("0/2g@0", ("t0", "a"), generation=2), worker("1/1g@0", ("t1", "b"), generation=2)])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.sqlite")) as opened:
        yield opened


def deployed() -> State:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    return world.state


def changing() -> State:
    """State during a change that starts workers."""
    world = World({1: ONE, 2: TWO})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.BringUp)
    world.send(e.DeployRequested(wanted(20.0)))
    return world.state


def test_a_state_comes_back_equal_and_with_what_is_one_thing_as_one_thing(journal: Journal) -> None:
    state = deployed()
    Checkpoints(journal).save(replace(state, pending=state.running))
    found = load(journal)
    assert found is not None
    assert found == replace(state, pending=state.running)
    assert found.running is found.pending


def test_what_the_next_controller_does_not_need_is_not_written(journal: Journal) -> None:
    state, checkpoints = changing(), Checkpoints(journal)
    checkpoints.save(state)
    assert load(journal) == essential(state) != state
    before = journal.checkpoint()
    checkpoints.save(replace(state, stages=(), stage_ids=frozenset(), inflight=dict(state.inflight)))
    assert journal.checkpoint() == before
    checkpoints.save(replace(state, inflight={9: a.Retire(ONE.workers["n-0-1g-0"])}))
    found = load(journal)
    assert found is not None and found.inflight == {9: a.Retire(ONE.workers["n-0-1g-0"])}


def test_without_a_checkpoint_there_is_no_state(journal: Journal) -> None:
    assert load(journal) is None
    Checkpoints(journal).save(deployed())
    journal.forget_checkpoint()
    assert load(journal) is None


def test_measurements_alone_are_not_written(journal: Journal) -> None:
    state, checkpoints = deployed(), Checkpoints(journal)
    checkpoints.save(state)
    checkpoints.save(replace(state, now_s=5.0))
    assert load(journal) == state
    later = replace(state, now_s=5.0, restarts={})
    checkpoints.save(later)
    assert load(journal) == later


def test_what_was_learned_of_the_load_is_written_once_a_minute(journal: Journal) -> None:
    state, checkpoints = deployed(), Checkpoints(journal)
    checkpoints.save(state)
    burst = Demand()
    for second in range(120):
        rps = 500.0 if second % 20 == 7 else 5.0
        burst = burst.with_sample(Sample(state.now_s + second, rps), state.settings)
    assert burst.learned() != Demand()
    soon = replace(state, now_s=state.now_s + 59.0, demand={"app": burst})
    checkpoints.save(soon)
    assert load(journal) == state
    late = replace(soon, now_s=state.now_s + 60.0)
    checkpoints.save(late)
    assert load(journal) == essential(late) != late


def test_recent_arrivals_add_nothing_to_a_checkpoint(journal: Journal) -> None:
    state, checkpoints = deployed(), Checkpoints(journal)

    def added(rates_rps: list[float]) -> int:
        """Size of an addition to the checkpoint after arrivals at these rates, one a second."""
        nonlocal state
        before = len(journal.checkpoint()[1])
        demand = Demand()
        for second, rps in enumerate(rates_rps):
            demand = demand.with_sample(Sample(state.now_s + second, rps), state.settings)
        state = replace(state, paused=not state.paused, demand=dict.fromkeys(map(str, range(50)), demand))
        checkpoints.save(state)
        return len(journal.checkpoint()[1]) - before

    first = added([1.0])
    assert added([2.0]) == added([2.0, 3.0, 4.0]) < first / 20


@pytest.mark.parametrize("renews", [False, True])
def test_each_step_of_a_change_can_be_read(journal: Journal, renews: bool) -> None:
    checkpoints, world = Checkpoints(journal), World({1: ONE, 2: TWO})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda _: True
    world.send(e.DeployRequested(wanted(20.0)))
    steps = 0
    while world.held:
        checkpoints.save(world.state)
        renewed = checkpoints.renewed()
        world.end()
        checkpoints.save(world.state)
        if renews:
            checkpoints.replace(renewed)
        found = load(journal)
        assert found is not None and found == essential(world.state)
        assert (found.running is found.pending) == (world.state.running is world.state.pending)
        steps += 1
    assert steps > 5 and world.state.running is not None and world.state.running.bundle == TWO


def test_a_checkpoint_adds_what_is_new_until_a_whole_state_takes_its_place(journal: Journal) -> None:
    state, checkpoints = deployed(), Checkpoints(journal)
    checkpoints.save(state)
    whole = len(journal.checkpoint()[1])
    while not checkpoints.is_long:
        state = replace(state, restarts={})
        checkpoints.save(state)
        assert load(journal) == essential(state)
    long = journal.checkpoint()
    assert 2 * whole < len(long[1]) < 3 * whole
    renewed = checkpoints.renewed()
    assert journal.checkpoint() == long
    checkpoints.replace(renewed)
    assert load(journal) == essential(state)
    assert len(journal.checkpoint()[1]) < 1.5 * whole
    assert not checkpoints.is_long


@pytest.mark.parametrize("saves", [10, 37, 100])
def test_a_process_that_is_killed_leaves_its_last_checkpoint(tmp_path: Path, saves: int) -> None:
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(saves)]
        process.kill()
        written += [int(line) for line in process.stdout if line.endswith("\n")]
    with closing(JournalReader(path)) as reader:
        state = load(reader)
    # The process may be killed after a save and before the line that reports it.
    assert state is not None and state.next_id in (written[-1], written[-1] + 1)
    assert len(state.error) == 500_000


def test_an_earlier_whole_state_that_was_not_removed_is_ignored(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, checkpoints = deployed(), Checkpoints(journal)
    checkpoints.save(state)
    checkpoints.save(replace(state, paused=True))
    change = Journal._change

    def killed(self: Journal, statement: str, values: tuple[Any, ...]) -> None:
        if statement.startswith("DELETE"):
            raise KeyboardInterrupt
        change(self, statement, values)

    monkeypatch.setattr(Journal, "_change", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.replace(checkpoints.renewed())
    assert load(journal) == essential(replace(state, paused=True))


def test_a_checkpoint_of_an_unknown_format_is_refused(journal: Journal) -> None:
    journal.keep_checkpoint("0.0.1/1", pickled(deployed()))
    with pytest.raises(UnknownFormatError, match=r"was of release 0\.0\.1, whose state release .* cannot read"):
        load(journal)


def test_a_later_release_reads_a_checkpoint_of_the_same_format(journal: Journal) -> None:
    state = deployed()
    journal.keep_checkpoint(f"0.0.1/{VERSION.partition('/')[2]}", pickled(state))
    assert load(journal) == state


def test_a_stored_checkpoint_of_the_present_format_can_be_read(journal: Journal) -> None:
    # A change of the state that this release cannot read must raise the format, and renew the file.
    journal.keep_checkpoint(VERSION, STORED.read_bytes())
    state = load(journal)
    assert state is not None
    next_state = recovered(state)
    assert next_state is not None and next_state.running is not None
    assert next_state.running.bundle.workers.keys() == ONE.workers.keys()


@dataclass(frozen=True, slots=True)
class Thing:
    """Value of an earlier release: `one` was its only field."""

    one: int
    two: int = 2
    more: list[int] = field(default_factory=list)


def test_fields_that_a_checkpoint_lacks_get_their_defaults() -> None:
    assert _made((Thing, ("one",)), 1) == Thing(1)
    assert _made((Thing, ("two", "one")), 1, 2) == Thing(2, 1)
    for names, message in ((("one", "old"), "Thing has no field old"), ((), "Thing needs a field one")):
        with pytest.raises(pickle.UnpicklingError, match=message):
            _made((Thing, names), *names)


class Trap:
    """Pickles as a call of a function."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("data", [b"\x80", pickle.dumps("text"), pickle.dumps(deployed())[:-40]], ids=range(3))
def test_a_damaged_checkpoint_is_refused(journal: Journal, data: bytes) -> None:
    journal.keep_checkpoint(VERSION, data)
    with pytest.raises(StateError, match="checkpoint"):
        load(journal)


def test_what_a_module_has_imported_is_not_reached(journal: Journal, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    # A global with a dotted name (protocol 4), called with one argument.
    module, name = b"jigsaw_triton.servers.os_process", b"subprocess.Popen"
    data = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(text)]) + text for text in (module, name)) + b"\x93"
    data += pickle.dumps((["touch", str(mark)],), 0)[:-1] + b"R."
    journal.keep_checkpoint(VERSION, data)
    with pytest.raises(StateError, match="a state contains no"):
        load(journal)
    assert not mark.exists()


def test_nothing_in_a_checkpoint_is_called(journal: Journal, tmp_path: Path) -> None:
    journal.keep_checkpoint(VERSION, pickle.dumps(Trap(tmp_path / "mark")))
    with pytest.raises(StateError, match="a state contains no"):
        load(journal)
    assert not (tmp_path / "mark").exists()


def test_a_state_with_all_that_a_deployment_knows_comes_back(journal: Journal) -> None:
    state = deployed()
    assert state.wanted is not None
    folders = [str(applications_dir() / name) for name in ("docread", "digits-strip")]
    loaded = read_wanted(folders, gpus="2xcpu", demand={"docread": 1.0, "digits-strip": 1.0})
    full = replace(
        state,
        wanted=loaded,
        counts={Source("app", "t0", "v0", "ROWS"): Count(3.0, 2.0)},
        restarts={"gateway": Restarts((1.0,), cause="the gateway ended unexpectedly")},
        inflight={1: a.Flip("app", ONE.graphs["app"].front)},
    )
    Checkpoints(journal).save(full)
    found = load(journal)
    assert found is not None
    assert (found.counts, found.restarts, found.inflight) == (full.counts, full.restarts, full.inflight)
    assert found.wanted is not None
    assert found.wanted.graphs == loaded.graphs and found.wanted.cluster == loaded.cluster
    assert {n: t.rows() for n, t in found.wanted.profiles.items()} == {n: t.rows() for n, t in loaded.profiles.items()}
