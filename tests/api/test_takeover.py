"""The controller's state on another machine: what is missing there is said before anything is written."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.takeover import take_over
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import ChangeRequest, Wanted
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.persistence.checkpoint import Checkpoints, load
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, number_of
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.journal_file import JournalFile
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import CONTROLLER_EPOCH_FACT, STANDBY_GATEWAY_FACT
from jigsaw_triton.controller.persistence.state_copy import copied
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.gateway import Edge, GatewayPorts, StandbyGateway
from jigsaw_triton.gpus.model import Agents
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.certificates.credentials import CONTROLLER
from tests.controller.worlds import GRAPH, World, bundle, wanted, worker

ONE = bundle(1, [worker("0/1g@0", ("t0", "a"))])


@pytest.fixture(autouse=True)
def not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts no controller."""
    monkeypatch.setattr(Deployment, "adopt", lambda *_, **__: True)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Folder with the controller's certificates."""
    create_authority(tmp_path / "certificates", "test")
    issue(tmp_path / "certificates", CONTROLLER)
    return tmp_path / "certificates" / CONTROLLER


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """State folder of an agent that has obeyed a controller of epoch 7."""
    folder = tmp_path / "agent"
    (folder / "contents").mkdir(parents=True)
    with closing(Journal(folder / "journal.sqlite")) as journal:
        journal.keep_fact(CONTROLLER_EPOCH_FACT, "7.a")
    return folder


def give_copy(agent: Path, state: State) -> None:
    """Gives an agent the copy of a controller's state."""
    with closing(Journal(agent.parent / "lost.sqlite")) as journal:
        Checkpoints(journal).save(state)
        journal.keep_fact("deployment", "d")
        copy = copied(journal)
    digest = sha256(copy).hexdigest()
    (agent / "contents" / digest).write_bytes(copy)
    with closing(Journal(agent / "journal.sqlite")) as journal:
        journal.keep_fact(STANDBY_GATEWAY_FACT, json.dumps({"state": digest}))


def asked(edge: Edge | None = None) -> Wanted:
    """Input of a deployment with a standby gateway."""
    one = wanted()
    agents = Agents((("a", "10.0.0.1:7440"),), "/lost")
    cluster = replace(one.cluster, agents=agents, standby_gateway=StandbyGateway("a", "10.0.0.1"), edge=edge)
    return replace(one, cluster=cluster)


def deployed(edge: Edge | None = None) -> State:
    """State of a controller whose cluster has a standby gateway."""
    world = World({1: ONE})
    world.send(e.DeployRequested(asked(edge)))
    assert world.state.running is not None
    return world.state


def test_the_state_goes_on_with_a_later_epoch_and_without_the_standby(
    agent: Path, certificates: Path, tmp_path: Path
) -> None:
    give_copy(agent, deployed())
    take_over(agent, state=tmp_path / "here", certificates=certificates)
    with closing(JournalReader(deployment_paths(tmp_path / "here").journal)) as journal:
        assert journal.fact("deployment") == "d" and journal.fact(EPOCH_FACT) == "7.a"
        state = load(journal)
    assert state is not None and state.running is not None
    cluster = state.running.wanted.cluster
    assert cluster.standby_gateway is None
    assert cluster.gateway == replace(GatewayPorts(), address="10.0.0.1")
    assert cluster.agents is not None and cluster.agents.certificates == str(certificates)
    with closing(Journal(deployment_paths(tmp_path / "here").journal)) as journal:
        assert number_of(journal.fact(EPOCH_FACT)) == 8


def test_a_request_that_was_being_carried_out_is_for_this_machine_too(
    agent: Path, certificates: Path, tmp_path: Path
) -> None:
    state = deployed()
    give_copy(agent, replace(state, phase=Phase.SOLVING, pending=state.running, asked=ChangeRequest(asked())))
    take_over(agent, state=tmp_path / "here", certificates=certificates)
    with closing(JournalReader(deployment_paths(tmp_path / "here").journal)) as journal:
        found = load(journal)
    assert found is not None and found.running is not None and found.asked is not None
    assert found.asked.wanted.cluster == found.running.wanted.cluster
    assert found.pending is found.running


def test_missing_certificates_and_files_of_the_edge_are_named(agent: Path, certificates: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    give_copy(agent, deployed(Edge(api_keys=str(keys))))
    with pytest.raises(InputError, match=r"/lost: the controller's certificates are missing here; .*--certificates"):
        take_over(agent, state=tmp_path / "here")
    with pytest.raises(InputError, match=r"files of the edge are missing here: .*keys\.txt"):
        take_over(agent, state=tmp_path / "here", certificates=certificates)
    assert not (tmp_path / "here").exists()


def test_a_journal_that_cannot_be_written_is_an_error_and_leaves_nothing(
    agent: Path, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_copy(agent, deployed())

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(JournalFile, "_check_epoch", fail)
        with pytest.raises(StateError, match="the journal cannot be written: database or disk is full"):
            take_over(agent, state=tmp_path / "here", certificates=certificates)
    paths = deployment_paths(tmp_path / "here")
    assert not [path for path in paths.state.iterdir() if "journal" in path.name]
    take_over(agent, state=tmp_path / "here", certificates=certificates)


def test_the_copies_of_model_files_are_those_that_the_agent_has_got(
    agent: Path, certificates: Path, tmp_path: Path
) -> None:
    state, name = deployed(), sha256(b"weights").hexdigest()
    assert state.running is not None
    graphs = {"app": replace(GRAPH, samples={"X": Path(name)})}
    give_copy(agent, replace(state, running=replace(state.running, wanted=replace(asked(), graphs=graphs))))
    with pytest.raises(InputError, match="1 of 1 model files have not arrived; copy them from the folder `contents`"):
        take_over(agent, state=tmp_path / "here", certificates=certificates)
    assert not (tmp_path / "here").exists()
    (agent / "contents" / name).write_bytes(b"weights")
    take_over(agent, state=tmp_path / "here", certificates=certificates)
    assert (tmp_path / "here" / "contents" / name).read_bytes() == b"weights"
    with pytest.raises(StateError, match="there is a deployment in this folder already"):
        take_over(agent, state=tmp_path / "here", certificates=certificates)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_deploy_is_repeated_only_if_its_model_files_have_arrived(
    agent: Path, certificates: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, arrived: bool
) -> None:
    state, name = deployed(), sha256(b"weights").hexdigest()
    graphs = {"app": replace(GRAPH, samples={"X": Path(name)})}
    request = ChangeRequest(replace(asked(), graphs=graphs))
    give_copy(agent, replace(state, phase=Phase.SOLVING, pending=state.running, asked=request))
    if arrived:
        (agent / "contents" / name).write_bytes(b"weights")
    take_over(agent, state=tmp_path / "here", certificates=certificates)
    with closing(JournalReader(deployment_paths(tmp_path / "here").journal)) as journal:
        found = load(journal)
    assert found is not None and (found.asked is not None) == arrived
    assert (tmp_path / "here" / "contents" / name).is_file() == arrived
    assert ("the last deploy is not repeated" in caplog.text) != arrived


def test_a_copy_of_a_controller_that_served_nothing_is_refused(agent: Path, tmp_path: Path) -> None:
    give_copy(agent, State())
    with pytest.raises(StateError, match="nothing was served when the controller was lost"):
        take_over(agent, state=tmp_path / "here")


def test_an_agent_without_a_copy_is_refused(agent: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="this agent has no copy of a controller's state"):
        take_over(agent, state=tmp_path / "here")
    with pytest.raises(StateError, match="there is no agent in this folder"):
        take_over(tmp_path / "nothing", state=tmp_path / "here")
