"""Reads the folder of a Hugging Face model, as `save_pretrained` writes it, without the package transformers."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jigsaw_triton.errors import InputError
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.spec.files import load_text

CONFIG = "config.json"
TEMPLATE = "transformers"
PIPELINE = "pipeline"
"""Parameter of a variant with the name of its pipeline."""

_LIMIT_BYTES = 16 * 2**20
_SAVE = "save the model with model.save_pretrained(FOLDER), and its tokenizer with tokenizer.save_pretrained(FOLDER)"
_LFS = b"version https://git-lfs"

_PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForCTC": "automatic-speech-recognition",
    "Model": "feature-extraction",
}
"""Suffix of the name of a model's class -> the pipeline that serves such models."""

_VARYING = frozenset({"feature-extraction", "object-detection", "token-classification"})
"""Pipelines whose results differ in number between items, or have a dimension that does."""

_TEXT = {"TEXT": b"A short text."}
_EXAMPLES: Mapping[str, Mapping[str, bytes]] = {
    "feature-extraction": _TEXT,
    "text-classification": _TEXT,
    "text-generation": _TEXT,
    "token-classification": _TEXT,
}
"""Pipeline of texts -> inputs of one item."""


def read_transformers(path: Path) -> None:
    """Checks that a config.json is that of a Hugging Face model.

    Raises:
        InputError: The file cannot be read, or is not such a configuration.
    """
    _config(path)


def _config(path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(load_text(path, limit_bytes=_LIMIT_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is not JSON ({error})", where=str(path), hint=_SAVE) from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError("this is not the configuration of a Hugging Face model", where=str(path), hint=_SAVE)
    return config


def pipeline_of(folder: Path) -> str:
    """Returns the pipeline that serves the model in a folder.

    Raises:
        InputError: The class of the model belongs to no pipeline, or to several.
    """
    file = folder / CONFIG
    classes = _config(file).get("architectures")
    name = str(classes[0]) if isinstance(classes, list) and classes else ""
    for end, pipeline in _PIPELINES.items():
        if name.endswith(end):
            return pipeline
    raise InputError(
        f"the pipeline of {name or 'the model'} is not known",
        where=str(file),
        hint=f"name it with --parameter {PIPELINE}=NAME, such as text-classification",
    )


def model_files(folder: Path) -> dict[str, Path]:
    """Returns the files that transformers needs to load the model: its configuration, its tokenizer and its weights.

    Raises:
        InputError: There are no weights, or they are pointers of Git LFS.
    """
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    weights = [name for name in found if name.endswith(".safetensors")]
    if not weights:
        weights = [name for name in found if name.startswith("pytorch_model") and name.endswith(".bin")]
    if not weights:
        message = "the folder has no weights (model.safetensors or pytorch_model.bin)"
        raise InputError(message, where=str(folder), hint=_SAVE)
    for name in weights:
        with found[name].open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                message = "this is a pointer of Git LFS, not weights"
                raise InputError(message, where=str(found[name]), hint="run git lfs pull")
    other_weights = "pytorch_model.bin" if weights[0].endswith(".safetensors") else "model.safetensors"
    texts = (".json", ".jinja", ".model", ".txt")
    kept = [n for n in found if n.endswith(texts) and not n.startswith((other_weights, "README", "requirements"))]
    return {name: found[name] for name in sorted({*kept, *weights})}


def example(pipeline: str) -> Arrays:
    """Returns inputs of one item for a pipeline of texts, by name; nothing for any other pipeline."""
    return {name: np.array(text, np.object_) for name, text in _EXAMPLES.get(pipeline, {}).items()}


def varies(pipeline: str) -> bool:
    """Returns True if the first dimension of the results differs between items."""
    return pipeline in _VARYING
