"""Configurations as a whole. To write them anew after a change that is meant: `JIGSAW_GOLDEN=write pytest ...`."""

import os
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Bundle, ModelFolder
from jigsaw_triton.graph.model import TaskGraph
from tests.compiler.samples import compiled, every, together
from tests.fakes.graphs import chain, conditional, fan_out, graph, task

GOLDEN = Path(__file__).parent / "golden"


def bls() -> TaskGraph:
    """One tensor under two names, which an ensemble cannot say."""
    return graph([task("only", {"X": "inputs.X"})], {"ONE": "only.Y", "TWO": "only.Y"}, name="bls")


def folders(bundle: Bundle) -> list[ModelFolder]:
    workers = [model.folder for worker in bundle.workers.values() for model in worker.models]
    gateway = [folder for item in bundle.graphs.values() for folder in (*item.models, item.front)]
    return workers + gateway


RATES = {"classify": 300.0, "inspect": 50.0}
SAMPLES = {
    **{of.name: (of, every(of, rates=RATES)) for of in (chain(), fan_out(), conditional(), bls())},
    "together": (chain(), together(chain())),
}
"""Folder -> a graph and its plan."""


@pytest.mark.parametrize("name", SAMPLES)
def test_every_config_is_as_kept(name: str) -> None:
    made = {f.name: f.files["config.pbtxt"] for f in folders(compiled(*SAMPLES[name]))}
    home = GOLDEN / name
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
