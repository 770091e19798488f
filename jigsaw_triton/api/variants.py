"""Making variants of an ONNX model, and adding them to the graph.yaml that has the model."""

import filecmp
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from jigsaw_triton.api.file_changes import Undo, kept_path, restore, writing
from jigsaw_triton.api.files import PathLike, load_graph, shown_path
from jigsaw_triton.api.graph_changes import Edit, checked_graph, graph_file, save, with_edits
from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.compiler.worker_config import runner_spec
from jigsaw_triton.errors import InputError, MissingDependencyError
from jigsaw_triton.graph.model import Task, TaskGraph, Variant
from jigsaw_triton.models.agreement import Agreement, Metric
from jigsaw_triton.models.comparison_inputs import comparison_inputs
from jigsaw_triton.models.kinds import KINDS, ONNX
from jigsaw_triton.models.making import Comparison, Conversion
from jigsaw_triton.models.onnx_session import passes
from jigsaw_triton.models.running import WORKER_MODULE, cause
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.words import NAME_PATTERN
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES
from jigsaw_triton.spec.yaml_writer import Inline

Kind = Literal["int8", "fp16", "resize", "batch"]
KINDS_OF_VARIANTS: tuple[Kind, ...] = get_args(Kind)

DEFAULT_SCALE = 0.5
LEAST_AGREEMENT = 0.9
"""Agreement below which a variant is not added: it would rarely be planned, and often has a defect."""

TIMEOUT_S = 600.0
"""Seconds that each conversion and each comparison may take."""

_FILE = KINDS[ONNX].artifact
_PACKAGES = ("onnx", "onnxruntime")
_TOGETHER = 4
"""Items in a batch of a variant whose batch dimension has become a varying one."""


@dataclass(frozen=True, slots=True)
class Made:
    """A variant that was made.

    Attributes:
        name: Name of the variant.
        kind: Conversion that made it.
        file: ONNX file of the variant.
        size_bytes: Size of the file.
        agreement: Agreement with the original.
        accuracy: Accuracy in graph.yaml: that of the original times the agreement.
    """

    name: str
    kind: Kind
    file: Path
    size_bytes: int
    agreement: Agreement
    accuracy: float


@dataclass(frozen=True, slots=True)
class NotMade:
    """A variant that was not made.

    Attributes:
        kind: Conversion that was asked for.
        reason: Reason, as a clause.
        present: True if the graph has this variant already.
    """

    kind: Kind
    reason: str
    present: bool = False


@dataclass(frozen=True, slots=True)
class Variants:
    """Result of `make_variants`.

    Attributes:
        file: The graph.yaml.
        graph: Graph that it now has.
        task: Name of the task.
        original: Name of the variant that was converted.
        items: Description of the items on which the variants were compared with it.
        made: Variants that were made and added.
        not_made: Variants that were not.
    """

    file: Path
    graph: TaskGraph
    task: str
    original: str
    items: str
    made: tuple[Made, ...]
    not_made: tuple[NotMade, ...]


