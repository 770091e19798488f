"""Graphs that join or leave a running deployment."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.api import daemon, membership
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.request import Request
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.checkpoint import Checkpoints
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import InputError, SpecError, StateError
from tests.controller.worlds import bundle, plan

Named = Callable[[str], Path]


@pytest.fixture
def both(named: Named) -> Wanted:
    """The input of a deployment of the graphs a and b."""
    graphs = (str(named("a")), str(named("b")))
    return Request(graphs, gpus="2xcpu", demand={"a": 20.0, "b": 30.0}, share=True, period_s=5.0).read()


def served(wanted: Wanted, rps: float = 50.0) -> Generation:
    one = plan(rps)
    return Generation(wanted, replace(one, graphs=dict.fromkeys(wanted.graphs, one.graphs["app"])), bundle(1, []))


def break_files(folder: Path) -> None:
    for name in ("graph.yaml", "profiles.csv"):
        (folder / name).write_text("no longer what was deployed")


def test_a_graph_joins_others_whose_files_are_not_read_again(both: Wanted, named: Named, tmp_path: Path) -> None:
    new = named("c")
    break_files(tmp_path / "a")
    request = Request((str(new),), joins=True, demand={"": 7.0}, target="bls")
    found = request.read(both)
    assert found.graphs == {**both.graphs, "c": found.graphs["c"]}
    assert found.graphs["c"].target == "bls"
    assert found.demand_rps == {"a": 20.0, "b": 30.0, "c": 7.0}
    assert found.profiles == {**both.profiles, "c": found.profiles["c"]}
    assert replace(found, graphs=both.graphs, demand_rps=both.demand_rps, profiles=both.profiles) == both


def test_a_request_to_add_may_change_the_gpus_and_the_demand_of_the_others(both: Wanted, named: Named) -> None:
    demand = {"a": 5.0, "c": 6.0}
    found = Request((str(named("c")),), joins=True, gpus="3xcpu", demand=demand).read(both)
    assert found.demand_rps == {"a": 5.0, "b": 30.0, "c": 6.0}
    assert len(found.cluster.gpus) == 3


def test_a_request_to_add_changes_only_the_settings_that_it_gives(both: Wanted, named: Named) -> None:
    found = Request((str(named("c")),), joins=True, objective="accuracy", share=False).read(both)
    assert (found.objective, found.share, found.period_s) == ("accuracy", False, 5.0)


def test_graphs_leave_and_the_others_stay_as_they_were_deployed(both: Wanted, tmp_path: Path) -> None:
    break_files(tmp_path / "a")
    found = Request((), leaving=("b",)).read(both)
    assert found == replace(
        both, graphs={"a": both.graphs["a"]}, demand_rps={"a": 20.0}, profiles={"a": both.profiles["a"]}
    )


def test_mistakes_in_the_change_of_a_deployment_are_reported(both: Wanted, named: Named, tmp_path: Path) -> None:
    again = Request((str(tmp_path / "a"), str(tmp_path / "b"), str(named("c"))), joins=True)
    with pytest.raises(SpecError, match="a graph named 'a' is deployed already; to change it") as caught:
        again.read(both)
    assert [d.file for d in caught.value.diagnostics] == [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(InputError, match="c: no graph of this name is deployed; deployed graphs: a, b"):
        Request((), leaving=("c",)).read(both)
    with pytest.raises(InputError, match="no graph would remain"):
        Request((), leaving=("a", "b")).read(both)
    with pytest.raises(SpecError, match="-1 is not a number of requests a second"):
        Request((str(tmp_path / "c"),), joins=True, demand={"a": -1.0}).read(both)


def test_the_controller_changes_what_serves_when_it_is_asked(both: Wanted, named: Named) -> None:
    request = Request((str(named("c")),), joins=True).to_json()
    asked = daemon.read(request, served(both))
    assert set(asked.wanted.graphs) == {"a", "b", "c"}
    assert asked.demand_rps == {"a": 50.0, "b": 50.0, "c": 1.0}
    assert asked.reason == "c added by the user"
    gone = daemon.read(Request((), leaving=("a",)).to_json(), served(both))
    assert (set(gone.wanted.graphs), gone.reason) == ({"b"}, "a removed by the user")
    assert gone.demand_rps == {"b": 50.0}
    with pytest.raises(StateError, match="no graph is served yet"):
        daemon.read(request, None)


def test_the_deployed_graphs_are_those_that_the_next_controller_would_serve(
    deployment: Deployment, journal: Journal, both: Wanted
) -> None:
    with pytest.raises(StateError, match="no graph is served yet"):
        membership.deployed(deployment.paths)
    Checkpoints(journal).save(State(running=served(both), wanted=replace(both, graphs={})))
    found = membership.deployed(deployment.paths).wanted
    assert replace(found, profiles=both.profiles) == both


def test_a_change_of_another_release_is_refused(deployment: Deployment) -> None:
    with closing(Journal(deployment.paths.journal)) as journal:
        journal.keep_checkpoint("9.9.9/1000", b"state")
    with pytest.raises(StateError, match=r"was of release 9\.9\.9"):
        membership.deployed(deployment.paths)
