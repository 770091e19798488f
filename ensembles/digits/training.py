"""Handwritten digits (scikit-learn's, 8 x 8 pixels), and small networks that classify them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0
BRIGHTEST = 16.0
"""Largest pixel value in the data set."""

EPOCHS = {"linear": 40, "mlp": 40, "cnn_s": 20, "cnn_m": 40}
"""Epochs of training for each network, by name."""

BATCH = 64


@dataclass(frozen=True, slots=True)
class Digits:
    """Images of digits with their labels.

    Attributes:
        images: Pixels, FP32 [N, 8, 8], 0 to 16.
        labels: Digits that the images show, INT64 [N].
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load() -> tuple[Digits, Digits]:
    """Loads the 1797 digits of the data set, split with a fixed seed.

    Returns:
        Training digits (60%) and test digits (40%).
    """
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images.reshape(-1, 8, 8).astype(np.float32),
        labels.astype(np.int64),
        test_size=0.4,
        random_state=SEED,
        stratify=labels,
    )
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


class Classifier(nn.Module):
    """Images [N, 8, 8], 0 to 1 -> digits INT64 [N, 1], and scores FP32 [N, 10] that add up to 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Runs one batch."""
        scores = torch.softmax(self.network(images.unsqueeze(1)), dim=1)
        return scores.argmax(dim=1, keepdim=True), scores


def network(name: str) -> nn.Module:
    """Returns an untrained network [N, 1, 8, 8] -> [N, 10]: linear, mlp, cnn_s or cnn_m, from small to large."""
    match name:
        case "linear":
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        case "mlp":
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        case "cnn_s":
            return _convolutional(8)
        case "cnn_m":
            return _convolutional(32)
    raise KeyError(name)


def _convolutional(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * channels * 4, 10),
    )


def train(name: str, digits: Digits) -> torch.jit.ScriptModule:
    """Trains a classifier. The result is always the same."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    images, labels = torch.from_numpy(digits.images / BRIGHTEST), torch.from_numpy(digits.labels)
    classifier = Classifier(network(name))
    optimiser = torch.optim.Adam(classifier.parameters(), lr=4e-3)
    for _ in range(EPOCHS[name]):
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(classifier.network(images[rows].unsqueeze(1)), labels[rows])
            loss.backward()
            optimiser.step()
    return torch.jit.script(classifier.eval())
