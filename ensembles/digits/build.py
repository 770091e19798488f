"""Trains the classifiers of this application: `python build.py FOLDER` writes FOLDER/models/*.pt."""

import sys
from pathlib import Path

from training import EPOCHS, load, train


def build(folder: Path) -> None:
    """Trains each classifier and writes it as TorchScript.

    Args:
        folder: Folder of the application; the models go to its subfolder `models`.
    """
    training, _ = load()
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for name in EPOCHS:
        train(name, training).save(str(folder / "models" / f"{name}.pt"))
        print(f"{name} is trained", flush=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
