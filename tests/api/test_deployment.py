"""Deployments, without tritonservers."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import jigsaw_triton as jt
from jigsaw_triton.api import controller, files
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.request import Request
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import take_lock
from jigsaw_triton.controller.persistence.records import REPLACED_FACT
from jigsaw_triton.errors import InputError, JigsawError, StateError
from tests.cli.conftest import Run
from tests.fakes import controller as controllers
from tests.fakes.controller import FakeController

# --- starting -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_controller_that_another_process_has_just_started_is_left_alone(deployment: Deployment) -> None:
    take_lock(deployment.paths.lock)
    with pytest.raises(StateError, match="another deploy is under way"):
        controller.start(deployment.paths, lambda: None)


@pytest.mark.slow
def test_the_error_of_a_failed_start_has_the_end_of_the_log(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("JIGSAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(JigsawError, match=r"did not start; its log ends with:\n(?s:.*)cache") as caught:
        controller.start(deployment.paths, lambda: None)
    assert caught.value.where == str(deployment.paths.log("controller"))


@pytest.mark.parametrize(
    ("owners", "waits"),
    [([1, 1, 1, 1, 1], True), ([1, 1, 2, 3, 4], False), ([], False)],
    ids=["it runs", "it dies again and again", "it does not run"],
)
def test_a_controller_that_goes_on_with_what_runs_is_waited_for_as_long_as_it_runs(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, owners: list[int], waits: bool
) -> None:
    monkeypatch.setattr(controller, "_START_S", 0.0)
    monkeypatch.setattr(controller, "_REPORT_AFTER_S", 0.0)
    lock = deployment.paths.lock
    lock.write_text("7")
    beats = iter(enumerate(owners, 1))
    notes: list[str] = []

    def supervisor_pid() -> int | None:
        if (beat := next(beats, None)) is None:
            return 42
        lock.write_text(str(beat[1]))
        os.utime(lock, ns=(beat[0], beat[0]))
        return None

    failure = JigsawError("the controller did not start")
    process = cast(Any, SimpleNamespace(pid=42 if owners else 43, poll=lambda: None, failure=lambda: failure))
    wait = partial(controller._wait_started, deployment.paths, process, supervisor_pid, notes.append)
    if waits:
        wait()
        assert len(notes) == 1 and "does not answer yet" in notes[0]
    else:
        with pytest.raises(JigsawError, match="the controller did not start"):
            wait()


def test_down_forgets_a_deployment_whose_next_controller_learns_that_it_was_replaced(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> None:
        journal.keep_fact(REPLACED_FACT, "the controller on other has replaced this one")
        journal.close()
        raise StateError("the controller on other has replaced this one")

    monkeypatch.setattr(controller, "agents_serve", lambda _: controller.replacement(deployment.paths) is None)
    monkeypatch.setattr(controller, "start", start)
    deployment.down()
    assert controller.replacement(deployment.paths) is None
    with pytest.raises(StateError, match="nothing is deployed"):
        deployment.status()


def test_down_moves_a_damaged_journal_aside(deployment: Deployment) -> None:
    journal = deployment.paths.journal
    journal.write_bytes(b"damaged" * 10_000)
    deployment.down(missing_ok=True)
    assert journal.read_bytes().startswith(b"SQLite format 3")
    assert [path.read_bytes()[:7] for path in journal.parent.glob(f"{journal.name}.damaged*")] == [b"damaged"]


# --- deploying and updating -------------------------------------------------------------------------------------------


def test_an_update_changes_only_what_it_is_given(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    deployment = jt.deploy(app, demand=20, gpus="2xcpu", target="bls", state=tmp_path / "state")
    deployment.update(demand=30)
    deployment.update(gpus="1xcpu")
    kept = [(r["demand"], r["gpus"], r["target"]) for r in fake.requests]
    assert kept == [({"": 20}, "2xcpu", "bls"), ({"": 30}, "2xcpu", "bls"), ({"": 30}, "1xcpu", "bls")]


def test_a_deployment_is_deterministic_until_an_update_changes_it(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    deployment = jt.deploy(app, gpus="2xcpu", deterministic=True, state=tmp_path / "state")
    deployment.update(demand=30)
    deployment.update(deterministic=False)
    assert [request["deterministic"] for request in fake.requests] == [True, True, False]


def test_an_update_needs_the_graphs_if_another_process_deployed_them(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    with pytest.raises(StateError, match="nothing is deployed here"):
        Deployment(tmp_path).update(demand=30)
    jt.deploy(app, demand=20, gpus="2xcpu", state=tmp_path)
    with pytest.raises(InputError, match="this process does not know what is deployed"):
        Deployment(tmp_path).update(demand=30)
    Deployment(tmp_path).update(app, gpus="2xcpu")
    assert fake.requests[-1]["demand"] == {"hello": 20.0}


def test_graphs_are_added_and_removed(
    app: Path, named: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    other, state = named("other"), tmp_path / "state"
    deployment = jt.deploy(app, demand=20, gpus="2xcpu", period_s=5, state=state)
    controllers.keep_deployed(state, Request.from_json(fake.requests[0]))
    deployment.add(jt.load_graph(other), demand=3, target="bls")
    with pytest.raises(InputError, match="this process does not know what is deployed"):
        deployment.update(demand=30)
    controllers.keep_deployed(state, Request((str(app), str(other)), gpus="2xcpu"))
    fake.graphs = ["hello", "other"]
    deployment.remove("other")
    assert [(r["joins"], r["leaving"], r["period_s"]) for r in fake.requests] == [
        (False, (), 5),
        (True, (), None),
        (False, ("other",), None),
    ]
    assert (fake.requests[1]["demand"], fake.requests[1]["target"]) == ({"": 3}, "bls")
    with pytest.raises(InputError, match="no graph of this name is deployed; deployed graphs: hello, other"):
        deployment.remove("hello", "third")
    with pytest.raises(InputError, match="no graph is named"):
        deployment.remove()
    deployment.remove("other", "hello")
    assert not fake.running


def test_graphs_that_others_may_be_joining_are_not_taken_down(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    deployment = jt.deploy(app, gpus="2xcpu", state=tmp_path / "state")
    fake.refusing = True
    with pytest.raises(StateError, match="another deploy is under way"):
        deployment.remove("hello")
    assert fake.running


def test_of_two_first_deploys_the_one_that_is_refused_leaves_the_controller_to_the_other(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    fake.refusing = True
    with pytest.raises(StateError, match="another deploy is under way"):
        jt.deploy(app, gpus="2xcpu", state=tmp_path / "state")
    assert (fake.starts, fake.running) == (1, True)
    # A later deploy that fails ends the idle controller, although another process has started it.
    fake.refusing, fake.state, fake.error = False, "idle", "no room"
    with pytest.raises(JigsawError, match="no room"):
        jt.deploy(app, gpus="2xcpu", state=tmp_path / "state")
    assert (fake.starts, fake.running) == (1, False)


def test_an_update_goes_on_from_the_last_change_that_took_effect(
    app: Path, named: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, state = controllers.FakeController().install(monkeypatch), tmp_path / "state"
    deployment = jt.deploy(app, gpus="2xcpu", state=state)
    controllers.keep_deployed(state, Request.from_json(fake.requests[0]))
    other = named("other")
    fake.refusing = True
    with pytest.raises(StateError, match="another deploy is under way"):
        deployment.add(other)
    fake.refusing, fake.error = False, "no room"
    with pytest.raises(JigsawError, match="no room"):
        deployment.add(other)
    with pytest.raises(JigsawError, match="no room"):
        deployment.update(share=True)
    fake.error = ""
    deployment.update(demand=30)
    last = fake.requests[-1]
    assert (last["graphs"], last["demand"], last["share"]) == ((str(app),), {"": 30}, False)


@pytest.mark.slow
def test_others_shed_load_for_a_graph_only_if_that_is_agreed_to(
    app: Path, named: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a machine with few processors these would limit the demand, and not the slices.
    monkeypatch.setattr(files, "usable_processors", lambda: 64.0)
    fake = controllers.FakeController().install(monkeypatch)
    state, urgent = tmp_path / "state", replace(jt.load_graph(named("other")), priority=1)
    controllers.keep_deployed(state, Request((str(app),), gpus="1xcpu", demand={"hello": 10_000.0}))
    fake.running, fake.graphs = True, ["hello"]

    async def add(*, shed: bool) -> None:
        await jt.AsyncDeployment(state).add(urgent, demand=9000, shed=shed)

    with pytest.raises(
        jt.InfeasibleError, match=r"hello \(priority 0\) would be provided for with 3\d+ instead of 10000"
    ):
        asyncio.run(add(shed=False))
    assert fake.requests == []
    asyncio.run(add(shed=True))
    assert fake.requests[0]["demand"] == {"": 9000, "hello": pytest.approx(3870, rel=0.1)}
    asyncio.run(jt.AsyncDeployment(state).remove("hello"))
    assert not fake.running


def test_a_first_deployment_that_fails_is_taken_down(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController("no room").install(monkeypatch)
    with pytest.raises(JigsawError, match="no room"):
        jt.deploy(app, gpus="2xcpu", state=tmp_path)
    assert not fake.running


def test_an_update_that_fails_leaves_what_is_running(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    deployment = jt.deploy(app, gpus="2xcpu", state=tmp_path)
    fake.error = "no room"
    with pytest.raises(JigsawError, match="no room"):
        deployment.update(demand=2)
    assert fake.running


def test_a_context_manager_takes_the_deployment_down(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    with jt.deploy(app, gpus="2xcpu", state=tmp_path) as deployment:
        assert deployment.status()["state"] == "ready"
    assert not fake.running
    with jt.deploy(app, gpus="2xcpu", state=tmp_path) as deployment:
        deployment.down()


def test_coroutines_deploy_update_and_take_down(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = controllers.FakeController().install(monkeypatch)

    async def serve() -> None:
        async with await jt.deploy_async(app, demand=20, gpus="2xcpu", state=tmp_path) as deployment:
            assert (await deployment.status())["state"] == "ready"
            await deployment.wait("ready", timeout_s=1)
            await deployment.update(demand=30)
            assert await deployment.events() == ()
            with pytest.raises(StateError, match="no plan is served here yet"):
                await deployment.plan()

    asyncio.run(serve())
    assert [request["demand"] for request in fake.requests] == [{"": 20}, {"": 30}]
    assert not fake.running


@pytest.mark.slow
def test_mistakes_are_found_before_anything_is_started(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    with pytest.raises(jt.SpecError, match="there is no GPU model 'A10'"):
        jt.deploy(app, gpus="1xA10", state=tmp_path)
    with pytest.raises(jt.InfeasibleError):
        jt.deploy(app, demand=1e6, gpus="1xcpu", state=tmp_path)
    with pytest.raises(InputError, match="standard input"):
        jt.deploy("-", gpus="1xcpu", state=tmp_path)
    assert not fake.requests and not fake.running


def test_an_interrupted_rollback_goes_on(run: Run, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    fake = FakeController().install(monkeypatch)
    fake.running, fake.state, fake.interrupt = True, "changing", interrupt
    result = run("rollback", "3", "--state", deployment.paths.state)
    assert (result.exit_code, fake.rollbacks) == (130, [3])
    assert "interrupted; the controller goes on with the change" in result.stderr


# --- servers without a controller -------------------------------------------------------------------------------------


def test_servers_without_a_controller_are_named_and_adopted(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fake = controllers.FakeController().install(monkeypatch)
    monkeypatch.setattr(controller, "unattended_servers", lambda _: ["gateway", "a-0-1g-0"])
    with pytest.raises(StateError, match=r"no controller is running here, but 2 servers are: gateway, a-0-1g-0"):
        Deployment(tmp_path).status()
    jt.deploy(app, gpus="2xcpu", state=tmp_path)
    assert fake.starts == 1
    assert "servers are running here without a controller; a new controller adopts them" in caplog.text


@pytest.mark.slow
def test_a_controller_that_adopts_nothing_is_ended_if_the_deployment_fails(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    fake.state = "idle"
    monkeypatch.setattr(controller, "unattended_servers", lambda _: ["gateway"])
    with pytest.raises(jt.InfeasibleError):
        jt.deploy(app, demand=1e6, gpus="2xcpu", state=tmp_path)
    assert fake.starts == 1
    assert not fake.running


@pytest.mark.slow
def test_servers_of_a_first_deployment_that_serve_survive_a_failed_update(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    monkeypatch.setattr(controller, "unattended_servers", lambda _: ["gateway"])
    with pytest.raises(jt.InfeasibleError):
        jt.deploy(app, demand=1e6, gpus="2xcpu", state=tmp_path)
    assert fake.running
