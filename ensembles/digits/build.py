"""Trains the classifiers of this application: `python build.py FOLDER` writes FOLDER/models/*.pt."""

import sys
from pathlib import Path

from training import EPOCHS, accuracy, load, train


def build(folder: Path) -> None:
    """Trains each classifier, writes it as TorchScript, and prints its accuracy on the test digits.

    Args:
        folder: Folder of the application; the models go to its subfolder `models`.
    """
    training, testing = load()
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for name in EPOCHS:
        classifier = train(name, training)
        classifier.save(str(folder / "models" / f"{name}.pt"))
        print(f"{name}: accuracy {accuracy(classifier, testing):.4f}", flush=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
