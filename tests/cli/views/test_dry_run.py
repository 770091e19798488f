"""`deploy --dry-run` shows what would be done, and changes nothing."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api.request import Request
from jigsaw_triton.api.rollout import Rollout
from jigsaw_triton.api.wanted import make_problem, read_wanted
from jigsaw_triton.cli.views.dry_run import DryRun, preview_rollout
from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.fleet.orphans import DRIVER_FACT
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.packages import cache_dir
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.servers.installation import Installation
from tests.cli.conftest import Run
from tests.fakes import mps
from tests.fakes.nvml.machine import Machine

CACHE = {"JIGSAW_CACHE": str(cache_dir())}
"""Real cache folder, because `run` sets another home."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "gpus", ["cpu"])
    machine.enter()
    yield machine
    machine.leave()


def write_cluster(folder: Path, driver: str, *lines: str) -> Path:
    extra = "".join(f"  {line}\n" for line in lines)
    (folder / "cluster.yaml").write_text(
        f"apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  driver: {driver}\n{extra}"
        "  nodes: [{name: local, gpus: [{model: cpu}]}]\n"
    )
    return folder / "cluster.yaml"


def preview(app: Path, cluster: Path, state: Path, installation: Installation, status: Any = None) -> DryRun:
    wanted = read_wanted([app], cluster=cluster, demand={"hello": 5})
    problem = make_problem(wanted)
    rollout = Rollout(Request((str(app),)), wanted, problem, make_plan(problem), status)
    return preview_rollout(rollout, installation, deployment_paths(state))


