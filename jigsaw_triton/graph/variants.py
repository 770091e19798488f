"""Builds the variants of a task from its document, and checks their templates, files and yields."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path as FilePath

from jigsaw_triton.graph.measured import Measured
from jigsaw_triton.graph.model import Variant
from jigsaw_triton.spec.files import LocalFile
from jigsaw_triton.spec.graph_schema import MeasuredEntry, TaskEntry
from jigsaw_triton.spec.load import CONFIG_ARTIFACT
from jigsaw_triton.spec.source import Path, Report, SourceMap
from jigsaw_triton.spec.words import nearest, shown

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Files:
    """Looks up the files that a graph refers to, and reports mistakes in the references.

    Args:
        found: Path as written -> file.
        folder: Folder of the graph as the user names it, for messages.
        required: True if every file must exist.
        report: Report to which mistakes are added.
    """

    def __init__(self, found: Mapping[str, LocalFile], folder: FilePath, *, required: bool, report: Report) -> None:
        self._found = found
        self._folder = folder
        self._required = required
        self._report = report

    def path(self, text: str, path: Path, *, hint: str = "", optional: bool = False) -> FilePath:
        """Returns the absolute path of a file, and reports a file that is outside the graph's folder or missing.

        Args:
            text: Path as written.
            path: Path of the entry that contains it.
            hint: Advice for a missing file that `fetch` does not provide. Such a file must always exist.
            optional: True if the file may be missing.
        """
        file = self._found[text]
        if not file.inside:
            advice = "move the file there, and write a relative path without '..'"
            self._report.add(path, f"{shown(text)} is outside the graph's folder", advice)
        elif (self._required or hint) and not (file.exists or optional):
            advice = hint or f"run `jigsaw-triton fetch {self._folder}`"
            self._report.add(path, f"there is no file {shown(text)}", advice)
        return file.path


def build_variants(
    entry: TaskEntry,
    path: Path,
    *,
    templates: Collection[str],
    files: Files,
    configs: Mapping[str, str],
    source: SourceMap,
    report: Report,
) -> tuple[Variant, ...]:
    """Builds the variants of a task in the order written, and reports mistakes in them.

    Args:
        entry: Task as written in the document.
        path: Path of the task.
        templates: Names of the known templates.
        files: Files that the graph refers to.
        configs: Path as written -> text of a config.pbtxt.
        source: Lines of the document.
        report: Report to which mistakes are added.
    """
    lines: dict[str, int] = {}
    built = []
    for index, variant in enumerate(entry.variants):
        item = (*path, "variants", index)
        if variant.name in lines:
            hint = f"rename one; the first is on line {lines[variant.name]}"
            report.add(item, f"duplicate variant '{variant.name}'", hint)
        lines.setdefault(variant.name, source.line(item))
        if variant.template not in templates:
            hint = nearest(variant.template, templates, "known templates")
            report.add((*item, "template"), f"there is no template '{variant.template}'", hint)
        for name in variant.artifacts:
            if _FILE_NAME.fullmatch(name) is None:
                hint = "write the name that the file has in the model's version folder, such as model.onnx"
                report.add((*item, "artifacts", name), f"{shown(name)} is not a valid file name", hint)
        check_yields(variant.yields, entry, path, item, source, report)
        built.append(
            Variant(
                name=variant.name,
                accuracy=variant.accuracy,
                template=variant.template,
                artifacts={
                    name: files.path(text, (*item, "artifacts", name)) for name, text in variant.artifacts.items()
                },
                parameters=dict(variant.parameters),
                yields=dict(variant.yields),
                config=configs.get(variant.artifacts.get(CONFIG_ARTIFACT, ""), ""),
                measured=build_measured(variant.measured, variant.accuracy, item, report),
            )
        )
    return tuple(built)


def build_measured(entry: MeasuredEntry | None, accuracy: float, path: Path, report: Report) -> Measured | None:
    """Builds the measurement of an accuracy, and reports one that the accuracy cannot come from.

    Args:
        entry: Measurement as written in the document.
        accuracy: The accuracy.
        path: Path of the entry that has the keys `accuracy` and `measured`.
        report: Report to which mistakes are added.
    """
    if entry is None:
        return None
    if not entry.low <= accuracy <= entry.high:
        hint = "measure it again with `jigsaw-triton profile --accuracy`, or remove 'measured'"
        message = f"accuracy {accuracy:g} is outside of its measured interval, {entry.low:g} to {entry.high:g}"
        report.add((*path, "measured"), message, hint)
    return Measured(entry.metric, entry.data, entry.n, entry.low, entry.high)


def check_yields(
    yields: Collection[str], task: TaskEntry, path: Path, owner: Path, source: SourceMap, report: Report
) -> None:
    """Reports estimates of rows for names that are not outputs, and for outputs without rows.

    Args:
        yields: Names of outputs for which there is an estimate.
        task: Task that has the outputs.
        path: Path of the task.
        owner: Path of the entry that has the key `yields`.
        source: Lines of the document.
        report: Report to which mistakes are added.
    """
    for name in yields:
        entry = (*owner, "yields", name)
        if name in task.outputs:
            if task.outputs[name].served_shape[0] != -1:
                shape = task.outputs[name].shape
                hint = "declare a shape that begins with -1, or remove the output from yields"
                report.add(entry, f"yields has '{name}', whose shape {shape} has no varying number of rows", hint)
        elif (*path, "outputs", name) not in source:
            hint = nearest(name, task.outputs, "outputs")
            report.add(entry, f"yields has '{name}', which is not an output", hint)
