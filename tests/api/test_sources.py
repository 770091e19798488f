"""Graphs and paths of a request to deploy."""

from pathlib import Path

import pytest

import jigsaw_triton as jt
from jigsaw_triton.api.request import Request
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.errors import InputError
from tests.fakes import controller as controllers


def test_standard_input_cannot_be_deployed() -> None:
    with pytest.raises(InputError, match="standard input"):
        absolute_path("-")


def test_the_controller_gets_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [absolute_path("app"), absolute_path("/other")] == [str(tmp_path / "app"), "/other"]


def test_a_path_reaches_the_controller_as_an_absolute_path(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app.parent)
    fake = controllers.FakeController().install(monkeypatch)
    deployment = jt.deploy("app", demand=20, gpus="2xcpu", state=tmp_path / "state")
    (request,) = fake.requests
    assert request["graphs"] == (str(app),)
    assert request["demand"] == {"": 20}
    assert deployment.running


def test_a_graph_without_a_file_reaches_the_controller_as_text(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = controllers.FakeController().install(monkeypatch)
    graph, table = jt.load_graph(app), jt.load_profiles(app)
    (app / "profiles.csv").rename(app / "other.csv")
    jt.deploy(graph, gpus="2xcpu", profiles=table, state=tmp_path / "a")
    fake.running = False
    jt.deploy(app, gpus="2xcpu", profiles={"hello": app / "other.csv"}, state=tmp_path / "b")
    first, second = (request["graphs"][0] for request in fake.requests)
    assert first == second
    assert first["yaml"] == graph.to_yaml()
    assert first["folder"] == str(app)
    assert Request.from_json(fake.requests[0]).read().profiles["hello"].rows() == table.rows()
