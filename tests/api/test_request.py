"""Requests to deploy, and reading them in the controller's process."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api.files import GraphText, load_graph
from jigsaw_triton.api.profile_files import load_profiles
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.request import Request
from jigsaw_triton.controller.core.forecast import ForecastSettings
from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.gpus.gateway import GatewayPorts, Otlp
from jigsaw_triton.planner.domain.problem import Options
from tests.fakes.documents import edited

PORTS = {"http": 9000, "grpc": 9001, "metrics": 9002, "address": "0.0.0.0"}
STATUS: dict[str, Any] = {
    "graphs": {"hello": {"base_rps": 7.5}, "other": {"base_rps": 1.0}},
    "gateway": {"ports": PORTS},
}
CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  driver: emulated
  nodes: [{name: a, gpus: [{model: cpu, count: 2}]}]
  gateway: {http: 9100, grpc: 9101, metrics: 9102}
"""


def test_a_request_survives_json() -> None:
    text = GraphText("hello", "kind: TaskGraph", "/app", "gpu,task")
    request = Request(("/app", text), gpus="2xcpu", demand={"hello": 3}, target="bls", http=9000, share=True)
    assert Request.from_json(request.to_json()) == request


@pytest.mark.parametrize("data", [{}, {"graphs": [], "demand": {}, "colour": "red"}, {"graphs": [], "demand": None}])
def test_a_request_of_another_release_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="different releases"):
        Request.from_json(data)


