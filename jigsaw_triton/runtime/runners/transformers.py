"""Runner of Hugging Face models. The artifacts are the files of a model's folder, as `save_pretrained` writes them.

The parameter `pipeline` names the pipeline, such as `text-classification`; all others are arguments of its calls. The
model comes from its folder alone: nothing is downloaded, and no code in the folder is run.
"""

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

# transformers reads these variables when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
import transformers

from jigsaw_triton.runtime.dtypes import Array, Arrays, to_bytes, to_numpy
from jigsaw_triton.runtime.runners.base import Runner, artifact
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

PIPELINE = "pipeline"
"""Parameter with the name of the pipeline."""

_MEDIA = ("image", "audio", "video")
"""Prefixes of the names of inputs that are not texts, in pipelines of several inputs."""

_TRANSLATION = "translation_"
"""Prefix of the names of pipelines that translate: `translation_en_to_de`."""

_SPEECH = "text-to-audio"
"""The pipeline of texts whose models may have a feature extractor."""

ONLY_OUTPUT = "OUTPUT"
"""Name of the output of a pipeline whose results are not dictionaries, if none is declared."""


class TransformersRunner(Runner):
    """A pipeline.

    Args:
        spec: Specification of the variant.
        pipeline: Pipeline of transformers.
        arguments: Arguments of each call.
    """

    def __init__(self, spec: RunnerSpec, pipeline: Any, arguments: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self._pipeline = pipeline
        self._arguments = dict(arguments)

    def run(self, inputs: Arrays) -> Arrays:
        """Calls the pipeline once for all items.

        Raises:
            ValueError: A result has no value for an output, or one of another form.
        """
        count = len(next(iter(inputs.values())))
        items = [self._item({name: array[index, ...] for name, array in inputs.items()}) for index in range(count)]
        if count == 1:
            # Some pipelines treat a list of one item as the item.
            results = [self._pipeline(items[0], **self._arguments)]
        else:
            results = list(self._pipeline(items, batch_size=count, **self._arguments))
        if len(results) != count:
            raise ValueError(f"the pipeline returned {len(results)} results for {count} items")
        outputs = self.spec.outputs or [TensorSpec(name, "", (-1,)) for name in _keys(results[0])]
        made = {output.name: [_tensor(result, output, self.spec) for result in results] for output in outputs}
        return {name: np.stack(arrays) for name, arrays in made.items()}

    def _item(self, tensors: Arrays) -> Any:
        """Returns what the pipeline gets of an item: the value of its only input, or all of them by name."""
        values = {name.lower(): _value(array) for name, array in tensors.items()}
        return values if len(values) > 1 else next(iter(values.values()))


def _value(array: Array) -> Any:
    """Returns a text, a list of texts, an image, or the array itself."""
    if array.dtype == np.object_:
        texts = [element.decode() for element in array.reshape(-1)]
        return texts[0] if array.shape in ((), (1,)) else texts
    if array.dtype == np.uint8 and array.ndim == 3:
        from PIL import Image

        return Image.fromarray(np.array(array))
    # Triton's memory is read-only, which torch warns about.
    return np.array(array)


def _keys(result: Any) -> list[str]:
    """Returns the keys of a result that have values."""
    first = result[0] if isinstance(result, list) and result else result
    if not isinstance(first, Mapping):
        return [ONLY_OUTPUT]
    return [str(key) for key, value in first.items() if value is not None]


def _tensor(result: Any, output: TensorSpec, spec: RunnerSpec) -> Array:
    """Returns an output of one item.

    Args:
        result: Result of the pipeline: a dictionary, a list of them, or a value.
        output: Declaration of the output. Without a data type, the value decides.
        spec: Specification of the variant.

    Raises:
        ValueError: The result has no such value.
    """
    found = [_entry(part, output.name) for part in result] if _listed(result) else _entry(result, output.name, spec)
    array = _array(found, output.dtype)
    if not array.size and any(dim < 0 for dim in output.shape):
        return array.reshape([max(dim, 0) for dim in output.shape])  # An empty list has no further dimensions.
    if not output.dtype:
        return array[0, ...] if array.shape[:1] == (1,) else array
    # A pipeline wraps the result of one item in lists of one element.
    while array.ndim > len(output.shape) and array.shape[0] == 1:
        array = array[0, ...]  # array[0] would be an element, not an array, if the array holds objects.
    return array.reshape((1,) * (len(output.shape) - array.ndim) + array.shape)


def _listed(result: Any) -> bool:
    return isinstance(result, list) and all(isinstance(part, Mapping) for part in result)


def _entry(result: Any, name: str, spec: RunnerSpec | None = None) -> Any:
    """Returns the value of a result that an output has: by its name in any case, or the result itself.

    Raises:
        ValueError: The result has no such value.
    """
    if not isinstance(result, Mapping):
        if spec is not None and len(spec.outputs) > 1:
            raise ValueError("the pipeline returns one value, so the task must declare one output")
        return result
    for key, value in result.items():
        if str(key).lower() == name.lower() and value is not None:
            return value
    raise ValueError(f"the pipeline returned no output {name}; it returned {', '.join(map(str, result))}")


def _array(value: Any, dtype: str) -> Array:
    """Converts a value to an array of a data type, or of the type that suits the value if there is none.

    Raises:
        ValueError: The value cannot be converted.
    """
    value = _plain(value)
    array = np.asarray(value)
    if dtype == "BYTES" or array.dtype.kind in "SUO":
        return to_bytes(value)
    if not dtype:
        dtype = "FP32" if array.dtype == np.float64 else ""
    casting: Any = "same_kind" if array.size else "unsafe"  # An empty list has no type.
    try:
        return array.astype(to_numpy(dtype), casting=casting) if dtype else array
    except TypeError as error:
        raise ValueError(str(error)) from error


def _plain(value: Any) -> Any:
    """Replaces tensors by arrays, and dictionaries such as boxes by their values."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().float().numpy() if value.is_floating_point() else value.cpu().numpy()
    if isinstance(value, Mapping):
        return [_plain(part) for part in value.values()]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value


def _argument(text: str) -> Any:
    """Returns the value of a parameter: a number, a truth value or a list in the form of JSON, or the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refuse_addresses(pipeline: Any, spec: RunnerSpec) -> None:
    """Refuses texts as images, sounds and videos, because a pipeline opens the file or the URL that such a text names.

    Raises:
        RuntimeError: An input has the type of a text.
    """
    parts = (pipeline, getattr(pipeline, "processor", None))
    processors = ("image_processor", "feature_extractor")
    media = pipeline.task != _SPEECH and any(getattr(part, name, None) for part in parts for name in processors)
    for tensor in spec.inputs:
        named = tensor.name.lower().startswith(_MEDIA)
        if tensor.dtype == "BYTES" and (named if len(spec.inputs) > 1 else media):
            raise RuntimeError(
                f"the input {tensor.name} is a text, which {pipeline.task} would open as a file or a URL;"
                " declare UINT8 [-1, -1, 3] for an image, or FP32 [-1] for a sound"
            )


def load(folder: Path, spec: RunnerSpec, _instance: str) -> TransformersRunner:
    """Loads the model, on the GPU if torch has one.

    Raises:
        RuntimeError: The parameter `pipeline` or config.json is missing, there is no such pipeline, or an input may not
            be a text.
    """
    artifact(folder, "config.json")
    arguments = {name: _argument(text) for name, text in spec.parameters.items()}
    name = arguments.pop(PIPELINE, None)
    if name is None:
        raise RuntimeError(f"the parameter {PIPELINE} is missing; write parameters: {{pipeline: text-classification}}")
    known = transformers.pipelines.get_supported_tasks()
    if name not in known and not str(name).startswith(_TRANSLATION):
        near = get_close_matches(str(name), known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise RuntimeError(f"there is no {PIPELINE} {name!r}; {advice}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(spec.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = transformers.pipeline(str(name), model=str(folder), device=device, trust_remote_code=False)
    _refuse_addresses(pipeline, spec)
    tokenizer = getattr(pipeline, "tokenizer", None)
    if tokenizer is not None and tokenizer.pad_token is None:
        # Texts of a batch are padded to one length; models for generation often have no token for that.
        tokenizer.pad_token = tokenizer.eos_token
    return TransformersRunner(spec, pipeline, arguments)
