"""Training of the network with which `models/windows.py` locates digits on strips."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from strips import render
from torch import nn
from training import Digits

SEED = 0
STRIPS = 400
"""Number of strips to train on."""

MARGIN = 4
"""Columns that the network sees on each side of a digit."""

HIDDEN = 48
EPOCHS = 8
WIDTH = 8 + 2 * MARGIN
"""Columns of a window, which is what the network sees at a time."""


def train(digits: Digits) -> dict[str, NDArray[Any]]:
    """Trains the network on strips of these digits. The result is always the same.

    Returns:
        Weights of the network by the names that models/windows.py reads.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    windows, begins = _windows(digits)
    network = nn.Sequential(nn.Linear(8 * WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(begins)).split(256):
            optimiser.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(network(windows[rows])[:, 0], begins[rows])
            loss.backward()
            optimiser.step()
    weights: dict[str, NDArray[Any]] = {"margin": np.array(MARGIN)}
    for i, layer in enumerate((network[0], network[2])):
        weights |= {f"weight_{i}": layer.weight.detach().numpy().T, f"bias_{i}": layer.bias.detach().numpy()}
    return weights


def _windows(digits: Digits) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of all training strips, and 1.0 for each window in which a digit begins."""
    windows, begins = [], []
    for seed in range(STRIPS):
        strip = render(seed, digits)
        padded = np.pad(strip.image.astype(np.float32) / 255, ((0, 0), (MARGIN, MARGIN + 8)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, WIDTH, axis=1)[:, : strip.image.shape[1]]
        windows.append(seen.transpose(1, 0, 2).reshape(-1, 8 * WIDTH))
        begins.append(np.isin(np.arange(strip.image.shape[1]), strip.columns).astype(np.float32))
    return torch.from_numpy(np.concatenate(windows)), torch.from_numpy(np.concatenate(begins))
