"""Changes of a graph.yaml that keep its comments and its layout."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jigsaw_triton.api.file_changes import writing
from jigsaw_triton.api.files import PathLike, variant_templates
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.models.files import check_files
from jigsaw_triton.spec.files import load_text, replace_text
from jigsaw_triton.spec.load import load_graph_text
from jigsaw_triton.spec.source import Path as Entry
from jigsaw_triton.spec.source import Report
from jigsaw_triton.spec.yaml_editor import with_entry
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES

GRAPH_FILE = "graph.yaml"


@dataclass(frozen=True, slots=True)
class Edit:
    """An entry to add.

    Attributes:
        path: Path of the entry; see `with_entry`.
        value: Value of the entry.
        comment: Comment on the line above; none if empty.
    """

    path: Entry
    value: Any
    comment: str = ""


def graph_file(graph: PathLike) -> Path:
    """Returns the path of a graph.yaml that is named by its own path or by its folder."""
    path = Path(graph)
    return path / GRAPH_FILE if path.is_dir() or path.suffix not in (".yaml", ".yml") else path


def with_edits(text: str, edits: Iterable[Edit], where: str) -> str:
    """Returns the text of a graph.yaml with further entries.

    Raises:
        InputError: The layout of the text is such that an entry cannot be added.
    """
    for edit in edits:
        try:
            text = with_entry(text, edit.path, edit.value, comment=edit.comment)
        except ValueError as error:
            raise InputError(str(error), where=where, hint="add the entry by hand") from error
    return text


def save(text: str, file: Path, *, before: str | None) -> None:
    """Writes a graph.yaml that was changed.

    Args:
        text: Text to write.
        file: File to replace or create.
        before: Text of the file that was changed; None if there was none.

    Raises:
        InputError: The file has changed since `before` was read, or cannot be written.
    """
    if (load_text(file, limit_bytes=LIMIT_BYTES) if file.exists() else None) != before:
        message = "the file has changed since the command read it"
        raise InputError(message, where=str(file), hint="repeat the command")
    with writing(file):
        replace_text(file, text)


def checked_graph(text: str, file: Path, look: Callable[[TaskGraph], None] = lambda _: None) -> TaskGraph:
    """Builds the graph of a text that is to become a file, and checks the files of its models.

    Args:
        text: Text of the graph.yaml.
        file: File that it will be.
        look: Further check of the graph, before that of the files.

    Raises:
        SpecError: There are mistakes.
    """
    loaded = load_graph_text(text, name=f"{file} (not written)", folder=file.parent)
    graph = build_graph(loaded, templates=variant_templates(), require_files=True)
    look(graph)
    report = Report(loaded.source)
    check_files(graph, report, to_serve=False)
    report.raise_if_any()
    return graph