def test_servers_repositories_and_instances_are_printed_and_nothing_is_created(
    installation: Installation, run: Run, app: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    arguments = ("deploy", app, "--gpus", "1xcpu", "--demand", "5", "--state", state, "--dry-run")
    result = run(*arguments, "-o", "json", env=CACHE)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["dry_run"] is True and found["plan"]["version"] == 1
    gateway, *workers = found["servers"]
    assert (gateway["name"], gateway["change"]) == ("gateway", "starts")
    assert "--http-port=8000" in gateway["argv"]
    assert {m["name"] for m in gateway["models"]} >= {"hello"}
    assert len(workers) == len(found["mig"]) > 0
    for worker in workers:
        assert f"--id={worker['name']}" in worker["argv"]
        assert worker["env"]["CUDA_VISIBLE_DEVICES"] == f"MIG-UUID-OF-{worker['name']}"
        assert worker["repository"] == str(state / "repositories" / "workers" / worker["name"])
        assert all("config.pbtxt" in model["files"] for model in worker["models"])
    assert not state.exists()
    text = run(*arguments, env=CACHE).stdout
    assert "MIG (emulated):\n  create " in text
    assert f"{workers[0]['name']} starts:\n" in text
    assert not state.exists()


def test_a_steps_worker_has_no_instance_and_stays_if_its_code_stays(
    stepped: Path, tmp_path: Path, installation: Installation
) -> None:
    cluster, state = write_cluster(tmp_path, "emulated"), tmp_path / "state"
    found = preview(stepped, cluster, state, installation)
    steps = next(server for server in found.servers if server.name == "steps-hello")
    assert len(found.mig) == len(found.servers) - 2
    assert steps.env is not None and steps.env["CUDA_VISIBLE_DEVICES"] == ""
    assert [model.name for model in steps.models] == ["hello.round.step.g1"]
    model = {"name": "hello.round.step.g1", "graph": "hello", "task": "round", "variant": ""}
    nowhere = {"node": None, "gpu": None, "slice": None, "start": None, "process": 0, "uuid": ""}
    status = {
        "gateway": {"pid": 1},
        "driver": "emulated",
        "server": {"workers": {"image": None}},
        "workers": [{"name": "steps-hello", **nowhere, "models": [{**model, "instances": 1, "batch": 1}]}],
    }
    changes = {server.name: server for server in preview(stepped, cluster, state, installation, status).servers}
    assert (changes["steps-hello"].change, changes["steps-hello"].models) == ("stays", ())


def test_changes_of_real_gpus_are_printed_as_nvml_calls(
    machine: Machine, app: Path, tmp_path: Path, installation: Installation
) -> None:
    found = preview(app, write_cluster(tmp_path, "nvml"), tmp_path / "state", installation)
    assert [text.partition("(")[0] for text in found.mig[:2]] == [
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
    ]
    assert found.daemons == ()
    assert machine.changes() == []


def test_mps_daemons_are_printed_with_their_servers(
    machine: Machine, app: Path, tmp_path: Path, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{mps.install(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}")
    found = preview(app, write_cluster(tmp_path, "nvml", "processes: mps"), tmp_path / "state", installation)
    daemon = found.daemons[0]
    assert daemon.argv == (str(tmp_path / "bin" / "nvidia-cuda-mps-control"), "-f")
    assert daemon.env is not None
    server = next(s for s in found.servers if s.name == f"{daemon.name}-p1")
    assert server.env is not None
    for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY"):
        assert server.env[variable] == daemon.env[variable]
    assert any(line == f"MPS of {daemon.name} starts:" for line in found.view())


@pytest.mark.slow
def test_an_update_shows_what_stays_and_what_ends(app: Path, tmp_path: Path, installation: Installation) -> None:
    cluster, state = write_cluster(tmp_path, "emulated"), tmp_path / "state"
    fresh = preview(app, cluster, state, installation)
    _, first, *_ = fresh.servers
    node, gpu, kind, start = first.name.split("-")
    (model,) = first.models
    graph, task, variant, _ = model.name.split(".")
    place = {"node": node, "gpu": int(gpu), "process": 0, "slice": kind, "start": int(start)}
    (instances, batch) = next(
        (p["instances"], p["batch"])
        for p in _placed(app, cluster, first.name)
        if (p["task"], p["variant"]) == (task, variant)
    )
    known = {"graph": graph, "task": task, "variant": variant, "instances": instances, "batch": batch}
    loaded: dict[str, Any] = {"name": model.name, **known}
    status = {
        "gateway": {"pid": 1},
        "driver": "emulated",
        "server": {"workers": {"image": None}},
        "workers": [
            {
                "name": first.name,
                "uuid": "MIG-1",
                **place,
                "models": [loaded],
            },
            {"name": "local-0-3g-4", "uuid": "MIG-2", **place, "slice": "3g", "start": 4, "models": []},
        ],
    }
    found = preview(app, cluster, state, installation, status)
    changes = {server.name: server for server in found.servers}
    assert changes["gateway"].change == "stays" and changes["gateway"].models
    assert (changes[first.name].change, changes[first.name].models) == ("stays", ())
    assert changes["local-0-3g-4"].change == "ends"
    assert found.mig[0] == "destroy 3g@4 of local/0"
    assert f"create {kind}@{start} of local/0" not in found.mig
    # A model with another batch is another model, which is loaded beside the first.
    loaded["batch"] = batch + 1
    again = {server.name: server for server in preview(app, cluster, state, installation, status).servers}
    assert again[first.name].models == first.models
    # Servers that share an instance under MPS get a new instance.
    mps = preview(app, write_cluster(tmp_path, "emulated", "processes: mps"), state, installation, status)
    assert f"destroy {kind}@{start} of local/0" in mps.mig and f"create {kind}@{start} of local/0" in mps.mig


def test_orphaned_instances_are_destroyed_first(
    machine: Machine, app: Path, tmp_path: Path, installation: Installation
) -> None:
    cluster, paths = write_cluster(tmp_path, "nvml"), deployment_paths(tmp_path / "state")
    paths.state.mkdir()
    machine.foreign(0, "1g", 6)
    with closing(Journal(paths.journal)) as journal:
        journal.keep_fact(DRIVER_FACT, "nvml")
        Instances(journal, NvmlMigDriver("local", {0: CATALOG["cpu"]})).create(GpuId("local", 0), Placement(0, "1g"))
    found = preview(app, cluster, paths.state, installation)
    assert found.mig[:2] == ("nvmlComputeInstanceDestroy(GPU 0 1g@0)", "nvmlGpuInstanceDestroy(GPU 0 1g@0)")
    assert not [text for text in found.mig[2:] if "Destroy" in text]
    assert any(text.startswith("nvmlDeviceCreateGpuInstanceWithPlacement(GPU 0,") for text in found.mig)


def test_an_instance_that_no_longer_exists_takes_no_call(
    machine: Machine, app: Path, tmp_path: Path, installation: Installation
) -> None:
    place = {"node": "local", "gpu": 0, "process": 0, "slice": "3g", "start": 4}
    status = {
        "gateway": {"pid": 1},
        "driver": "nvml",
        "server": {"workers": {"image": None}},
        "workers": [{"name": "local-0-3g-4", "uuid": "MIG-gone", **place, "models": []}],
    }
    found = preview(app, write_cluster(tmp_path, "nvml"), tmp_path / "state", installation, status)
    assert not [text for text in found.mig if "Destroy" in text]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"gateway": {"ports": asdict(GatewayPorts(http=9000))}}, InputError, "address and ports cannot change"),
        ({"driver": "nvml"}, StateError, "the MIG driver cannot change from nvml to emulated"),
        (
            {"server": {"workers": {"image": "triton:1"}}},
            StateError,
            "image cannot change from triton:1 to this",
        ),
    ],
)
def test_changes_that_the_controller_refuses_are_refused(
    changed: dict[str, Any],
    error: type[JigsawError],
    message: str,
    app: Path,
    tmp_path: Path,
    installation: Installation,
) -> None:
    runs = {
        "gateway": {"state": "absent"},
        "driver": "emulated",
        "server": {"workers": {"image": None}},
        "workers": [],
    }
    cluster = write_cluster(tmp_path, "emulated")
    assert preview(app, cluster, tmp_path / "state", installation, runs).servers
    with pytest.raises(error, match=message):
        preview(app, cluster, tmp_path / "state", installation, {**runs, **changed})


def _placed(app: Path, cluster: Path, name: str) -> list[dict[str, Any]]:
    """Models of a worker in the plan."""
    wanted = read_wanted([app], cluster=cluster, demand={"hello": 5})
    plan = make_plan(make_problem(wanted)).to_json()
    found: list[dict[str, Any]] = next(
        placed["models"]
        for gpu in plan["gpus"]
        for placed in gpu["layout"]
        if f"{gpu['node']}-{gpu['index']}-{placed['slice']}-{placed['start']}" == name
    )
    return found