def test_a_request_overrides_the_target_and_ports(app: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    request = Request((str(app),), cluster=str(tmp_path / "cluster.yaml"), demand={"": 3}, target="bls", grpc=9999)
    wanted = request.read()
    assert wanted.graphs["hello"].target == "bls"
    assert wanted.demand_rps == {"hello": 3.0}
    assert wanted.cluster.gateway == GatewayPorts(http=9100, grpc=9999, metrics=9102)
    plain = Request((str(app),), cluster=str(tmp_path / "cluster.yaml")).read()
    assert plain.graphs["hello"].target == "auto"
    assert plain.demand_rps == {"hello": 1.0}


def test_a_request_has_the_options_of_the_planner(app: Path) -> None:
    request = Request((str(app),), gpus="1xcpu")
    assert request.read().options == Options(latency_model="queue")
    assert replace(request, share=True).read().options == Options(share=True)
    assert replace(request, change_price=0.5).read().options == Options(change_price=0.5)
    accurate = Request.from_json(replace(request, objective="accuracy").to_json())
    assert accurate.read().options == Options(objective="accuracy", change_price=0.001)
    assert replace(accurate, change_price=0.5).read().options == Options(objective="accuracy", change_price=0.5)
    other = Request.from_json(replace(request, latency_model="2p95").to_json())
    assert other.read().options == Options(latency_model="2p95")
    baseline = Request.from_json(replace(request, features="AS", formulation="paper").to_json())
    assert baseline.read().options == Options(features="AS", formulation="paper")
    assert not request.read().deterministic
    assert Request.from_json(replace(request, deterministic=True).to_json()).read().deterministic


def test_a_request_has_the_period_of_the_reviews(app: Path) -> None:
    request = Request((str(app),), gpus="1xcpu")
    assert request.read().period_s == 60
    assert Request.from_json(replace(request, period_s=5).to_json()).read().period_s == 5


@pytest.mark.parametrize("period_s", [0.5, math.inf, math.nan])
def test_a_period_that_is_too_short_or_endless_is_refused(app: Path, period_s: float) -> None:
    with pytest.raises(InputError, match="is not a period in seconds; give 1 or more") as caught:
        Request((str(app),), gpus="1xcpu", period_s=period_s).read()
    assert caught.value.where == "period_s"


def test_a_request_has_the_forecast_of_the_load(app: Path) -> None:
    request = Request((str(app),), gpus="1xcpu")
    assert request.read().forecast_settings == ForecastSettings("highest", 60)
    chosen = Request.from_json(replace(request, forecast="kalman", window_s=300.0).to_json())
    assert chosen.read().forecast_settings == ForecastSettings("kalman", 300)


@pytest.mark.parametrize(
    ("given", "message", "where"),
    [
        ({"forecast": "kalmann"}, "there is no forecast 'kalmann'; did you mean 'kalman'", "forecast"),
        ({"window_s": 19.0}, "19 is not a window in seconds; give 20 or more", "window_s"),
        ({"window_s": math.nan}, "nan is not a window in seconds", "window_s"),
    ],
)
def test_a_forecast_that_does_not_exist_is_refused(app: Path, given: dict[str, Any], message: str, where: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Request((str(app),), gpus="1xcpu", **given).read()
    assert caught.value.where == where


def test_a_graph_that_was_built_in_python_is_read_from_its_text(app: Path) -> None:
    graph, profiles = load_graph(app), load_profiles(app)
    (app / "graph.yaml").unlink()
    (app / "profiles.csv").unlink()
    wanted = Request((GraphText.of(graph, profiles),), gpus="1xcpu").read()
    assert wanted.graphs == {"hello": graph}
    assert wanted.profiles["hello"].rows() == profiles.rows()


def test_the_model_files_of_a_graph_that_was_built_in_python_must_exist(app: Path) -> None:
    graph = load_graph(app)
    (app / "models" / "average.py").unlink()
    with pytest.raises(SpecError, match=r"graph hello:\d+: there is no file 'models/average\.py'"):
        Request((GraphText.of(graph, None),), gpus="1xcpu").read()


def test_an_update_keeps_the_demand_and_the_ports_that_it_does_not_name(app: Path) -> None:
    kept = Request((str(app),), gpus="2xcpu", grpc=9999).as_running(STATUS)
    assert kept.demand == {"hello": 7.5}
    assert (kept.http, kept.grpc, kept.metrics, kept.address) == (9000, 9999, 9002, "0.0.0.0")


def test_an_update_keeps_the_export_of_traces_that_it_does_not_name(app: Path) -> None:
    request = Request((str(app),), gpus="2xcpu", demand={"hello": 3})
    status = {**STATUS, "otlp": {"endpoint": "http://a:4318", "sample": 0.5}}
    kept = request.as_running(status)
    assert kept.read().cluster.otlp == Otlp("http://a:4318", 0.5)
    moved = replace(request, otlp="https://b").as_running(status)
    assert moved.read().cluster.otlp == Otlp("https://b", 0.5)
    less = replace(request, otlp_sample=0.0).as_running(status)
    assert less.read().cluster.otlp == Otlp("http://a:4318", 0.0)
    ended = replace(request, otlp="none").as_running(status)
    assert ended.read().cluster.otlp is None
    assert request.as_running({**STATUS, "otlp": None}).read().cluster.otlp is None


def test_the_export_of_traces_replaces_that_of_the_cluster_file(app: Path, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(edited(CLUSTER, ("gateway: {", "gateway: {otlp: {endpoint: 'http://a', sample: 0.2}, ")))
    request = Request((str(app),), cluster=str(cluster))
    assert request.read().cluster.otlp == Otlp("http://a", 0.2)
    assert replace(request, otlp="http://b").read().cluster.otlp == Otlp("http://b", 0.2)
    assert replace(request, otlp_sample=1.0).read().cluster.otlp == Otlp("http://a", 1.0)
    assert replace(request, otlp="none").read().cluster.otlp is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"otlp": "localhost"}, r"--otlp: 'localhost' is not an http, https, grpc or grpcs address"),
        ({"otlp": ""}, "--otlp: "),
        ({"otlp": "http://a", "otlp_sample": 1.5}, r"--otlp-sample: 1\.5 is not a share between 0 and 1"),
        ({"otlp": "http://a", "otlp_sample": math.nan}, "--otlp-sample: nan is not a share"),
        ({"otlp_sample": 0.5}, r"--otlp-sample: there is no receiver of traces.*--otlp http://localhost:4318"),
        ({"otlp": "none", "otlp_sample": 0.5}, "--otlp-sample: there is no receiver of traces"),
    ],
)
def test_an_export_of_traces_that_cannot_be_is_refused(app: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Request((str(app),), gpus="2xcpu", **given).read(wording=COMMAND_LINE)


def test_an_update_with_a_cluster_file_has_the_ports_of_the_file() -> None:
    changed = Request(("/app",), cluster="/cluster.yaml", demand={"hello": 9}).as_running(STATUS)
    assert changed.demand == {"hello": 9}
    assert changed.http is None


def test_an_update_before_the_gateway_exists_keeps_nothing(app: Path) -> None:
    request = Request((str(app),), gpus="2xcpu")
    assert request.as_running({"graphs": {}, "gateway": {"state": "absent"}}) == request


@pytest.mark.parametrize(
    ("request_", "where", "message"),
    [
        (
            Request((), gpus="1xcpu", http=8001),
            "--http, --grpc, --metrics",
            "not distinct: http 8001, grpc 8001, metrics 8002",
        ),
        (Request((), gpus="1xcpu", address="localhost"), "--address", "'localhost' is not an IPv4 address"),
        (Request((), gpus="1xcpu", address="::1"), "--address", "'::1' is not an IPv4 address"),
    ],
)
def test_a_gateway_that_cannot_listen_is_refused(app: Path, request_: Request, where: str, message: str) -> None:
    request_ = replace(request_, graphs=(str(app),))
    with pytest.raises(SpecError) as caught:
        request_.read(wording=COMMAND_LINE)
    (mistake,) = caught.value.diagnostics
    assert mistake.file == where
    assert message in mistake.message
    with pytest.raises(SpecError) as caught:
        request_.read()
    assert caught.value.diagnostics[0].file == where.replace("--", "")
