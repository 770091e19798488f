"""Measures the accuracy of docread's variants on rendered pages. graph.yaml has these figures.

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
"""Least share of the true box that a found box covers, and least share of the found box that the true one fills.

These are the area recall and area precision of ICDAR 2013's protocol for text detection (DetEval).
"""

CallModel = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
Boxes = NDArray[np.float32]


@dataclass(slots=True)
class Found:
    """Result of a detect variant on the pages of one flavour.

    Attributes:
        true: Number of lines on the pages.
        found: Number of lines that the variant found.
        right: Crop and true text of each line that was found correctly.
    """

    true: int
    found: int
    right: list[tuple[NDArray[np.uint8], str]]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * len(self.right) / (self.true + self.found)


def variants(task: str) -> dict[str, dict[str, Any]]:
    """Reads the variants of a task from graph.yaml. Returns them by name."""
    document = yaml.safe_load((HERE / "graph.yaml").read_text(encoding="utf-8"))
    return {variant["name"]: variant for variant in document["spec"]["tasks"][task]["variants"]}


def load(task: str, name: str, threads: int = 1) -> CallModel:
    """Loads the model of a variant as a worker does: from a folder with its artifacts under the names of graph.yaml."""
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
    """Matches found boxes with true lines.

    Returns:
        Pairs of indices (box, line). A box or line that matches several others is in no pair.
    """
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
    """Runs a detect variant on pages."""
    result = Found(0, 0, [])
    for page in pages:
        outputs = model({"IMAGE": page.image[None]})
        boxes, crops = outputs["BOXES"][0], outputs["CROPS"][0]
        result.true += len(page.lines)
        result.found += len(boxes)
        result.right += [(crops[box], page.lines[line].text) for box, line in matches(boxes, page.lines)]
    return result


def exact(model: CallModel, found: Found) -> int:
    """Counts the correctly found lines that a recognise variant reads without a mistake."""
    read = [model({"CROP": crop[None]})["TEXT"][0, 0].decode() == text for crop, text in found.right]
    return sum(read)


def main() -> None:
    """Measures all variants and prints the tables."""
    parser = argparse.ArgumentParser(description="Measure the accuracy of docread's variants.")
    parser.add_argument("--pages", type=int, default=40, help="number of pages of each flavour")
    parser.add_argument(
        "--seed", type=int, default=1000, help="seed of the first page; later pages have the next seeds"
    )
    parser.add_argument("--pairs", action="store_true", help="also measure each pair of variants end to end (slow)")
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
