"""The variants of a task, from the document to the domain: templates, files, yields."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path as FilePath

from jigsaw_triton.graph.model import Variant
from jigsaw_triton.spec.files import LocalFile
from jigsaw_triton.spec.schema import TaskEntry
from jigsaw_triton.spec.source import Path, Report, SourceMap
from jigsaw_triton.spec.words import nearest, shown

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Files:
    """The files that a graph names, and what is wrong with them.

    Args:
        found: Path as written -> file.
        folder: As the user would name it.
        required: Whether a file that is not there is a mistake.
        report: Where mistakes go.
    """

    def __init__(self, found: Mapping[str, LocalFile], folder: FilePath, *, required: bool, report: Report) -> None:
        self._found = found
        self._folder = folder
        self._required = required
        self._report = report

    def path(self, text: str, path: Path, *, hint: str = "") -> FilePath:
        """Absolute path of the file that is written as `text` at `path`; what is wrong with it is reported.

        Args:
            text: As written.
            path: Where.
            hint: What to do where it is not there, of a file that nothing brings: such a one is always required.
        """
        file = self._found[text]
        if not file.inside:
            inside = "put the file there and name it by a relative path without '..'"
            self._report.add(path, f"{shown(text)} leaves the folder of the graph", inside)
        elif (self._required or hint) and not file.exists:
            bring = hint or f"`jigsaw-triton fetch {self._folder}` brings it"
            self._report.add(path, f"there is no file {shown(text)}", bring)
        return file.path


def build_variants(
    entry: TaskEntry, path: Path, *, templates: Collection[str], files: Files, source: SourceMap, report: Report
) -> tuple[Variant, ...]:
    """The variants of the task at `path`, in the order written; mistakes are reported.

    Args:
        entry: The task.
        path: Of the task.
        templates: Known names.
        files: Of the graph.
        source: Of the document.
        report: Where mistakes go.
    """
    lines: dict[str, int] = {}
    built = []
    for index, variant in enumerate(entry.variants):
        here = (*path, "variants", index)
        if variant.name in lines:
            report.add(here, f"variant '{variant.name}' is repeated", f"the first is on line {lines[variant.name]}")
        lines.setdefault(variant.name, source.line(here))
        if variant.template not in templates:
            hint = nearest(variant.template, templates, "known templates")
            report.add((*here, "template"), f"there is no template '{variant.template}'", hint)
        for name in variant.artifacts:
            if _FILE_NAME.fullmatch(name) is None:
                hint = "write the name the file is to have in the model's version folder, such as model.onnx"
                report.add((*here, "artifacts", name), f"{shown(name)} is not a file name", hint)
        check_yields(variant.yields, entry, path, here, source, report)
        built.append(
            Variant(
                name=variant.name,
                accuracy=variant.accuracy,
                template=variant.template,
                artifacts={
                    name: files.path(text, (*here, "artifacts", name)) for name, text in variant.artifacts.items()
                },
                parameters=dict(variant.parameters),
                yields=dict(variant.yields),
            )
        )
    return tuple(built)


def check_yields(
    yields: Collection[str], task: TaskEntry, path: Path, here: Path, source: SourceMap, report: Report
) -> None:
    """Reports estimates of rows for what is no output, or has none.

    Args:
        yields: Names of outputs.
        task: Whose.
        path: Of the task.
        here: Of the entry with `yields`.
        source: Of the document.
        report: Where mistakes go.
    """
    for name in yields:
        entry = (*here, "yields", name)
        if name in task.outputs:
            if task.outputs[name].shape[0] != -1:
                shape = task.outputs[name].shape
                hint = "declare its rows: a shape that begins with -1, or remove it from yields"
                report.add(entry, f"yields of '{name}', whose shape {shape} has no varying number of rows", hint)
        elif (*path, "outputs", name) not in source:
            report.add(entry, f"yields of '{name}', which is no output", nearest(name, task.outputs, "outputs"))
