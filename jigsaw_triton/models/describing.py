"""Describes a model that a user brings: its template, its files, and its inputs and outputs."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.templates import CONFIG_FILE
from jigsaw_triton.compiler.worker_config import FOLDER, stored_name
from jigsaw_triton.errors import InputError, MissingDependencyError
from jigsaw_triton.models import transformers_folder
from jigsaw_triton.models.config_file import interface_of, parse_config, read_config
from jigsaw_triton.models.interface import Interface, ModelTensor
from jigsaw_triton.models.kinds import KINDS
from jigsaw_triton.models.onnx_file import read_onnx
from jigsaw_triton.models.running import TIMEOUT_S, WORKER_MODULE, cause
from jigsaw_triton.models.trial import Outcome, Trial
from jigsaw_triton.runtime.dtypes import Arrays, to_triton
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

TEMPLATES = {".onnx": "onnxruntime", ".pt": "torch", ".pth": "torch", ".torchscript": "torch", ".py": "python"}
"""Suffix of a file -> template of the model."""

_BACKENDS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "pytorch": "torch", "tensorrt": "tensorrt"}
"""Backend in a config.pbtxt -> template. Models of other backends are served with the config.pbtxt that they have."""


_UNKNOWN = Interface({}, {})
"""Inputs and outputs that only a run shows."""


@dataclass(frozen=True, slots=True)
class Described:
    """A model that a user brings.

    Attributes:
        path: File or folder that the user gives.
        name: Name for a variant, from the name of the file or folder.
        template: Template that serves the model.
        artifacts: Name in the version folder -> file.
        interface: Inputs and outputs.
        sampled: True if the inputs are those of a sample, whose sizes the model need not have.
        parameters: Parameters of the variant.
        notes: Parts of the model that are not served, and limits of it.
    """

    path: Path
    name: str
    template: str
    artifacts: Mapping[str, Path]
    interface: Interface = field(repr=False)
    sampled: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def describe(
    path: Path,
    samples: Arrays,
    files: Sequence[Path] = (),
    parameters: Mapping[str, str] = MappingProxyType({}),
) -> Described:
    """Describes a model. Models whose files do not have their inputs are run on samples, in a process of their own.

    Args:
        path: An ONNX or TorchScript file, a Python file, a folder of a Triton model repository with a config.pbtxt, or
            a folder of a Hugging Face model with a config.json.
        samples: Inputs of one item by name, without a batch dimension.
        files: Further files that the model finds beside it when it is loaded.
        parameters: Parameters of the variant.

    Raises:
        InputError: The model cannot be read or run, or its inputs and outputs cannot be found.
        MissingDependencyError: A Python package that runs the model is not installed.
    """
    if not path.is_dir():
        found = _of_file(path)
    elif (path / CONFIG_FILE).exists():
        found = _of_folder(path)
    elif (path / transformers_folder.CONFIG).exists():
        found = _of_transformers(path, parameters)
    else:
        raise InputError(
            f"the folder has no {CONFIG_FILE} of Triton, and no {transformers_folder.CONFIG} of Hugging Face",
            where=str(path),
            hint="give the folder of one model, or the model's file",
        )
    artifacts = _with_files(found.artifacts, files)
    found = replace(found, artifacts=artifacts, parameters={**found.parameters, **parameters})
    if not found.interface.outputs:
        found = _run(found, samples)
    return replace(found, notes=(*found.notes, *_batch_notes(path, found.interface)))


def _of_file(path: Path) -> Described:
    """Describes a file. The inputs and outputs are empty if they are not in the file."""
    template = TEMPLATES.get(path.suffix.lower())
    if template is None:
        raise InputError(
            "the inputs and outputs of such a file cannot be found",
            where=str(path),
            hint=f"give a file that ends with {', '.join(TEMPLATES)}, or a folder of a Triton model repository"
            f" ({CONFIG_FILE}) or of a Hugging Face model ({transformers_folder.CONFIG})",
        )
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), hint="check the path")
    kind = KINDS[template]
    assert kind.read is not None
    interface = kind.read(path) or _UNKNOWN
    weights = {name: path.parent / name for name in sorted(interface.files)}
    return Described(path, path.stem, template, {kind.artifact: path, **weights}, interface)


def _of_transformers(folder: Path, parameters: Mapping[str, str]) -> Described:
    """Describes a folder of a Hugging Face model, whose inputs and outputs only a run shows."""
    pipeline = parameters.get(transformers_folder.PIPELINE) or transformers_folder.pipeline_of(folder)
    files = transformers_folder.model_files(folder)
    known = {transformers_folder.PIPELINE: pipeline}
    return Described(folder, _name(folder), transformers_folder.TEMPLATE, files, _UNKNOWN, parameters=known)


def _name(folder: Path) -> str:
    """Returns the name of a folder, also of `.`."""
    return folder.resolve().name


def _batch_notes(path: Path, interface: Interface) -> tuple[str, ...]:
    """Returns a note if an input has a batch dimension that does not vary."""
    for name, tensor in interface.inputs.items():
        if tensor.shape and tensor.shape[0] > 0:
            only = (
                f"{path} takes {name} with a batch dimension of {tensor.shape[0]}, so no other batch size can be used"
            )
            remedy = "export the model with one that varies"
            if path.suffix.lower() == ".onnx":
                remedy += f", or try jigsaw-triton variants {path} --kind batch"
            return (f"{only}; {remedy}",)
    return ()


def _with_files(artifacts: Mapping[str, Path], files: Sequence[Path]) -> dict[str, Path]:
    """Returns the artifacts of a model with further files.

    Raises:
        InputError: A file does not exist, or another one has its name.
    """
    result = dict(artifacts)
    for file in files:
        if not file.is_file():
            raise InputError("there is no such file", where=str(file), hint="correct --file")
        if result.setdefault(file.name, file).resolve() != file.resolve():
            hint = "add models whose files share names one by one, or rename the file"
            raise InputError(f"the model has another file {file.name}", where=str(file), hint=hint)
    return result


def _run(model: Described, samples: Arrays) -> Described:
    """Returns the model with the inputs that the samples show, and the outputs of a run on them."""
    where = str(model.path)
    pipeline = model.parameters.get(transformers_folder.PIPELINE, "")
    samples = samples or transformers_folder.example(pipeline)
    if not samples:
        raise InputError(
            "the inputs of such a model are not in its file",
            where=where,
            hint="give an item of each input: --sample NAME=FILE.npy, NAME=FP32[3,224,224] for random data, or"
            " NAME=text:WORDS",
        )
    inputs = {name: ModelTensor(to_triton(array.dtype), (-1, *array.shape)) for name, array in samples.items()}
    tensors = tuple(TensorSpec(name, to_triton(array.dtype), array.shape) for name, array in samples.items())
    child = ChildProcess(WORKER_MODULE)
    try:
        with tempfile.TemporaryDirectory(prefix="jigsaw-model-") as folder:
            for name, file in model.artifacts.items():
                (Path(folder) / stored_name(name, templated=True)).symlink_to(file.absolute())
            # Without declared outputs, a runner returns all of them.
            spec = RunnerSpec(model.template, tensors, (), parameters=model.parameters)
            trial = Trial(Path(folder), spec, {name: array[None] for name, array in samples.items()})
            outcome: Outcome = child.call(trial, TIMEOUT_S)
    except ChildHungError as error:
        hint = "give a smaller sample with --sample, or write the task by hand"
        raise InputError(f"the model has not answered after {TIMEOUT_S:g} s", where=where, hint=hint) from error
    except ChildEndedError as error:
        hint = "run the model in a program of its own to find the cause"
        raise InputError(f"the model ends its process{cause(error.status)}", where=where, hint=hint) from error
    finally:
        child.close()
    match outcome.phase:
        case "packages":
            hint = f"run pip install {outcome.error}"
            raise MissingDependencyError(f"the Python package {outcome.error} is not installed", where=where, hint=hint)
        case "load":
            hint = "correct the model; name each file that it reads beside it with --file"
            if pipeline:
                hint = f"correct the model, or the pipeline with --parameter {transformers_folder.PIPELINE}=NAME"
            raise InputError(f"the model cannot be loaded: {outcome.error}", where=where, hint=hint)
        case "run" | "types":
            raise InputError(f"the model fails on the sample: {outcome.error}", where=where, hint="correct --sample")
        case "done":
            outputs = dict(outcome.outputs)
            if transformers_folder.varies(pipeline):
                outputs = {name: _varying(tensor) for name, tensor in outputs.items()}
            limit = f"{model.path} fails on a batch of 2, so only a batch size of 1 can be used: {outcome.batch_error}"
            notes = (*model.notes, limit) if outcome.batch_error else model.notes
            return replace(model, interface=Interface(inputs, outputs), sampled=True, notes=notes)


def _varying(tensor: ModelTensor) -> ModelTensor:
    """Returns a tensor whose items differ in their first dimension."""
    return replace(tensor, shape=(-1, -1, *tensor.shape[2:])) if tensor.shape else tensor


def _of_folder(folder: Path) -> Described:
    """Describes an entry of a Triton model repository."""
    file = folder / CONFIG_FILE
    config = parse_config(file)
    backend = cfg.backend_of(config)
    template = _BACKENDS.get(backend, FOLDER)
    versions = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    if not versions:
        raise InputError("the folder has no version", where=str(folder), hint="add a folder 1 with the model's file")
    if folders := [path.name for path in versions[-1].iterdir() if path.is_dir()]:
        raise InputError(
            f"the model has folders ({', '.join(folders)}), but artifacts are files",
            where=str(versions[-1]),
            hint="convert the model to a format of one file, such as ONNX",
        )
    files = {path.name: path for path in sorted(versions[-1].iterdir()) if path.is_file()}
    if template == FOLDER:
        interface = read_config(file)
        artifacts = {CONFIG_FILE: file, **files}
    else:
        main = config.default_model_filename or KINDS[template].artifact
        if main not in files:
            where = str(versions[-1])
            raise InputError(f"there is no file {main}", where=where, hint="add the model's file")
        artifacts = {KINDS[template].artifact: files.pop(main), **files}
        interface = interface_of(config, str(file))
        if interface is None and template == "onnxruntime":
            interface = read_onnx(artifacts[KINDS[template].artifact])
    if interface is None:
        raise InputError("the inputs or outputs are missing", where=str(file), hint="add input [...] and output [...]")
    left_out = () if template == FOLDER or not config.parameters else (_left_out(file, sorted(config.parameters)),)
    return Described(folder, _name(folder), template, artifacts, interface, notes=left_out)


def _left_out(file: Path, parameters: Sequence[str]) -> str:
    names = ", ".join(parameters)
    return f"parameters in {file} are left out ({names}); write those that the template has into the variant"
