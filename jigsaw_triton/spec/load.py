"""Loads graph.yaml and cluster.yaml into documents, and collects every mistake in their structure."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.spec.cells import CellDocument, FrontDocument
from jigsaw_triton.spec.cluster_schema import CERTIFICATE_FILES, LIMIT_GPUS, ClusterDocument, ClusterSpec
from jigsaw_triton.spec.entries import API_VERSION
from jigsaw_triton.spec.explain import explain
from jigsaw_triton.spec.files import STDIN, LocalFile, load_text, locate, locate_anywhere
from jigsaw_triton.spec.graph_schema import GraphDocument, GraphSpec
from jigsaw_triton.spec.json_schema import Kind, json_schema
from jigsaw_triton.spec.source import Path as EntryPath
from jigsaw_triton.spec.source import Report, SourceMap
from jigsaw_triton.spec.step_file import StepFile, read_step
from jigsaw_triton.spec.words import LOCAL_NODE
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES, Parsed, parse_yaml

Document = TypeVar("Document", bound=BaseModel)

CONFIG_ARTIFACT = "config.pbtxt"
"""Name of the artifact that is the configuration of a variant, in place of that of its template."""

_STAND_INS: Mapping[Kind, Mapping[EntryPath, Any]] = {
    "graph": {
        ("apiVersion",): API_VERSION,
        ("metadata",): {"name": "unnamed"},
        ("spec", "slo"): {"latency_ms": 1.0},
        ("spec", "inputs"): {"unnamed": {"dtype": "FP32", "shape": [1]}},
        ("spec", "outputs"): {"unnamed": "inputs.unnamed"},
    },
    "cluster": {("apiVersion",): API_VERSION},
    "front": {("apiVersion",): API_VERSION},
    "cell": {("apiVersion",): API_VERSION},
}
"""Placeholders for required entries that are wrong or missing, so that the rest of the file can still be checked."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Document]):
    """A document and information about its file. `build_graph` and `build_cluster` check its meaning.

    Attributes:
        document: Content of the file without the entries that have problems.
        source: Lines of the file's entries, including dropped ones.
        problems: Mistakes of structure, type and range.
        dropped: Entries of the file that the document does not have.
        folder: Absolute path of the file's folder.
        files: Path as written in the document -> the file it names.
        steps: Path as written in the document -> content of the Python step's file, for each such file that exists.
        configs: Path as written in the document -> text of a variant's own config.pbtxt, for each that can be read.
    """

    document: Document
    source: SourceMap
    problems: tuple[Diagnostic, ...] = ()
    dropped: frozenset[EntryPath] = frozenset()
    folder: Path = Path()
    files: Mapping[str, LocalFile] = field(default_factory=dict)
    steps: Mapping[str, StepFile] = field(default_factory=dict)
    configs: Mapping[str, str] = field(default_factory=dict)


