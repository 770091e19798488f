"""graph.yaml and cluster.yaml from disk to documents, with every mistake of structure collected."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.spec.explain import explain
from jigsaw_triton.spec.files import STDIN, LocalFile, load_text, locate, named
from jigsaw_triton.spec.json_schema import Kind, json_schema
from jigsaw_triton.spec.schema import API_VERSION, LIMIT_GPUS, ClusterDocument, ClusterSpec, GraphDocument, GraphSpec
from jigsaw_triton.spec.source import Path as Entry
from jigsaw_triton.spec.source import Report, SourceMap
from jigsaw_triton.spec.step_file import StepFile, read_step
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES, Parsed, parse_yaml

Document = TypeVar("Document", bound=BaseModel)

DEFAULT_NODE = "local"
"""Name of the one node that `--gpus` speaks of."""


_STAND_INS: Mapping[Entry, Any] = {
    ("apiVersion",): API_VERSION,
    ("metadata",): {"name": "unnamed"},
    ("spec", "slo"): {"latency_ms": 1.0},
    ("spec", "inputs"): {"unnamed": {"dtype": "FP32", "shape": [1]}},
    ("spec", "outputs"): {"unnamed": "inputs.unnamed"},
}
"""What takes the place of required entries that are wrong or missing, so that the rest can be checked all the same."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Document]):
    """A document and what is known of its file. Not yet right: `build_graph` and `build_cluster` decide that.

    Attributes:
        document: The file without the entries that have problems.
        source: Lines; knows the entries that were dropped too.
        problems: Mistakes of structure, type and range.
        dropped: Entries that are in the file and not in the document.
        folder: Absolute, of the file.
        files: Path as written in the document -> the file it names.
        steps: Likewise -> what is in it, of the files of python steps that are there.
    """

    document: Document
    source: SourceMap
    problems: tuple[Diagnostic, ...] = ()
    dropped: frozenset[Entry] = frozenset()
    folder: Path = Path()
    files: Mapping[str, LocalFile] = field(default_factory=dict)
    steps: Mapping[str, StepFile] = field(default_factory=dict)


def load_graph(path: Path | str) -> Loaded[GraphDocument]:
    """Reads a graph.yaml.

    Args:
        path: Of the file, of a folder that holds a graph.yaml, or `-` for standard input (folder: the current one).

    Raises:
        SpecError: It cannot be read, or so much is wrong with it that nothing more can be said.
    """
    file, folder = _place(path, "graph.yaml")
    return _with_named_files(_load(file, "graph", GraphDocument), folder)


def load_graph_text(text: str, *, name: str, folder: Path) -> Loaded[GraphDocument]:
    """Reads the text of a graph.yaml that is not in a file.

    Args:
        text: Content of the graph.yaml.
        name: Name of the text in messages.
        folder: Folder that the paths in the text are relative to.

    Raises:
        SpecError: The text is not YAML, or so much is wrong with it that nothing more can be said.
    """
    return _with_named_files(_validate(parse_yaml(text, name), "graph", GraphDocument), folder.resolve())


def load_graph_data(data: Any, *, source: SourceMap, folder: Path) -> Loaded[GraphDocument]:
    """Validates the content of a graph.yaml that was built in memory.

    Args:
        data: The content, as dictionaries, lists and scalars.
        source: Places of the entries, for messages.
        folder: Folder that the paths in the content are relative to.

    Raises:
        SpecError: So much is wrong with it that nothing more can be said.
    """
    return _with_named_files(_validate(Parsed(data, source), "graph", GraphDocument), folder.resolve())


def _with_named_files(loaded: Loaded[GraphDocument], folder: Path) -> Loaded[GraphDocument]:
    """Looks for the files that the document names."""
    files = {text: locate(folder, text) for text in _named_files(loaded.document.spec)}
    steps = {
        text: read_step(files[text].path)
        for text in _step_files(loaded.document.spec)
        if files[text].inside and files[text].exists
    }
    return replace(loaded, folder=folder, files=files, steps=steps)


def load_cluster(path: Path | str) -> Loaded[ClusterDocument]:
    """Reads a cluster.yaml.

    Args:
        path: Of the file, of a folder that holds a cluster.yaml, or `-` for standard input.

    Raises:
        SpecError: It cannot be read, or so much is wrong with it that nothing more can be said.
    """
    file, folder = _place(path, "cluster.yaml")
    loaded = _load(file, "cluster", ClusterDocument)
    files = {text: named(folder, text) for text in _edge_files(loaded.document.spec)}
    return replace(loaded, folder=folder, files=files)


