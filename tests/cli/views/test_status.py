"""The tables of `status`."""

from typing import Any

import pytest

from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.status import _capacity, _workers, status_view

MODELS = [
    {"name": "app.a.v0.g1", "instances": 1, "batch": 4, "standby": False},
    {"name": "app.b.v0.g1", "instances": 2, "batch": 1, "standby": True},
]


def worker(name: str, use: dict[str, Any] | None, models: list[dict[str, Any]] = MODELS) -> dict[str, Any]:
    return {"name": name, "state": "ready", "pid": 7, "restarts": 0, "use": use, "models": models}


def test_workers_without_use_have_no_columns_for_it() -> None:
    table = _workers({"workers": [worker("n-0-1g-0", None)]})
    assert table.header == ("worker", "state", "pid", "restarts", "model", "instances", "batch")
    assert table.rows == (
        ("n-0-1g-0", "ready", "7", "0", "app.a.v0.g1", "1", "4"),
        ("", "", "", "", "app.b.v0.g1 (standby)", "2", "1"),
    )


@pytest.mark.parametrize(("busy", "shown"), [(0.254, "25%"), (0.0, "0%"), (None, "-")])
def test_memory_and_utilisation_of_instances_are_columns(busy: float | None, shown: str) -> None:
    use = {"memory_mib": 512, "memory_total_mib": 9728, "busy": busy}
    table = _workers({"workers": [worker("n-0-1g-0", use, MODELS[:1]), worker("n-0-1g-1", None, MODELS[:1])]})
    assert table.header[4:6] == ("MiB", "SMs busy")
    assert [row[4:6] for row in table.rows] == [("512 of 9728", shown), ("-", "-")]


STATUS: dict[str, Any] = {
    "state": "ready",
    "serving": True,
    "degraded": False,
    "paused": False,
    "reasons": [],
    "canary": None,
    "doing": "",
    "generation": 1,
    "emulated": [],
    "error": "",
    "gateway": {"state": "ready"},
    "graphs": {},
    "workers": [],
    "plan": None,
    "server": {"version": "2.51.0", "origin": "path", "workers": {"version": "2.51.0", "image": None}},
}


def test_a_pause_is_printed() -> None:
    assert status_view({**STATUS, "paused": True}, Output())[0] == "ready, paused, generation 1"


def test_the_reasons_for_a_degraded_or_missing_service_are_printed() -> None:
    status = {**STATUS, "degraded": True, "reasons": ["b is restarting: it died"]}
    assert status_view(status, Output())[:2] == ["ready, degraded, generation 1", "b is restarting: it died"]
    missing = {**STATUS, "serving": False, "reasons": ["no generation serves yet"]}
    assert status_view(missing, Output())[:2] == ["ready, not serving, generation 1", "no generation serves yet"]
    assert status_view(STATUS, Output())[0] == "ready, generation 1"


@pytest.mark.parametrize(("image", "printed"), [(None, False), ("triton:1", True)])
def test_the_image_of_workers_is_printed(image: str | None, printed: bool) -> None:
    status = {**STATUS, "server": {**STATUS["server"], "workers": {"version": "2.51.0", "image": image}}}
    assert ("workers run from the image triton:1" in status_view(status, Output())) is printed


def test_the_size_of_the_copies_of_model_files_is_printed() -> None:
    line = "copies of model files: 1.5 MiB in /state/contents"
    files = {"folder": "/state/contents", "bytes": 3 * 2**19}
    assert line in status_view({**STATUS, "model_files": files}, Output())
    assert not [part for part in status_view(STATUS, Output()) if "copies of" in str(part)]


def test_the_export_of_traces_is_printed() -> None:
    otlp = {"state": "ready", "endpoint": "http://a:4318", "sample": 0.01, "exported": 12, "error": ""}
    status = {**STATUS, "otlp": {**otlp, "dropped": {"full": 0, "refused": 0}}}
    assert "traces: ready, 1% of the requests to http://a:4318, 12 spans exported" in status_view(status, Output())
    status = {**STATUS, "otlp": {**otlp, "dropped": {"full": 2, "refused": 1}, "error": "it answers 400"}}
    assert (
        "traces: ready, 1% of the requests to http://a:4318, 12 spans exported, 3 dropped: it answers 400"
    ) in status_view(status, Output())


def test_the_edge_is_printed() -> None:
    edge = {"kind": "haproxy", "state": "ready", "version": "2.8.25", "metrics": "http://127.0.0.1:8003/metrics"}
    guards = {"tls": True, "client_certificates": False, "api_keys": True}
    status = {**STATUS, "edge": {**edge, **guards}}
    assert "edge: ready, haproxy 2.8.25, TLS, keys, http://127.0.0.1:8003/metrics" in status_view(status, Output())


def test_a_canary_is_printed() -> None:
    requests = {
        "new": {"requests": 40, "failed": 2, "p99_ms": 28.4},
        "running": {"requests": 0, "failed": 0, "p99_ms": None},
    }
    canary = {
        "share": 0.05,
        "seconds": 300.0,
        "elapsed_s": 12.3,
        "generation": 4,
        "running": 3,
        "verdict": None,
        "graphs": {"app": requests},
    }
    shown = [str(part) for part in status_view({**STATUS, "canary": canary}, Output())]
    assert shown[1:4] == [
        "canary of 5%, generation 4: 12 of 300 s",
        "  app, generation 4: 40 requests, 2 failed, p99 28.4 ms",
        "  app, generation 3: 0 requests, 0 failed, p99 unknown",
    ]
    ended = status_view({**STATUS, "canary": {**canary, "verdict": "promoted: it is good"}}, Output())
    assert "canary of 5%, generation 4: promoted: it is good" in ended
    waiting = status_view({**STATUS, "canary": {**canary, "elapsed_s": None}}, Output())
    assert "canary of 5%, generation 4: has not begun" in waiting


@pytest.mark.parametrize("serving", [True, False])
def test_the_status_says_that_standby_variants_serve(serving: bool) -> None:
    graph: dict[str, Any] = {
        "target": "graph",
        "arrivals_rps": 90.0,
        "demand_rps": 40.0,
        "capacity_rps": 50.0,
        "available_rps": 50.0,
        "latency_ms": 80.0,
        "slo_latency_ms": 100.0,
        "accuracy": 1.0,
        "slo_accuracy": 0.9,
        "standby": {"capacity_rps": 150.0, "accuracy": 0.93, "serving": serving},
        "rows": [],
    }
    said = "standby variants serve app: capacity 150 requests/s, accuracy 0.930"
    assert (said in status_view({**STATUS, "graphs": {"app": graph}}, Output())) is serving


def test_the_capacity_is_that_of_the_servers_that_can_be_used() -> None:
    assert _capacity({"capacity_rps": 50.0, "available_rps": 50.0}) == "50"
    assert _capacity({"capacity_rps": 50.0, "available_rps": 20.0}) == "20 of 50"
    # The controller of an earlier release only has the first.
    assert _capacity({"capacity_rps": 50.0}) == "50"
