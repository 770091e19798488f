"""Trains the models of this application: `python build.py FOLDER` writes FOLDER/models/*.pt and windows.npz."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import locating
import numpy as np
import torch
from strips import Strip, render
from training import EPOCHS, Digits, load, train

HERE = Path(__file__).parent
TEST_STRIPS = range(10_000, 10_500)
"""Seeds of the strips that accuracy is measured on. They consist of test digits."""


def build(folder: Path) -> None:
    """Trains and writes the models, and prints their accuracy on strips of test digits.

    Args:
        folder: Folder of the application; the models go to its subfolder `models`.
    """
    training, testing = load()
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    strips = [render(seed, testing) for seed in TEST_STRIPS]
    np.savez(models / "windows.npz", **locating.train(training))
    for name, parameters in (("gaps", {"ink": "0.25"}), ("windows", {"likely": "-1"})):
        f1, yields = located(_load(name, models, parameters), strips)
        print(f"locate {name}: accuracy {f1:.4f}, yields {yields:.2f}", flush=True)
    cut = cut_out(strips)
    for name in EPOCHS:
        classifier = train(name, training)
        classifier.save(str(models / f"{name}.pt"))
        with torch.inference_mode():
            found, _ = classifier(torch.from_numpy(cut.images))
        print(f"classify {name}: accuracy {(found[:, 0].numpy() == cut.labels).mean():.4f}", flush=True)


def located(model: Any, strips: list[Strip]) -> tuple[float, float]:
    """Measures a model that locates digits.

    Returns:
        F1 score of the columns where digits begin, each exactly right or wrong, and mean number of digits found.
    """
    right = found = true = 0
    for strip in strips:
        columns = model({"STRIP": strip.image[None]})["COLUMN"][0]
        right += len(np.intersect1d(columns, strip.columns))
        found += len(columns)
        true += len(strip.columns)
    return 2 * right / (found + true), found / len(strips)


def cut_out(strips: list[Strip]) -> Digits:
    """Cuts the digits of strips out at their true places. Pixels are scaled to the range 0 to 1."""
    images = [strip.image[:, c : c + 8] for strip in strips for c in strip.columns]
    return Digits(np.stack(images).astype(np.float32) / 255, np.concatenate([strip.digits for strip in strips]))


def _load(name: str, folder: Path, parameters: dict[str, str]) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / "models" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model(folder, parameters, 1)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
