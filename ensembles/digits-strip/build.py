"""Trains the models of this application: `python build.py FOLDER` writes FOLDER/models/*.pt and windows.npz."""

import sys
from pathlib import Path

import locating
import numpy as np
import strips  # noqa: F401  (puts the folder of training.py on the path)
from training import EPOCHS, load, train


def build(folder: Path) -> None:
    """Trains and writes the models.

    Args:
        folder: Folder of the application; the models go to its subfolder `models`.
    """
    training, _ = load()
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    np.savez(models / "windows.npz", **locating.train(training))
    print("windows is trained", flush=True)
    for name in EPOCHS:
        train(name, training).save(str(models / f"{name}.pt"))
        print(f"{name} is trained", flush=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
