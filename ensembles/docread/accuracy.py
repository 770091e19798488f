"""Measures the accuracy of docread's variants on rendered pages: the figures that graph.yaml carries.

`python ensembles/docread/accuracy.py` takes about five minutes on one core.
"""

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pages import FLAVOURS, Flavour, Line, Page, render

HERE = Path(__file__).parent
COVERED, FILLED = 0.8, 0.4
"""A found line is a true one if it covers 80 % of its box, and the true one fills 40 % of the found one.

The area recall and area precision of ICDAR 2013's protocol for text detection (DetEval).
"""

CallModel = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
Boxes = NDArray[np.float32]


@dataclass(slots=True)
class Found:
    """What a detect variant found on the pages of one flavour.

    Attributes:
        true: Lines that are there.
        found: Lines that it found.
        right: Found lines that are true ones: their crop and their text.
    """

    true: int
    found: int
    right: list[tuple[NDArray[np.uint8], str]]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * len(self.right) / (self.true + self.found)


def variants(task: str) -> dict[str, dict[str, Any]]:
    """The variants of a task as graph.yaml has them, by name."""
    document = yaml.safe_load((HERE / "graph.yaml").read_text(encoding="utf-8"))
    return {variant["name"]: variant for variant in document["spec"]["tasks"][task]["variants"]}


def load(task: str, name: str, threads: int = 1) -> CallModel:
    """The model of a variant, as a worker loads it: its artifacts under the names of graph.yaml in a folder."""
    variant = variants(task)[name]
    parameters = {key: str(value) for key, value in variant.get("parameters", {}).items()}
    with tempfile.TemporaryDirectory() as folder:
        for file, source in variant["artifacts"].items():
            Path(folder, file).symlink_to((HERE / source).resolve())
        spec = importlib.util.spec_from_file_location(f"docread_{name}", Path(folder, "model.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model: CallModel = module.Model(Path(folder), parameters, threads)
    return model


def matches(boxes: Boxes, lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Pairs of a found box and a true line; a box or a line that could be in two pairs is in none."""
    true = np.array([line.box for line in lines], np.float32).reshape(-1, 4)
    overlap = np.minimum(boxes[:, None, 2:], true[None, :, 2:]) - np.maximum(boxes[:, None, :2], true[None, :, :2])
    shared = np.clip(overlap, 0, None).prod(axis=2)
    same = (shared >= COVERED * _area(true)[None, :]) & (shared >= FILLED * _area(boxes)[:, None])
    alone = (same.sum(axis=1, keepdims=True) == 1) & (same.sum(axis=0, keepdims=True) == 1)
    return [(int(box), int(line)) for box, line in zip(*np.nonzero(same & alone), strict=True)]


def _area(boxes: Boxes) -> Boxes:
    area: Boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area


def find(model: CallModel, pages: Sequence[Page]) -> Found:
    """Runs a detect variant over pages."""
    result = Found(0, 0, [])
    for page in pages:
        outputs = model({"IMAGE": page.image[None]})
        boxes, crops = outputs["BOXES"][0], outputs["CROPS"][0]
        result.true += len(page.lines)
        result.found += len(boxes)
        result.right += [(crops[box], page.lines[line].text) for box, line in matches(boxes, page.lines)]
    return result


def exact(model: CallModel, found: Found) -> int:
    """How many of the rightly found lines a recognise variant reads without a mistake."""
    read = [model({"CROP": crop[None]})["TEXT"][0, 0].decode() == text for crop, text in found.right]
    return sum(read)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Measure the accuracy of docread's variants.")
    parser.add_argument("--pages", type=int, default=40, help="of each flavour")
    parser.add_argument("--seed", type=int, default=1000, help="of the first page; the next ones follow")
    parser.add_argument("--pairs", action="store_true", help="measure each pair of variants end to end too (slow)")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.pages)
    pages: dict[Flavour, list[Page]] = {flavour: [render(seed, flavour) for seed in seeds] for flavour in FLAVOURS}

    print(f"{'detect':14}{'accuracy':>10}" + "".join(f"{'F1 ' + f:>10}" for f in FLAVOURS) + f"{'lines':>8}")
    found: dict[str, dict[Flavour, Found]] = {}
    for name in variants("detect"):
        model = load("detect", name)
        found[name] = {flavour: find(model, pages[flavour]) for flavour in FLAVOURS}
        scores = [found[name][flavour].f1 for flavour in FLAVOURS]
        lines = sum(part.found for part in found[name].values()) / sum(map(len, pages.values()))
        print(f"{name:14}{statistics.mean(scores):10.3f}" + "".join(f"{s:10.3f}" for s in scores) + f"{lines:8.1f}")

    best = max(found, key=lambda name: statistics.mean(part.f1 for part in found[name].values()))
    print(f"\n{'recognise':14}{'accuracy':>10}" + "".join(f"{'exact ' + f:>12}" for f in FLAVOURS))
    for name in variants("recognise"):
        model = load("recognise", name)
        scores = [exact(model, part) / len(part.right) for part in found[best].values()]
        print(f"{name:14}{statistics.mean(scores):10.3f}" + "".join(f"{s:12.3f}" for s in scores))

    if arguments.pairs:
        print("\nshare of all lines that are found and read without a mistake")
        print(f"{'':14}" + "".join(f"{name:>12}" for name in variants("recognise")))
        readers = [load("recognise", name) for name in variants("recognise")]
        for name, parts in found.items():
            shares = [statistics.mean(exact(r, part) / part.true for part in parts.values()) for r in readers]
            print(f"{name:14}" + "".join(f"{share:12.3f}" for share in shares))


if __name__ == "__main__":
    main()
