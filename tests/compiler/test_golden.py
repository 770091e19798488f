"""Whole configurations and routes against golden files.

After an intended change, rewrite the golden files with `JIGSAW_GOLDEN=write pytest ...`.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Bundle, ModelFolder
from jigsaw_triton.compiler.route import route_json
from jigsaw_triton.graph.model import TaskGraph
from tests.compiler.samples import compiled, every, together
from tests.fakes.graphs import chain, conditional, cropping, fan_out, graph, nested, task

GOLDEN = Path(__file__).parent / "golden"


def bls() -> TaskGraph:
    """A graph with one tensor under two names, which an ensemble cannot express."""
    return graph([task("only", {"X": "inputs.X"})], {"ONE": "only.Y", "TWO": "only.Y"}, name="bls", target="bls")


def as_ensemble(of: TaskGraph) -> TaskGraph:
    return replace(of, target="ensemble")


def folders(bundle: Bundle) -> list[ModelFolder]:
    workers = [model.folder for worker in bundle.workers.values() for model in worker.models]
    gateway = [folder for item in bundle.graphs.values() for folder in (*item.models, item.front)]
    return workers + gateway


RATES = {"classify": 300.0, "inspect": 50.0}
SAMPLES = {
    **{of.name: (of, every(of, rates=RATES)) for of in (bls(), cropping(), nested())},
    **{of.name: (as_ensemble(of), every(of, rates=RATES)) for of in (chain(), fan_out(), conditional())},
    "together": (chain(), together(chain())),
}
"""Graph and plan for each folder of golden files."""


@pytest.mark.parametrize("name", SAMPLES)
def test_configurations_and_routes_match_the_golden_files(name: str) -> None:
    bundle = compiled(*SAMPLES[name])
    made = {f"{f.name}.pbtxt": f.files["config.pbtxt"] for f in folders(bundle)}
    for form in bundle.graphs.values():
        made |= {f"{task.name}.json": route_json(task.route) for task in form.every_task.values()}
    home = GOLDEN / name
    if os.environ.get("JIGSAW_GOLDEN") == "write":
        home.mkdir(parents=True, exist_ok=True)
        for old in home.iterdir():
            old.unlink()
        for name, content in made.items():
            assert isinstance(content, bytes)
            (home / name).write_bytes(content)
    assert made == {path.name: path.read_bytes() for path in home.iterdir()}
