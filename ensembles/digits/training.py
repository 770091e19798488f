"""Handwritten digits (scikit-learn's, 8 x 8 pixels) and the networks that tell them apart; trained in seconds."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0
BRIGHTEST = 16.0
"""Largest value of a pixel in the data set."""

EPOCHS = {"linear": 40, "mlp": 40, "cnn_s": 20, "cnn_m": 40}
BATCH = 64


@dataclass(frozen=True, slots=True)
class Digits:
    """Images and what they show.

    Attributes:
        images: FP32 [N, 8, 8], 0 to 16.
        labels: INT64 [N].
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load() -> tuple[Digits, Digits]:
    """The data set's 1797 digits: 60 % to train with, 40 % to test with; always the same."""
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
    """[N, 8, 8], 0 to 1 -> digit INT64 [N, 1], scores FP32 [N, 10] that add up to 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Runs a batch."""
        scores = torch.softmax(self.network(images.unsqueeze(1)), dim=1)
        return scores.argmax(dim=1, keepdim=True), scores


def network(name: str) -> nn.Module:
    """An untrained network [N, 1, 8, 8] -> [N, 10]; the later the larger: linear, mlp, cnn_s, cnn_m."""
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
    """Trains a classifier; the same each time."""
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


def accuracy(classifier: nn.Module, digits: Digits) -> float:
    """Share of the digits that it tells right."""
    with torch.inference_mode():
        found, _ = classifier(torch.from_numpy(digits.images / BRIGHTEST))
    return float((found[:, 0].numpy() == digits.labels).mean())
