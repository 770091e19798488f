"""Measures the accuracy of traffic-cpu's variants on composed scenes. graph.yaml has these figures.

`python ensembles/traffic-cpu/accuracy.py` takes about a minute on one core, and needs `pip install scikit-image`.
"""

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from scenes import Scene, pictures_of_lfw, render

HERE = Path(__file__).parent
OVERLAP = 0.4
"""Least intersection over union of a found box and the true one."""

FACE_SCORE = 0.5
"""Least score of a face."""

CallModel = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
Boxes = NDArray[np.float32]


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
        spec = importlib.util.spec_from_file_location(f"traffic_{name}", Path(folder, "model.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model: CallModel = module.Model(Path(folder), parameters, threads)
    return model


def matches(found: Boxes, true: Boxes) -> list[tuple[int, int]]:
    """Matches found boxes with true ones; returns pairs of indices (found, true). No box is in two pairs."""
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    overlap = shared / (_area(found)[:, None] + _area(true)[None, :] - shared)
    pairs: dict[int, int] = {}
    for index in np.argsort(-overlap, axis=None, kind="stable"):
        box, truth = np.unravel_index(index, overlap.shape)
        if overlap[box, truth] < OVERLAP:
            break
        if box not in pairs and truth not in pairs.values():
            pairs[int(box)] = int(truth)
    return sorted(pairs.items())


def _area(boxes: Boxes) -> Boxes:
    area: Boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area


def detected(model: CallModel, scenes: Sequence[Scene]) -> tuple[float, float, float, float, list[Any]]:
    """Runs a detect variant on scenes.

    Returns:
        F1 scores of plates and faces, plates and faces found in a scene on average, and the crop and the true text of
        each plate that was found.
    """
    right, found, true = np.zeros(2), np.zeros(2), np.zeros(2)
    crops = []
    for scene in scenes:
        outputs = model({"IMAGE": scene.image[None]})
        truths = ([plate.box for plate in scene.plates], scene.faces)
        for kind, (name, boxes) in enumerate(zip(("PLATE_BOXES", "FACE_BOXES"), truths, strict=True)):
            pairs = matches(outputs[name][0], np.array(boxes, np.float32).reshape(-1, 4))
            right[kind] += len(pairs)
            found[kind] += outputs[name].shape[1]
            true[kind] += len(boxes)
            if kind == 0:
                crops += [(outputs["PLATES"][0, box], scene.plates[truth].text) for box, truth in pairs]
    plates, faces = 2 * right / (found + true)
    return float(plates), float(faces), found[0] / len(scenes), found[1] / len(scenes), crops


def read(model: CallModel, crops: Sequence[tuple[NDArray[np.uint8], str]]) -> float:
    """Returns the share of plates that a variant reads without a mistake."""
    texts = model({"PLATE": np.stack([crop for crop, _ in crops])})["TEXT"][:, 0]
    return statistics.mean(text.decode() == true for text, (_, true) in zip(texts, crops, strict=True))


def cut_out(scenes: Sequence[Scene], kind: str) -> NDArray[np.uint8]:
    """Cuts the `faces` or the `others` of scenes out at their true places, UINT8 [N, 48, 48, 3]."""
    boxes = [(scene.image, map(round, box)) for scene in scenes for box in getattr(scene, kind)]
    return np.stack([cv2.resize(image[y0:y1, x0:x1], (48, 48)) for image, (x0, y0, x1, y1) in boxes])


def told_apart(model: CallModel, faces: NDArray[np.uint8], others: NDArray[np.uint8]) -> tuple[float, float]:
    """Returns the share of faces and the share of other pictures that a variant takes for what they are."""
    is_face = [model({"FACE": pictures})["SCORE"] >= FACE_SCORE for pictures in (faces, others)]
    return float(is_face[0].mean()), 1 - float(is_face[1].mean())


def main() -> None:
    """Measures all variants and prints the tables."""
    parser = argparse.ArgumentParser(description="Measure the accuracy of traffic-cpu's variants.")
    parser.add_argument("--scenes", type=int, default=100, help="number of scenes")
    parser.add_argument(
        "--seed", type=int, default=1000, help="seed of the first scene; later scenes have the next seeds"
    )
    arguments = parser.parse_args()
    faces, others = pictures_of_lfw()
    scenes = [render(seed, faces, others) for seed in range(arguments.seed, arguments.seed + arguments.scenes)]
    print(f"{sum(len(s.plates) for s in scenes)} plates and {sum(len(s.faces) for s in scenes)} faces in all")

    print(f"\n{'detect':12}{'accuracy':>10}{'F1 plates':>12}{'F1 faces':>12}{'plates':>10}{'faces':>10}")
    best, crops = 0.0, []
    for name in variants("detect"):
        f1_plates, f1_faces, plates, people, cut = detected(load("detect", name), scenes)
        accuracy = (f1_plates + f1_faces) / 2
        print(f"{name:12}{accuracy:10.3f}{f1_plates:12.3f}{f1_faces:12.3f}{plates:10.2f}{people:10.2f}")
        if accuracy > best:
            best, crops = accuracy, cut

    print(f"\n{'plates':12}{'accuracy':>10}    (share of {len(crops)} plates that are read exactly)")
    for name in variants("plates"):
        print(f"{name:12}{read(load('plates', name), crops):10.3f}")

    faces, others = (cut_out(scenes, kind) for kind in ("faces", "others"))
    print(f"\n{'faces':12}{'accuracy':>10}{'faces':>12}{'others':>12}    (of {len(faces)} and {len(others)} pictures)")
    for name in variants("faces"):
        shares = told_apart(load("faces", name), faces, others)
        print(f"{name:12}{statistics.mean(shares):10.3f}" + "".join(f"{share:12.3f}" for share in shares))


if __name__ == "__main__":
    main()
