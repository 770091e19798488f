"""Checks the files of models against their graph, without running them. It takes milliseconds."""

from pathlib import Path as FilePath

from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.reference import TASKS
from jigsaw_triton.models.comparison import fixed_batches, input_mismatches, output_mismatches
from jigsaw_triton.models.interface import Interface
from jigsaw_triton.models.kinds import Kind, kind_of
from jigsaw_triton.spec.source import Path, Report


def check_files(graph: TaskGraph, report: Report, *, to_serve: bool = True) -> frozenset[tuple[str, str]]:
    """Reports models whose files are not of their template, or whose inputs or outputs are not those of the task.

    A model whose file does not exist is left out.

    Args:
        graph: Graph with the models.
        report: Report to which mistakes are added.
        to_serve: True if models must take batches of any size; False if that may be changed yet.

    Returns:
        (task, variant) pairs of the models that were found to be wrong.
    """
    found: dict[FilePath, Interface | InputError | None] = {}
    wrong = set()
    for task in graph.tasks.values():
        for index, variant in enumerate(task.variants):
            kind = kind_of(variant.template)
            if not kind.artifact:
                continue
            place: Path = (*TASKS, task.name, "variants", index)
            file = variant.artifacts.get(kind.artifact)
            if file is None:
                message = f"variant '{variant.name}' has no file {kind.artifact}, which its template needs"
                report.add(place, message, f"add artifacts: {{{kind.artifact}: PATH}}")
                wrong.add((task.name, variant.name))
                continue
            if not file.is_file():
                continue
            model = written_path(graph, file)
            if file not in found:
                found[file] = _read(kind, file)
            match found[file]:
                case InputError() as error:
                    where = error.where.replace(str(file), model)
                    report.add((*place, "artifacts", kind.artifact), f"{where}: {error.message}", error.hint)
                    wrong.add((task.name, variant.name))
                case Interface() as interface:
                    mismatches = [
                        *input_mismatches(graph, task, model, interface),
                        *output_mismatches(task, model, interface, exact=False),
                    ]
                    if to_serve:
                        mismatches += fixed_batches(task, (*place, "artifacts", kind.artifact), model, interface)
                    for mismatch in mismatches:
                        report.add(*mismatch)
                        wrong.add((task.name, variant.name))
                    for name in sorted(interface.files - variant.artifacts.keys()):
                        path = written_path(graph, file.parent / name)
                        message = f"{model} has weights in '{name}', which is not an artifact of '{variant.name}'"
                        report.add((*place, "artifacts"), message, f"add {name}: {path} to the artifacts")
                        wrong.add((task.name, variant.name))
    return frozenset(wrong)


def _read(kind: Kind, file: FilePath) -> Interface | InputError | None:
    try:
        return kind.read(file) if kind.read is not None else None
    except InputError as error:
        return error


def written_path(graph: TaskGraph, file: FilePath) -> str:
    """Returns the path of a file as graph.yaml has it."""
    return file.relative_to(graph.folder).as_posix() if file.is_relative_to(graph.folder) else str(file)
