"""Messages between a controller and an agent arrive as they were sent."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Artifact, Worker
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.wire import (
    cluster_json,
    digests,
    event_json,
    opened,
    read_cluster,
    read_event,
    sealed,
)
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.gateway import ServerImage
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from tests.fakes.node import model, worker


def test_a_worker_arrives_with_the_names_of_its_files(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    chain = replace(model("chain"), members=("m", "n"), tokens=2, pads=True, content="c")
    sent = worker("a-0-1g-0", model("m", weights), chain)
    made = sealed(sent, lambda path: "f" * 64 if path == weights else "?")
    assert made.contents["f" * 64] == weights
    assert set(digests(made.json)) == made.contents.keys()
    found = opened(json.loads(json.dumps(made.json)), lambda digest: tmp_path / digest)
    files = [model.folder.files for model in found.models]
    assert files[0]["1/model.onnx"] == Artifact(tmp_path / ("f" * 64))
    assert all(isinstance(content, Artifact) for one in files for content in one.values())
    stripped = tuple(replace(m, folder=replace(m.folder, files={})) for m in found.models)
    assert replace(found, models=stripped) == replace(
        sent, models=tuple(replace(m, folder=replace(m.folder, files={})) for m in sent.models)
    )


def test_a_worker_without_a_place_arrives() -> None:
    assert opened(sealed(Worker("steps-g", ()), str).json, Path) == Worker("steps-g", ())


def test_a_cluster_arrives() -> None:
    gpu = Gpu(GpuId("a", 3), CATALOG["A100-80GB"], (Placement(0, "2g"),), "it is used whole")
    sent = Cluster((gpu,), driver="nvml", processes="mps", image=ServerImage("nvcr.io/x:1", "podman"))
    assert read_cluster(json.loads(json.dumps(cluster_json(sent)))) == sent


def test_a_board_that_the_node_does_not_know_is_refused() -> None:
    data = json.loads(json.dumps(cluster_json(Cluster((Gpu(GpuId("a", 0), CATALOG["cpu"]),)))))
    data["gpus"][0]["board"] = "B900"
    with pytest.raises(InputError, match="knows no GPU model B900"):
        read_cluster(data)


@pytest.mark.parametrize(
    "event", [e.WorkerExited("w", "killed"), e.Stalled("w", 5.0), e.Answered("w"), e.Noticed("error", "<é>")]
)
def test_an_event_arrives(event: e.Event) -> None:
    assert read_event(json.loads(json.dumps(event_json(event)))) == event