def parse_gpus(text: str, *, name: str = "--gpus") -> Loaded[ClusterDocument]:
    """The cluster that a command line speaks of: `4xA100-80GB`, or several with commas, on one node.

    Args:
        text: The flag's value.
        name: The flag, for messages.

    Raises:
        SpecError: It is not of that form.
    """
    gpus = []
    for item in text.split(","):
        match = re.fullmatch(r"(?:([0-9]{1,6})[xX])?([A-Za-z][A-Za-z0-9-]*)", item.strip())
        count = int(match[1] or 1) if match else 0
        if match is None or not 1 <= count <= LIMIT_GPUS:
            hint = (
                "write COUNTxMODEL, with commas between several: 4xA100-80GB,2xH100-80GB; "
                f"COUNT is from 1 to {LIMIT_GPUS}"
            )
            raise SpecError([Diagnostic(name, 0, f"'{item.strip()}' is not a number of GPUs of a model", hint)])
        gpus.append({"model": match[2], "count": count})
    document = ClusterDocument.model_validate(
        {
            "apiVersion": API_VERSION,
            "kind": "Cluster",
            "spec": {"nodes": [{"name": DEFAULT_NODE, "gpus": gpus}]},
        }
    )
    return Loaded(document, SourceMap(name))


def _place(path: Path | str, name: str) -> tuple[Path | str, Path]:
    """The file to read, as it is called in messages, and its folder."""
    if str(path) == STDIN:
        return STDIN, Path.cwd().resolve()
    path = Path(path)
    file = path / name if path.is_dir() else path
    return file, file.parent.resolve()


def _named_files(spec: GraphSpec) -> Iterator[str]:
    yield from spec.sample.values()
    yield from _step_files(spec)
    for task in spec.tasks.values():
        for variant in task.variants:
            yield from variant.artifacts.values()


def _step_files(spec: GraphSpec) -> Iterator[str]:
    return (task.python for task in spec.tasks.values() if task.python is not None)


def _edge_files(spec: ClusterSpec) -> Iterator[str]:
    """Files of the edge: certificates and API keys, which may lie anywhere."""
    if spec.edge is None:
        return
    tls = spec.edge.tls
    texts = (spec.edge.api_keys, *((tls.cert, tls.key, tls.client_ca) if tls is not None else ()))
    yield from (text for text in texts if text is not None)


def _load(file: Path | str, kind: Kind, model: type[Document]) -> Loaded[Document]:
    text = load_text(file, limit_bytes=LIMIT_BYTES)
    return _validate(parse_yaml(text, str(file)), kind, model)


def _validate(parsed: Parsed, kind: Kind, model: type[Document]) -> Loaded[Document]:
    """Validates, drops what is wrong, and validates the rest again, until what is left is a document."""
    report = Report(parsed.source, parsed.problems)
    dropped = set(parsed.unusable)
    while True:
        data, origin = _without(parsed.data, dropped)
        try:
            document = model.model_validate(data)
        except ValidationError as error:
            found = {_original(_entry(e["loc"]), origin): e for e in error.errors(include_url=False)}
            _explain(found, dropped, json_schema(kind), report)
            present = set(origin.values())
            dropped |= {path if path in _STAND_INS else _longest(path, present) for path in found}
            if () in dropped:
                raise SpecError(report.problems) from None
        else:
            lines = {**parsed.source.lines, **{new: parsed.source.lines[old] for new, old in origin.items()}}
            return Loaded(document, replace(parsed.source, lines=lines), report.problems, frozenset(dropped))


def _explain(found: dict[Entry, ErrorDetails], dropped: set[Entry], schema: dict[str, Any], report: Report) -> None:
    """Reports what is not a consequence of an entry dropped earlier; of a file of another kind, only that."""
    around = {path[:end] for path in dropped for end in range(len(path) + 1)}
    header = {path: found[path] for path in (("apiVersion",), ("kind",)) if path in found}
    if len(header) == 1 and next(iter(header.values()))["type"] == "missing":
        header = {}
    for path, details in (header or found).items():
        below = any(path[:end] in dropped for end in range(len(path) + 1))
        if path not in around and not below:
            report.add(path, *explain(details, path, schema))
    if header:
        report.raise_if_any()


def _without(data: Any, dropped: set[Entry]) -> tuple[Any, dict[Entry, Entry]]:
    """`data` with some entries left out or replaced, and for each that is kept its path before (list items move up)."""
    origin: dict[Entry, Entry] = {}

    def copy(value: Any, new: Entry, old: Entry) -> Any:
        origin[new] = old
        if isinstance(value, dict):
            return {k: copy(v, (*new, k), (*old, k)) for k, v in value.items() if (*old, k) not in dropped}
        if isinstance(value, list):
            items = [(i, v) for i, v in enumerate(value) if (*old, i) not in dropped]
            return [copy(v, (*new, n), (*old, i)) for n, (i, v) in enumerate(items)]
        return value

    kept = copy(data, (), ())
    for path in sorted(_STAND_INS.keys() & dropped):
        if path[:-1] in origin:
            holder = kept if len(path) == 1 else kept[path[0]]
            holder[path[-1]] = _STAND_INS[path]
    return kept, origin


def _entry(loc: tuple[str | int, ...]) -> Entry:
    """Pydantic's location as a path: it marks a wrong key by a last element of its own."""
    return loc[:-1] if loc and loc[-1] == "[key]" else loc


def _original(path: Entry, origin: Mapping[Entry, Entry]) -> Entry:
    known = _longest(path, origin)
    return origin[known] + path[len(known) :]


def _longest(path: Entry, known: Mapping[Entry, Entry] | set[Entry]) -> Entry:
    return next(path[:end] for end in range(len(path), -1, -1) if path[:end] in known)
