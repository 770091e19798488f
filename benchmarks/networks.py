"""Public facts about the networks of the applications `social`, `traffic` and `ar`: sizes, operations, operators.

`parameters_m` and `gflops` are what the authors publish, unless a comment says otherwise. A multiplication with an
addition counts as two operations. `operators` is the number of operators (convolutions, normalisations, activations,
additions, ...) that a framework without fusion launches for a batch, counted from the published architectures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["depthwise", "residual", "plain", "transformer", "vocoder"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network that a variant stands for.

    Attributes:
        family: Kind of the network, by which GPUs differ in speed.
        operators: Operators that are launched for a batch.
        gflops: Operations for an item, in billions.
        parameters_m: Parameters, in millions; each takes four bytes.
    """

    family: Family
    operators: int
    gflops: float
    parameters_m: float


SPEECH_S = 4.0
"""Assumed length of a spoken caption: ten words at 150 words a minute, a usual rate of speech."""

CAPTION_TOKENS = 12
"""Assumed tokens of a caption: ten words, the mean of COCO's captions, and some words of two tokens."""

_LAYER_OPERATORS = 17
"""Operators of a transformer layer without fusion: attention has eleven, and the rest six."""

_STEP_OPERATORS = 6 * _LAYER_OPERATORS + 4
"""Operators of a step of GIT's decoder: six layers, the embedding, a normalisation, the vocabulary, and its maximum."""


def transformer_gflops(layers: int, width: int, tokens: int) -> float:
    """Returns the operations of a transformer whose inner layers are four times as wide, in billions."""
    return 2 * layers * (12 * width**2 * tokens + 2 * tokens**2 * width) / 1e9


def _captioning(layers: int, width: int, tokens: int, parameters_m: float) -> Network:
    """Returns GIT with an image encoder of this size. Its decoder of six layers runs once for each token."""
    return Network(
        "transformer",
        layers * _LAYER_OPERATORS + (1 + CAPTION_TOKENS) * _STEP_OPERATORS,
        transformer_gflops(layers, width, tokens) + transformer_gflops(6, 768, tokens + CAPTION_TOKENS),
        parameters_m,
    )


NETWORKS: Mapping[str, Network] = {
    # torchvision's table of weights, which gives multiplications; layers of the architecture.
    "resnet18": Network("residual", 68, 2 * 1.81, 11.7),
    "resnet34": Network("residual", 124, 2 * 3.66, 21.8),
    "resnet50": Network("residual", 174, 2 * 4.09, 25.6),
    "resnet101": Network("residual", 344, 2 * 7.80, 44.5),
    "resnet152": Network("residual", 514, 2 * 11.51, 60.2),
    "vgg11": Network("plain", 27, 2 * 7.61, 132.9),
    "vgg13": Network("plain", 31, 2 * 11.31, 133.0),
    "vgg16": Network("plain", 37, 2 * 15.47, 138.4),
    "vgg19": Network("plain", 43, 2 * 19.63, 143.7),
    # torchvision's table of weights; layers as Keras counts them. b0 has images of 224 x 224, b7 of 600 x 600.
    "efficientnet-b0": Network("depthwise", 237, 2 * 0.39, 5.3),
    "efficientnet-b1": Network("depthwise", 339, 2 * 0.69, 7.8),
    "efficientnet-b2": Network("depthwise", 339, 2 * 1.09, 9.1),
    "efficientnet-b3": Network("depthwise", 384, 2 * 1.83, 12.2),
    "efficientnet-b4": Network("depthwise", 474, 2 * 4.39, 19.3),
    "efficientnet-b5": Network("depthwise", 576, 2 * 10.27, 30.4),
    "efficientnet-b6": Network("depthwise", 666, 2 * 19.07, 43.0),
    "efficientnet-b7": Network("depthwise", 813, 2 * 37.75, 66.3),
    # Ultralytics' table for images of 640 x 640; layers as its `detect.py` prints them, without fusion.
    "yolov5n": Network("residual", 213, 4.5, 1.9),
    "yolov5s": Network("residual", 213, 16.5, 7.2),
    "yolov5m": Network("residual", 290, 49.0, 21.2),
    "yolov5l": Network("residual", 367, 109.1, 46.5),
    "yolov5x": Network("residual", 444, 205.7, 86.7),
    # arXiv 2205.14100: a ViT-B/16 or ViT-L/14 encodes an image of 224 x 224 as 197 or 257 tokens.
    "git-base": _captioning(12, 768, 197, 129.0),
    "git-large": _captioning(24, 1024, 257, 347.0),
    # arXiv 2006.04558 and 2010.05646. FastSpeech 2 has 170 operators, 2.3 GFLOP for a second and 27 M parameters. The
    # operations of HiFi-GAN follow from its published layers: 52.8, 3.3 and 3.8 GFLOP for a second of speech.
    "fastspeech2-hifigan-v1": Network("vocoder", 170 + 204, SPEECH_S * (2.3 + 52.8), 27 + 13.9),
    "fastspeech2-hifigan-v2": Network("vocoder", 170 + 204, SPEECH_S * (2.3 + 3.3), 27 + 0.9),
    "fastspeech2-hifigan-v3": Network("vocoder", 170 + 73, SPEECH_S * (2.3 + 3.8), 27 + 1.5),
    # arXiv 2106.06103: its decoder is HiFi-GAN V1. Encoder, durations and flow have about 450 operators, 1.3 GFLOP for
    # a second and 15 M parameters, estimated from the published layers.
    "vits": Network("vocoder", 450 + 204, SPEECH_S * (1.3 + 52.8), 29.0),
}
"""Name of a variant -> network."""

TABLE_OPERATORS: Mapping[str, int] = {
    "bert": 24 * _LAYER_OPERATORS + 6,
    "densenet121": 426,
    "densenet169": 594,
    "densenet201": 706,
    "inceptionv3": 307,
    "mobilenetv2": 151,
    "resnet50": 174,
    "resnet101": 344,
    "resnet152": 514,
    "vgg16": 37,
    "vgg19": 43,
}
"""Name of a model in the A100 table -> operators, counted in the same way from the published architectures."""

TABLE_GFLOPS: Mapping[str, float] = {
    "bert": transformer_gflops(24, 1024, 128),
    "densenet121": 2 * 2.83,
    "densenet169": 2 * 3.36,
    "densenet201": 2 * 4.29,
    "inceptionv3": 2 * 5.71,
    "mobilenetv2": 2 * 0.30,
    "resnet50": 2 * 4.09,
    "resnet101": 2 * 7.80,
    "resnet152": 2 * 11.51,
    "vgg16": 2 * 15.47,
    "vgg19": 2 * 19.63,
}
"""Name of a model in the A100 table -> operations for an item, in billions: torchvision's table of weights, which gives
multiplications, and `transformer_gflops` for a BERT-large on 128 tokens."""
