"""Configurations as a whole. To write them anew after a change that is meant: `JIGSAW_GOLDEN=write pytest ...`."""

import os
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Bundle, ModelFolder
from jigsaw_triton.graph.model import TaskGraph
from tests.compiler.samples import compiled, every
from tests.fakes.graphs import chain, conditional, fan_out, graph, task

GOLDEN = Path(__file__).parent / "golden"


def bls() -> TaskGraph:
    """One tensor under two names, which an ensemble cannot say."""
    return graph([task("only", {"X": "inputs.X"})], {"ONE": "only.Y", "TWO": "only.Y"}, name="bls")


def folders(bundle: Bundle) -> list[ModelFolder]:
    workers = [model.folder for worker in bundle.workers.values() for model in worker.models]
    gateway = [
        folder
        for item in bundle.graphs.values()
        for folder in (*(d.folder for d in item.dispatchers), item.pipeline, item.front)
        if folder is not None
    ]
    return workers + gateway


@pytest.mark.parametrize("sample", [chain(), fan_out(), conditional(), bls()], ids=lambda g: g.name)
def test_every_config_is_as_kept(sample: TaskGraph) -> None:
    rates = {"classify": 300.0, "inspect": 50.0}
    made = {f.name: f.files["config.pbtxt"] for f in folders(compiled(sample, every(sample, rates=rates)))}
    home = GOLDEN / sample.name
    if os.environ.get("JIGSAW_GOLDEN") == "write":
        home.mkdir(parents=True, exist_ok=True)
        for old in home.iterdir():
            old.unlink()
        for name, content in made.items():
            assert isinstance(content, bytes)
            (home / f"{name}.pbtxt").write_bytes(content)
    assert {f"{name}.pbtxt": content for name, content in made.items()} == {
        path.name: path.read_bytes() for path in home.iterdir()
    }
