"""The command `deploy`, without servers."""

import socket
import zipfile
from pathlib import Path

import click
import pytest

from jigsaw_triton.api import programs
from jigsaw_triton.cli.commands import deploy
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.console.client import ControllerGoneError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement
from jigsaw_triton.planner.transition.transition import Shortfall, Transition
from jigsaw_triton.servers import runner_packages
from jigsaw_triton.servers.installation import Installation
from tests.cli.conftest import Run
from tests.fakes.controller import FakeController
from tests.fakes.nvml.machine import Machine


def test_instances_of_others_are_planned_around(run: Run, app: Path, tmp_path: Path) -> None:
    gpu, state = Gpu(GpuId("local", 0), CATALOG["cpu"]), tmp_path / "state"
    other = EmulatedMigDriver(state / "mig.json", [gpu])
    instance = other.create(gpu.id, Placement(0, "7g"))
    result = run("deploy", app, "--gpus", "1xcpu", "--demand", "5", "--state", state, "--detach")
    assert result.exit_code == 3
    assert "no room for as many replicas as the tasks need" in result.stderr
    assert other.instances() == (instance,)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-", "--gpus", "2xcpu"), 2, "standard input"),
        (("APP",), 2, "--gpus"),
        (("APP", "--gpus", "2xcpu", "--demand", "much"), 2, "'much' is not a number"),
        (("APP", "--gpus", "2xcpu", "--demand", "900000"), 3, "the demand exceeds the cluster"),
        (("APP", "--gpus", "2xcpu", "--http", "99999"), 2, "99999"),
        (
            ("APP", "--gpus", "2xcpu", "--otlp", "localhost:4318"),
            2,
            "--otlp: 'localhost:4318' is not an http, https, grpc",
        ),
        (("APP", "--gpus", "2xcpu", "--otlp", "http://a", "--otlp-sample", "101%"), 2, "'101%' is not a share"),
        (("APP", "--gpus", "2xcpu", "--otlp-sample", "1%"), 2, "--otlp-sample: there is no receiver of traces"),
        (("nowhere", "--gpus", "2xcpu"), 2, "nowhere"),
    ],
)
def test_mistakes_are_reported_before_anything_changes(
    run: Run, app: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    given = [app if argument == "APP" else argument for argument in arguments]
    result = run("deploy", *given, "--state", tmp_path / "state", "--detach")
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--detach", "--dry-run"])
def test_a_graph_whose_package_is_missing_is_refused(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    server = Installation(tmp_path, tmp_path, frozenset({"python", "jigsaw"}), "2.51.0", "path", {})
    monkeypatch.setattr(programs, "find_installation", lambda _: server)
    monkeypatch.setattr(runner_packages, "find_spec", lambda _: None)
    graph = (app / "graph.yaml").read_text()
    served = graph.replace("template: python", "template: torch").replace("{model.py:", "{model.pt:")
    (app / "graph.yaml").write_text(served)
    for script in (app / "models").glob("*.py"):
        with zipfile.ZipFile(script, "w") as archive:
            archive.writestr("model/code/__torch__.py", "")
    result = run("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", flag)
    assert result.exit_code == 1
    assert "hello.average.exact" in result.stderr
    assert "needs the Python package torch, which is not installed" in result.stderr
    assert "pip install 'jigsaw-triton[torch]'" in result.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
def test_plan_and_deploy_warn_of_a_gpu_without_mig_beside_others(run: Run, app: Path, tmp_path: Path) -> None:
    profiles = app / "profiles.csv"
    profiles.write_text(profiles.read_text().replace("cpu,", "H100-80GB,"))
    machine = Machine(tmp_path / "gpus", ["H100-80GB", "H100-80GB"], mig=False)
    machine.enter()
    try:
        assert run("mig", "enable", "1").exit_code == 0
        arguments = (app, "--gpus", "2xH100-80GB", "--driver", "nvml", "--demand", "900000")
        reason = "MIG is off, but on for others of its model"
        for command in (("plan",), ("deploy", "--state", tmp_path / "state")):
            result = run(*command, *arguments)
            assert result.exit_code == 3
            assert f"warning: GPU local/0 is one whole slice: {reason}" in result.stderr
        # This machine does not have three GPUs, so they cannot be surveyed.
        assert "whole slice" not in run("plan", app, "--gpus", "3xH100-80GB", *arguments[3:]).stderr
    finally:
        machine.leave()


def test_a_deployment_in_the_foreground_is_taken_down_by_ctrl_c(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    fake = FakeController().install(monkeypatch)
    fake.interrupt = interrupt
    monkeypatch.setattr(deploy, "status_view", lambda *_: ["the status"])
    result = run("deploy", app, "--gpus", "2xcpu", "--demand", "5", "--state", tmp_path / "state")
    assert result.exit_code == 130
    assert result.stdout == "the status\n"
    assert "plan for hello 5/s: 1 of 14 slices on 1 GPUs\n" in result.stderr
    assert "serving; Ctrl-C stops the deployment\n" in result.stderr
    assert not fake.running


def test_a_deployment_in_the_foreground_says_that_its_controller_has_died(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        fake.running = False
        raise ControllerGoneError("gone")

    fake = FakeController().install(monkeypatch)
    fake.interrupt = die
    monkeypatch.setattr(deploy, "status_view", lambda *_: ["the status"])
    result = run("deploy", app, "--gpus", "2xcpu", "--demand", "5", "--state", tmp_path / "state")
    assert result.exit_code == 1
    assert "error: the controller ended unexpectedly" in result.stderr


@pytest.mark.parametrize("flag", ["--detach", "--no-wait"])
def test_a_deployment_in_the_background_stays(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    fake = FakeController().install(monkeypatch)
    monkeypatch.setattr(deploy, "status_view", lambda *_: ["the status"])
    result = run("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", flag, "--http", "9000")
    assert result.exit_code == 0, result.stderr
    assert fake.running
    assert [(r["graphs"], r["http"]) for r in fake.requests] == [((str(app),), 9000)]
    assert result.stdout == ("the status\n" if flag == "--detach" else "")


def test_emulated_models_may_be_deterministic(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeController().install(monkeypatch)
    for flags in ((), ("--deterministic",)):
        result = run("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", "--no-wait", *flags)
        assert result.exit_code == 0, result.stderr
    assert [request["deterministic"] for request in fake.requests] == [False, True]


def test_the_period_of_the_reviews_belongs_to_the_deployment(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeController().install(monkeypatch)
    arguments = ("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", "--no-wait")
    assert run(*arguments).exit_code == run(*arguments, "--period", "15").exit_code == 0
    refused = run(*arguments, "--period", "0.5")
    assert (refused.exit_code, "0.5 is not in the range" in refused.stderr) == (2, True)
    assert [request["period_s"] for request in fake.requests] == [60.0, 15.0]


def test_the_forecast_belongs_to_the_deployment(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeController().install(monkeypatch)
    arguments = ("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", "--no-wait")
    assert run(*arguments).exit_code == run(*arguments, "--forecast", "holt", "--window", "300").exit_code == 0
    assert run(*arguments, "--forecast", "oracle").exit_code == run(*arguments, "--window", "5").exit_code == 2
    assert [(r["forecast"], r["window_s"]) for r in fake.requests] == [("highest", 60.0), ("holt", 300.0)]


REFUSING = Transition({"hello": 5.0}, (), (Shortfall("hello", 5.0, 3.0, 15.0),))


@pytest.mark.parametrize(
    ("terminal", "answer", "flags", "code"),
    [(True, False, (), 4), (True, True, (), 0), (True, False, ("--yes",), 0), (False, False, (), 0)],
)
def test_an_update_that_will_refuse_requests_asks_on_a_terminal(
    run: Run,
    app: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    answer: bool,
    flags: tuple[str, ...],
    code: int,
) -> None:
    fake = FakeController().install(monkeypatch)
    monkeypatch.setattr(deploy, "show_rollout", lambda *_: REFUSING)
    monkeypatch.setattr(Output, "interactive", property(lambda _: terminal))
    monkeypatch.setattr(click, "confirm", lambda *_, **__: answer)
    result = run("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", "--no-wait", *flags)
    assert result.exit_code == code, result.stderr
    assert len(fake.requests) == (code == 0)
    assert ("hello: about 15 in 3 s" in result.stderr) == (not flags)


def test_a_deploy_for_all_networks_warns(run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeController().install(monkeypatch)
    result = run("deploy", app, "--gpus", "2xcpu", "--address", "0.0.0.0", "--state", tmp_path / "state", "--no-wait")
    assert result.exit_code == 0, result.stderr
    assert "warning: the gateway listens on 0.0.0.0" in result.stderr


def test_a_taken_port_is_reported_before_anything_starts(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeController().install(monkeypatch, check_ports=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("deploy", app, "--gpus", "2xcpu", "--http", str(port), "--state", tmp_path / "state", "--detach")
    assert result.exit_code == 2
    assert f"port {port} is already in use" in result.stderr
    assert fake.starts == 0


@pytest.mark.parametrize("port", ["http", "0", "99999", ":8004"])
def test_a_port_for_metrics_that_is_none_is_refused(run: Run, app: Path, tmp_path: Path, port: str) -> None:
    state = tmp_path / "state"
    result = run("deploy", app, "--gpus", "2xcpu", "--controller-metrics", port, "--state", state)
    assert result.exit_code == 2
    assert "--controller-metrics" in result.stderr and "give 8004 or 0.0.0.0:8004" in result.stderr
    assert not state.exists()


def test_options_of_a_running_controller_stay_as_they_are(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeController().install(monkeypatch)
    arguments = ("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", "--no-wait")
    assert run(*arguments, "--log-format", "json", "--controller-metrics", "8004").exit_code == 0
    assert run(*arguments, "--log-format", "text").exit_code == 0
    for flag, value, shown in (("--log-format", "json", "json"), ("--controller-metrics", "8004", "127.0.0.1:8004")):
        refused = run(*arguments, flag, value)
        assert refused.exit_code == 2
        assert f"{flag}: the running controller has" in refused.stderr and f"not {shown}" in refused.stderr
        assert "end it with `kill 2`" in refused.stderr
    assert len(fake.requests) == 2


def test_a_canary_is_asked_for_with_the_update(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeController().install(monkeypatch)
    arguments = ("deploy", app, "--gpus", "2xcpu", "--state", tmp_path / "state", "--no-wait")
    first = run(*arguments, "--canary", "5%")
    assert first.exit_code == 2
    assert "--canary: nothing is served here yet with which a canary could be compared" in first.stderr
    assert run(*arguments).exit_code == 0
    assert run(*arguments, "--canary", "5%", "--canary-for", "10m").exit_code == 0
    assert run(*arguments, "--canary", "0.2").exit_code == 0
    alone = run(*arguments, "--canary-for", "10m")
    assert (alone.exit_code, "--canary-for needs a canary" in alone.stderr) == (2, True)
    assert [(r["canary"], r["canary_s"]) for r in fake.requests] == [(None, 300.0), (0.05, 600.0), (0.2, 300.0)]
