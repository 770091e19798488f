"""`deploy --add` and `down GRAPH`, without servers."""

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from jigsaw_triton.api import controller
from jigsaw_triton.api.request import SETTINGS, Request
from jigsaw_triton.cli.commands import deploy, down
from jigsaw_triton.cli.io.output import Output
from tests.cli.conftest import Run
from tests.fakes.controller import FakeController, keep_deployed

HELLO_RPS = 10_000.0
"""Demand of the deployed graph `hello`. The processor carries 12,879 requests/s of such graphs."""


@pytest.fixture
def fake(run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeController:
    """Controller of a deployment that serves the graph `hello` on one processor."""
    request = Request((str(app),), gpus="1xcpu", demand={"hello": HELLO_RPS}, deterministic=True, period_s=9.0)
    keep_deployed(tmp_path / "state", request)
    for module in (deploy, down):
        monkeypatch.setattr(module, "status_view", lambda *_: ["the status"])
    fake = FakeController().install(monkeypatch)
    fake.running, fake.graphs = True, ["hello"]
    return fake


@pytest.fixture
def change(run: Run, tmp_path: Path) -> Callable[..., Result]:
    """Runs a command on the deployment."""
    return lambda *arguments: run(*arguments, "--state", tmp_path / "state")


def urgent(folder: Path) -> Path:
    """Gives a graph a higher priority than others have."""
    graph = folder / "graph.yaml"
    graph.write_text(graph.read_text().replace("spec:\n", "spec:\n  priority: 5\n", 1))
    return folder


def test_a_graph_is_added_with_the_settings_that_are_deployed(
    fake: FakeController, change: Callable[..., Result], named: Callable[[str], Path]
) -> None:
    other = named("other")
    result = change("deploy", "--add", other, "--demand", "3")
    assert result.exit_code == 0, result.stderr
    assert "plan for hello 10000/s, other 3/s" in result.stderr
    assert result.stdout == "the status\n"
    assert change("deploy", "--add", other, "--no-wait", "--period", "20", "--gpus", "2xcpu").exit_code == 0
    kept, changed = fake.requests
    assert (kept["graphs"], kept["joins"], kept["demand"], kept["gpus"]) == ((str(other),), True, {"": 3.0}, None)
    assert {kept[name] for name in SETTINGS} == {None}
    assert (changed["deterministic"], changed["period_s"], changed["gpus"]) == (None, 20.0, "2xcpu")


@pytest.mark.slow
def test_what_cannot_be_added_is_refused_before_anything_changes(
    fake: FakeController, change: Callable[..., Result], named: Callable[[str], Path], app: Path
) -> None:
    other = named("other")
    for arguments, code, message in (
        (("nowhere",), 2, "there is no such file"),
        ((app,), 2, "a graph named 'hello' is deployed already; to change it, deploy all graphs together"),
        ((other, "--demand", "9000"), 3, "give the cluster 2 GPUs of cpu, or lower the demand of hello to"),
        ((other, "--canary", "5%"), 2, "--canary compares changed graphs, and --add changes none"),
        ((other, "--demand", "othr=3"), 2, "there is no graph 'othr'; did you mean 'other'?"),
        ((other, "--demand", "bogus=3"), 2, "there is no graph 'bogus'; graphs: hello, other"),
    ):
        result = change("deploy", "--add", *arguments)
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert fake.requests == []
    fake.running = False
    result = change("deploy", "--add", other)
    assert (result.exit_code, "nothing is deployed here" in result.stderr) == (4, True)


@pytest.mark.parametrize(
    ("terminal", "answer", "flags", "code"),
    [(False, True, (), 3), (False, False, ("--yes",), 0), (True, False, (), 4), (True, True, (), 0)],
)
def test_a_graph_that_others_shed_load_for_is_added_only_if_the_user_agrees(
    fake: FakeController,
    change: Callable[..., Result],
    named: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    answer: bool,
    flags: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.setattr(Output, "interactive", property(lambda _: terminal))
    monkeypatch.setattr(click, "confirm", lambda *_, **__: answer)
    result = change("deploy", "--add", urgent(named("other")), "--demand", "9000", *flags)
    assert result.exit_code == code, result.stderr
    assert re.search(r"warning: hello \(priority 0\) would be provided for with 3\d+ instead of", result.stderr)
    assert ("accept that with --yes" in result.stderr) == (code == 3)
    assert len(fake.requests) == (code == 0)
    for request in fake.requests:
        assert request["demand"] == {"": 9000.0, "hello": pytest.approx(3870, rel=0.1)}


def test_graphs_are_removed_by_name(
    fake: FakeController, change: Callable[..., Result], named: Callable[[str], Path], tmp_path: Path
) -> None:
    keep_deployed(tmp_path / "state", Request((str(tmp_path / "app"), str(named("other"))), gpus="1xcpu"))
    fake.graphs = ["hello", "other"]
    unknown = change("down", "othr")
    assert (unknown.exit_code, unknown.stderr) == (
        2,
        "error: othr: no graph of this name is deployed\nhint: deployed graphs: hello, other\n",
    )
    removed = change("down", "other", "other")
    assert removed.exit_code == 0, removed.stderr
    assert "plan for hello 1/s" in removed.stderr
    assert [(r["graphs"], r["leaving"], r["joins"]) for r in fake.requests] == [((), ("other",), False)]
    assert fake.running


def test_servers_without_a_controller_are_adopted_before_a_graph_is_removed(
    fake: FakeController,
    change: Callable[..., Result],
    named: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_deployed(tmp_path / "state", Request((str(tmp_path / "app"), str(named("other"))), gpus="1xcpu"))
    fake.graphs, fake.running = ["hello", "other"], False
    monkeypatch.setattr(controller, "unattended_servers", lambda _: ["gateway"])
    removed = change("down", "other")
    assert removed.exit_code == 0, removed.stderr
    assert (fake.starts, fake.requests[0]["leaving"]) == (1, ("other",))


def test_without_its_last_graph_a_deployment_is_stopped(fake: FakeController, change: Callable[..., Result]) -> None:
    result = change("down", "hello")
    assert result.exit_code == 0, result.stderr
    assert "no graph remains, so the whole deployment is stopped" in result.stderr
    assert (fake.running, fake.requests) == (False, [])
    assert change("down", "hello").exit_code == 4


def test_a_graph_that_others_may_be_joining_is_not_the_last_one(
    fake: FakeController, change: Callable[..., Result]
) -> None:
    fake.refusing = True
    result = change("down", "hello")
    assert (result.exit_code, "another deploy is under way" in result.stderr) == (4, True)
    assert fake.running
