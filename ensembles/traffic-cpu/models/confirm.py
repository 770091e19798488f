"""Tells faces from false alarms of the detector: the second (R-Net) and the third (O-Net) network of MTCNN.

Parameters:

- `network`: `rnet` or `onet`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

NETWORKS = {"rnet": (24, (3, 3)), "onet": (48, (3, 3, 2))}
"""Name -> side of the square input in pixels, and size of the maximum filter after each of the first convolutions."""


class Model:
    """FACE UINT8 [N, H, H, 3] (RGB) -> SCORE FP32 [N, 1], the probability of a face."""

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        torch.set_num_threads(threads)
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
        self._side, pools = NETWORKS[parameters["network"]]
        self._layers = list(_layers(weights, pools))

    def __call__(self, inputs: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
        """Runs a batch of crops."""
        faces = inputs["FACE"]
        if not len(faces):
            return {"SCORE": np.zeros((0, 1), np.float32)}
        small = [cv2.resize(face, (self._side, self._side), interpolation=cv2.INTER_AREA) for face in faces]
        tensor = (torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() - 127.5) / 128
        with torch.inference_mode():
            for layer in self._layers:
                tensor = layer(tensor)
        return {"SCORE": tensor.softmax(dim=1)[:, 1:].numpy()}


def _layers(weights: Mapping[str, Tensor], pools: tuple[int, ...]) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yields the layers up to the two classes: no face, face."""
    number = 1
    while (name := f"features.conv{number}.weight") in weights:
        kernel, bias = weights[name], weights[f"features.conv{number}.bias"]
        convolves = kernel.dim() == 4
        if not convolves and weights[f"features.conv{number - 1}.weight"].dim() == 4:
            # MTCNN was trained with columns before rows.
            yield lambda maps: maps.transpose(2, 3).flatten(1)
        apply = functional.conv2d if convolves else functional.linear
        yield partial(apply, weight=kernel, bias=bias)
        yield partial(functional.prelu, weight=weights[f"features.prelu{number}.weight"])
        if number <= len(pools):
            yield partial(functional.max_pool2d, kernel_size=pools[number - 1], stride=2, ceil_mode=True)
        number += 1
    yield partial(functional.linear, weight=weights[f"conv{number}_1.weight"], bias=weights[f"conv{number}_1.bias"])