def make_variants(
    model: PathLike,
    *,
    graph: PathLike = "graph.yaml",
    task: str | None = None,
    kinds: Sequence[Kind] = KINDS_OF_VARIANTS,
    scales: Sequence[float] = (DEFAULT_SCALE,),
    samples: Arrays | None = None,
    metric: Metric | None = None,
    least_agreement: float = LEAST_AGREEMENT,
    overwrite: Callable[[Path], bool] = lambda _: False,
    progress: Callable[[str], None] = lambda _: None,
) -> Variants:
    """Makes variants of an ONNX model of a graph, and adds those that agree with the model to its task.

    A conversion that does not apply to the model is reported with its reason. If anything else fails, all files are as
    before.

    Args:
        model: ONNX file of a variant in the graph, or a file with the same content.
        graph: Path of the graph.yaml or of its folder.
        task: Name of the task; needed if several tasks have the model.
        kinds: Conversions: `int8` quantises the weights, `fp16` halves them, `resize` makes images smaller before the
            model sees them, `batch` lifts the limit of a model that was exported for one batch size.
        scales: Heights and widths of the images for `resize`, relative to those that the model takes; one variant each.
        samples: Inputs of the task by name, with a leading dimension that counts the items. By default the samples of
            the graph, or random data.
        metric: Metric of the agreement; by default the one that suits the outputs.
        least_agreement: Agreement below which a variant is not added, above 0 and at most 1.
        overwrite: Function that decides whether a file that exists is replaced; by default none is.
        progress: Function that gets a sentence about each step.

    Raises:
        InputError: The graph has no such model, or a sample does not fit the task.
        SpecError: The graph.yaml has mistakes.
        MissingDependencyError: The package onnx or onnxruntime is not installed.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            message = f"the Python package {package}, which converts models, is not installed"
            raise MissingDependencyError(message, hint="pip install 'jigsaw-triton[variants]'")
    file = graph_file(graph)
    text, found = load_text(file, limit_bytes=LIMIT_BYTES), load_graph(file)
    place, original = _find(found, Path(model), task, file)
    source = original.artifacts[_FILE]
    items, items_words = comparison_inputs(found, place, samples)
    spec = runner_spec(found, place, original, threads=os.cpu_count() or 1)
    if not passes(spec):
        raise InputError("onnxruntime can pass BF16 in workers only", where=str(model), hint="convert it by hand")
    made: list[Made] = []
    not_made: list[NotMade] = []
    taken = {variant.name for variant in place.variants}
    with Undo() as undo, tempfile.TemporaryDirectory(prefix="jigsaw-variants-") as folder, _Worker() as worker:
        whole = _together(original, Path(folder, "original"))
        for kind, suffix, scale in _wanted(kinds, scales):
            target = source.with_name(f"{source.stem}-{suffix}.onnx")
            if (existing := _existing(place, kind, target, overwrite, progress)) is not None:
                not_made.append(existing)
                continue
            progress(f"{place.name}.{original.name}: {suffix}")
            temporary = Path(folder) / target.name
            together = _TOGETHER if kind == "batch" else 1
            conversion = Conversion(whole, temporary, kind, scale)
            comparison = Comparison(whole, temporary, spec, items, together, metric)
            agreed = worker.call(conversion) or worker.call(comparison)
            if isinstance(agreed, str):
                not_made.append(NotMade(kind, agreed))
                continue
            if agreed.value < least_agreement:
                not_made.append(NotMade(kind, f"{agreed} is less than {least_agreement:g} ({items_words})"))
                continue
            undo.copy(temporary, target, hint="", replace=True)
            name = _free_name(original.name, suffix, taken)
            taken.add(name)
            accuracy = float(f"{original.accuracy * agreed.value:.6g}")
            made.append(Made(name, kind, target, target.stat().st_size, agreed, accuracy))
        if made:
            edits = _edits(place, original, made, items_words, found.folder)
            changed = with_edits(text, edits, where=str(file))
            found = checked_graph(changed, file)
            save(changed, file, before=text)
    return Variants(file, found, place.name, original.name, items_words, tuple(made), tuple(not_made))


def _wanted(kinds: Sequence[Kind], scales: Sequence[float]) -> Iterator[tuple[Kind, str, float]]:
    """Yields the kind, the suffix of the name, and the scale of each variant.

    Raises:
        InputError: A scale is not between 0 and 1, or too near to another.
    """
    for kind in dict.fromkeys(kinds):
        if kind == "resize":
            suffixes: dict[str, float] = {}
            for scale in dict.fromkeys(scales):
                if not 0 < scale < 1:
                    message = f"the scale {scale:g} is not between 0 and 1"
                    raise InputError(message, where="scale", hint="write 0.5 for half of the height and width")
                suffix = f"resize{100 * scale:.3g}".replace(".", "_")
                if (other := suffixes.setdefault(suffix, scale)) != scale:
                    message = f"the scales {other:g} and {scale:g} give variants of one name"
                    raise InputError(message, where="scale", hint="write scales that differ by at least 0.001")
                yield kind, suffix, scale
        else:
            yield kind, kind, 1.0


def _existing(
    task: Task, kind: Kind, target: Path, overwrite: Callable[[Path], bool], progress: Callable[[str], None]
) -> NotMade | None:
    """Returns why a variant is not made whose file exists; None if it is to be made.

    Args:
        task: Task of the variant.
        kind: Conversion that makes it.
        target: File of the variant. One that a killed run has replaced is restored.
        overwrite: Function that decides whether a file that exists is replaced.
        progress: Function that gets a sentence about each step.
    """
    if same := next((v.name for v in task.variants if v.artifacts.get(_FILE) == target), None):
        kept_path(target).unlink(missing_ok=True)  # A run that was killed at its end may have left this copy.
        return NotMade(kind, f"the variant '{same}' exists already", present=True)
    if restore(target):
        progress(f"{shown_path(target)} is as before a run that was killed")
    if target.exists() and not overwrite(target):
        return NotMade(kind, f"{shown_path(target)} exists; --overwrite replaces it")
    return None


def _find(graph: TaskGraph, model: Path, task: str | None, file: Path) -> tuple[Task, Variant]:
    """Returns the variant that has a model, and its task.

    Raises:
        InputError: There is no such variant, or there are several.
    """
    if not model.is_file():
        raise InputError("there is no such file", where=str(model), hint="check the path")
    if model.suffix.lower() != ".onnx":
        hint = "export the model to ONNX, such as with torch.onnx.export"
        raise InputError("variants are made of ONNX models only", where=str(model), hint=hint)
    if task is not None and task not in graph.tasks:
        raise InputError(f"there is no task '{task}'", where=str(file), hint=f"tasks: {', '.join(graph.tasks)}")
    variants = [
        (place, variant)
        for place in graph.tasks.values()
        for variant in place.variants
        if variant.template == ONNX and place.name == (task or place.name) and _FILE in variant.artifacts
    ]
    same = [
        (place, variant)
        for place, variant in variants
        if (path := variant.artifacts[_FILE]).is_file()
        and (path.samefile(model) or filecmp.cmp(path, model, shallow=False))
    ]
    if not same:
        known = ", ".join(sorted({shown_path(variant.artifacts[_FILE]) for _, variant in variants})) or "none"
        hint = f"ONNX models in the graph: {known}; jigsaw-triton add adds another"
        raise InputError(f"no variant in {shown_path(file)} has this model", where=str(model), hint=hint)
    if len({place.name for place, _ in same}) > 1:
        names = ", ".join(place.name for place, _ in same)
        raise InputError(f"several tasks have this model ({names})", where=str(model), hint="choose one with --task")
    return same[0]


def _together(original: Variant, folder: Path) -> Path:
    """Returns the file of a model, with the files of its weights beside it: copies, if there are such files."""
    if len(original.artifacts) == 1:
        return original.artifacts[_FILE]
    folder.mkdir()
    for name, path in original.artifacts.items():
        with writing(folder / name):
            shutil.copyfile(path, folder / name)  # The package onnx refuses links.
    return folder / _FILE


def _edits(task: Task, original: Variant, made: Sequence[Made], items: str, folder: Path) -> list[Edit]:
    """Returns the edits of graph.yaml that add variants to a task.

    Args:
        task: The task.
        original: Variant from which they were made.
        made: The variants.
        items: Description of the items on which they were compared with it.
        folder: Folder of the graph.yaml.
    """
    return [
        Edit(
            ("spec", "tasks", task.name, "variants", number),
            _entry(original, variant, folder),
            f"accuracy of {original.name} times the agreement with it: {variant.agreement} ({items})",
        )
        for number, variant in enumerate(made, len(task.variants))
    ]


def _entry(original: Variant, made: Made, folder: Path) -> Inline:
    """Returns the entry of a variant: that of the original with another name, file and accuracy."""
    path = made.file.relative_to(folder).as_posix() if made.file.is_relative_to(folder) else str(made.file)
    entry = Inline(name=made.name, accuracy=made.accuracy, template=ONNX, artifacts=Inline({_FILE: path}))
    if original.parameters:
        entry["parameters"] = Inline(original.parameters)
    if original.yields:
        entry["yields"] = Inline(original.yields)
    return entry


def _free_name(original: str, suffix: str, taken: set[str]) -> str:
    """Returns a name of a variant that the task does not have."""
    base, number = f"{original[: 60 - len(suffix)]}-{suffix}", 1
    assert re.fullmatch(NAME_PATTERN, base)
    name = base
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


class _Worker:
    """A process that converts and compares models; a model that ends or hangs it is reported."""

    def __init__(self) -> None:
        self._child: ChildProcess | None = None

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()

    def call(self, job: Conversion | Comparison) -> Agreement | str:
        """Performs a job; returns its result, or the reason why it failed."""
        if self._child is None or not self._child.alive:
            if self._child is not None:
                self._child.close()
            self._child = ChildProcess(WORKER_MODULE)
        what = "its conversion" if isinstance(job, Conversion) else "its comparison with the original"
        try:
            result: Agreement | str = self._child.call(job, TIMEOUT_S)
        except ChildHungError:
            return f"{what} has not ended after {TIMEOUT_S:g} s"
        except ChildEndedError as error:
            return f"{what} ends its process{cause(error.status)}"
        return result