def load_graph(path: Path | str) -> Loaded[GraphDocument]:
    """Reads a graph.yaml.

    Args:
        path: Path of the file or of a folder that contains a graph.yaml, or `-` for standard input, whose paths are
            relative to the current folder.

    Raises:
        SpecError: The file cannot be read, or it is too damaged to be checked further.
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


def load_graph_alone(text: str, *, name: str) -> Loaded[GraphDocument]:
    """Reads the text of a graph.yaml without its files: no file is read, and each counts as one that exists.

    Args:
        text: Content of the graph.yaml.
        name: Name of the text in messages.

    Raises:
        SpecError: The text is not YAML, or so much is wrong with it that nothing more can be said.
    """
    loaded = _validate(parse_yaml(text, name), "graph", GraphDocument)
    named = _named_files(loaded.document.spec)
    return replace(loaded, files={path: LocalFile(Path(path), inside=True, exists=True) for path in named})


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
    configs = {}
    for text in _config_files(loaded.document.spec):
        with suppress(SpecError):
            configs[text] = load_text(files[text].path, limit_bytes=LIMIT_BYTES) if files[text].inside else ""
    return replace(loaded, folder=folder, files=files, steps=steps, configs=configs)


def load_cluster(path: Path | str) -> Loaded[ClusterDocument]:
    """Reads a cluster.yaml.

    Args:
        path: Path of the file or of a folder that contains a cluster.yaml, or `-` for standard input.

    Raises:
        SpecError: The file cannot be read, or it is too damaged to be checked further.
    """
    file, folder = _place(path, "cluster.yaml")
    loaded = _load(file, "cluster", ClusterDocument)
    files = {text: locate_anywhere(folder, text) for text in _secured_files(loaded.document.spec)}
    return replace(loaded, folder=folder, files=files)


def load_front(path: Path | str) -> Loaded[FrontDocument]:
    """Reads a front.yaml.

    Args:
        path: Path of the file or of a folder that contains a front.yaml.

    Raises:
        SpecError: The file cannot be read, or it is too damaged to be checked further.
    """
    file, folder = _place(path, "front.yaml")
    loaded = _load(file, "front", FrontDocument)
    spec = loaded.document.spec
    tls, gateways = spec.tls, spec.gateway_tls
    texts = (
        spec.api_keys,
        *((tls.cert, tls.key, tls.client_ca) if tls is not None else ()),
        *((gateways.ca, gateways.cert, gateways.key) if gateways is not None else ()),
    )
    files = {text: locate_anywhere(folder, text) for text in texts if text is not None}
    return replace(loaded, folder=folder, files=files)


def load_cell(path: Path | str) -> Loaded[CellDocument]:
    """Reads a cell.yaml.

    Args:
        path: Path of the file or of a folder that contains a cell.yaml.

    Raises:
        SpecError: The file cannot be read, or it is too damaged to be checked further.
    """
    file, folder = _place(path, "cell.yaml")
    return replace(_load(file, "cell", CellDocument), folder=folder)


def parse_gpus(text: str, *, name: str = "--gpus") -> Loaded[ClusterDocument]:
    """Returns the one-node cluster that a command-line flag describes: `4xA100-80GB,2xH100-80GB`.

    Args:
        text: Value of the flag.
        name: Name of the flag, for messages.

    Raises:
        SpecError: The value does not have this form.
    """
    gpus = []
    for item in text.split(","):
        match = re.fullmatch(r"(?:([0-9]{1,6})[xX])?([A-Za-z][A-Za-z0-9-]*)", item.strip())
        count = int(match[1] or 1) if match else 0
        if match is None or not 1 <= count <= LIMIT_GPUS:
            hint = (
                f"write COUNTxMODEL, with COUNT from 1 to {LIMIT_GPUS}, and separate several with commas: "
                "4xA100-80GB,2xH100-80GB"
            )
            raise SpecError([Diagnostic(name, 0, f"'{item.strip()}' does not name a number of GPUs", hint)])
        gpus.append({"model": match[2], "count": count})
    document = ClusterDocument.model_validate(
        {
            "apiVersion": API_VERSION,
            "kind": "Cluster",
            "spec": {"nodes": [{"name": LOCAL_NODE, "gpus": gpus}]},
        }
    )
    return Loaded(document, SourceMap(name))


def _place(path: Path | str, name: str) -> tuple[Path | str, Path]:
    """Returns the file to read, as messages name it, and its folder."""
    if str(path) == STDIN:
        return STDIN, Path.cwd().resolve()
    path = Path(path)
    file = path / name if path.is_dir() else path
    return file, file.parent.resolve()


def _named_files(spec: GraphSpec) -> Iterator[str]:
    yield from spec.sample.values()
    yield from [spec.labels.data] if spec.labels is not None else []
    yield from _step_files(spec)
    for task in spec.tasks.values():
        for variant in task.variants:
            yield from variant.artifacts.values()


def _step_files(spec: GraphSpec) -> Iterator[str]:
    return (task.python for task in spec.tasks.values() if task.python is not None)


def _config_files(spec: GraphSpec) -> Iterator[str]:
    """Yields the paths of the config.pbtxt files that variants have of their own."""
    for task in spec.tasks.values():
        for variant in task.variants:
            if CONFIG_ARTIFACT in variant.artifacts:
                yield variant.artifacts[CONFIG_ARTIFACT]


def _secured_files(spec: ClusterSpec) -> Iterator[str]:
    """Yields the paths of certificates and API keys, which may lie anywhere."""
    edge, own = spec.edge, spec.certificates
    tls = edge.tls if edge is not None else None
    texts = (
        edge.api_keys if edge is not None else None,
        *((tls.cert, tls.key, tls.client_ca) if tls is not None else ()),
        *((f"{own}/{name}" for name in CERTIFICATE_FILES) if own is not None else ()),
    )
    yield from (text for text in texts if text is not None)


def _load(file: Path | str, kind: Kind, model: type[Document]) -> Loaded[Document]:
    text = load_text(file, limit_bytes=LIMIT_BYTES)
    return _validate(parse_yaml(text, str(file)), kind, model)


def _validate(parsed: Parsed, kind: Kind, model: type[Document]) -> Loaded[Document]:
    """Validates the data, drops the wrong entries and repeats, until the rest is a valid document."""
    report = Report(parsed.source, parsed.problems)
    dropped = set(parsed.unusable)
    while True:
        data, origin = _without(parsed.data, dropped, _STAND_INS[kind])
        try:
            document = model.model_validate(data)
        except ValidationError as error:
            found = {_original(_entry(e["loc"]), origin): e for e in error.errors(include_url=False)}
            _explain(found, dropped, json_schema(kind), report)
            present = set(origin.values())
            dropped |= {path if path in _STAND_INS[kind] else _longest(path, present) for path in found}
            if () in dropped:
                raise SpecError(report.problems) from None
        else:
            lines = {**parsed.source.lines, **{new: parsed.source.lines[old] for new, old in origin.items()}}
            return Loaded(document, replace(parsed.source, lines=lines), report.problems, frozenset(dropped))


def _explain(
    found: dict[EntryPath, ErrorDetails], dropped: set[EntryPath], schema: dict[str, Any], report: Report
) -> None:
    """Reports the errors that are not consequences of entries dropped earlier.

    If apiVersion or kind is wrong, the file is of another kind, and only that is reported.
    """
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


def _without(
    data: Any, dropped: set[EntryPath], stand_ins: Mapping[EntryPath, Any]
) -> tuple[Any, dict[EntryPath, EntryPath]]:
    """Returns `data` without the dropped entries, and the original path of each entry that is kept.

    Placeholders replace required entries. The items of a list move up, so that their paths change.
    """
    origin: dict[EntryPath, EntryPath] = {}

    def copy(value: Any, new: EntryPath, old: EntryPath) -> Any:
        origin[new] = old
        if isinstance(value, dict):
            return {k: copy(v, (*new, k), (*old, k)) for k, v in value.items() if (*old, k) not in dropped}
        if isinstance(value, list):
            items = [(i, v) for i, v in enumerate(value) if (*old, i) not in dropped]
            return [copy(v, (*new, n), (*old, i)) for n, (i, v) in enumerate(items)]
        return value

    kept = copy(data, (), ())
    for path in sorted(stand_ins.keys() & dropped):
        if path[:-1] in origin:
            holder = kept if len(path) == 1 else kept[path[0]]
            holder[path[-1]] = stand_ins[path]
    return kept, origin


def _entry(loc: tuple[str | int, ...]) -> EntryPath:
    """Turns pydantic's location into a path; pydantic marks a wrong key by a further last element."""
    return loc[:-1] if loc and loc[-1] == "[key]" else loc


def _original(path: EntryPath, origin: Mapping[EntryPath, EntryPath]) -> EntryPath:
    known = _longest(path, origin)
    return origin[known] + path[len(known) :]


def _longest(path: EntryPath, known: Mapping[EntryPath, EntryPath] | set[EntryPath]) -> EntryPath:
    return next(path[:end] for end in range(len(path), -1, -1) if path[:end] in known)
