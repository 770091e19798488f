"""Reading graphs, profiles, clusters and plans. All mistakes in all of them are reported at once."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jigsaw_triton.api.machine import Driver, default_driver, processor_only, usable_processors
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.errors import Diagnostic, InputError, SpecError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.cluster import build_cluster
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.models.files import check_files
from jigsaw_triton.planner.cells.model import Partition, is_partition, partition_from_json
from jigsaw_triton.planner.domain.picture import planned_gpus
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.plan_reader import plan_from_json
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.spec import load as spec
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.source import Report, SourceMap

GATEWAY_TEMPLATES = frozenset({"ensemble", "front", "pipeline", "step"})
"""Templates of models that the compiler generates; variants cannot use them."""

ONLY_GRAPH = ""
"""Key of the demand of the only graph, whose name need not be written."""

_PLAN_LIMIT_BYTES = 64 * 1024 * 1024

PathLike = str | Path


@dataclass(frozen=True, slots=True)
class GraphText:
    """A graph that was built in Python, in a form that another process can read.

    Attributes:
        name: Name of the graph.
        yaml: Content of its graph.yaml.
        folder: Absolute folder that the paths in it are relative to.
        profiles: Content of its profiles.csv; None if that file is in the folder.
    """

    name: str
    yaml: str
    folder: str
    profiles: str | None = None

    @classmethod
    def of(cls, graph: TaskGraph, profiles: ProfileTable | None) -> "GraphText":
        """Returns the text of a graph.

        Args:
            graph: The graph.
            profiles: Profiles of the graph; None if they are in profiles.csv in its folder.

        Raises:
            InputError: A file of the graph is outside its folder.
        """
        rows = write_profiles(profiles.rows()) if profiles is not None else None
        return cls(graph.name, graph.to_yaml(), str(graph.folder.absolute()), rows)


GraphSource = str | Path | TaskGraph | GraphText
"""A graph, or the path of a graph.yaml or its folder."""


class Mistakes:
    """Collects mistakes in several inputs: `with mistakes:` around the reading of each."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []

    def add(self, where: str, message: str, hint: str = "") -> None:
        """Adds a mistake."""
        self._found.append(Diagnostic(where, 0, message, hint))

    def any_in(self, where: str) -> bool:
        """Returns True if a mistake was found at this place."""
        return any(diagnostic.file == where for diagnostic in self._found)

    def __enter__(self) -> None:
        """Begins the reading of an input. Its mistakes are collected, and do not end the reading of the others."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        match error:
            case SpecError():
                self._found += error.diagnostics
            case InputError():
                self.add(error.where, error.message, error.hint)
        return isinstance(error, InputError)

    def raise_if_any(self) -> None:
        """Ends the reading if there are mistakes.

        Raises:
            SpecError: There are mistakes; it has all of them.
        """
        if self._found:
            raise SpecError(tuple(dict.fromkeys(self._found)))


def load_graph(path: PathLike, *, require_files: bool = False) -> TaskGraph:
    """Reads a task graph.

    Args:
        path: Path of a graph.yaml or of its folder; `-` is standard input.
        require_files: True if model files and samples must exist.

    Raises:
        SpecError: The graph has mistakes; the error has a diagnostic for each.

    Examples:
        >>> import jigsaw_triton as jt
        >>> graph = jt.load_graph("app")
        >>> graph.name, list(graph.tasks)
        ('hello', ['average'])
    """
    mistakes = Mistakes()
    graphs = read_graphs([path], mistakes, require_files=require_files)
    mistakes.raise_if_any()
    return next(iter(graphs.values()))


def load_cluster(path: PathLike, *, driver: Driver | None = None) -> Cluster:
    """Reads a cluster.

    Args:
        path: Path of a cluster.yaml or of its folder.
        driver: MIG driver, instead of the one in the file. By default, and if the file names none, it is nvml if a GPU
            answers, else emulated.

    Raises:
        SpecError: The cluster has mistakes; the error has a diagnostic for each.
    """
    mistakes = Mistakes()
    cluster = read_cluster(mistakes, cluster=path, driver=driver)
    mistakes.raise_if_any()
    assert cluster is not None
    return cluster


def load_plan(path: PathLike) -> Plan:
    """Reads a plan.json.

    Raises:
        InputError: The file cannot be read, is not a plan, or has several cells.
    """
    found = load_plan_or_partition(path)
    if isinstance(found, Partition):
        raise InputError(
            f"this plan has {len(found.cells)} cells, and only a plan of one cell can be used here",
            where=str(path),
            hint="plan again without --cells",
        )
    return found


def load_partition(path: PathLike) -> Partition:
    """Reads a plan of several cells, as `plan --cells` writes it.

    Raises:
        InputError: The file cannot be read, is not a plan, or has only one cell.
    """
    found = load_plan_or_partition(path)
    if isinstance(found, Plan):
        raise InputError("this plan has one cell", where=str(path), hint="read it with load_plan")
    return found


def load_plan_or_partition(path: PathLike) -> Plan | Partition:
    """Reads a plan of one or several cells.

    Raises:
        InputError: The file cannot be read or is not a plan.
    """
    text = load_text(path, limit_bytes=_PLAN_LIMIT_BYTES)
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is not JSON: {error}", where=str(path), hint="plan again with -O") from error
    if is_partition(data):
        return partition_from_json(data, where=str(path))
    return plan_from_json(data, where=str(path))


def variant_templates() -> frozenset[str]:
    """Returns the names of the templates that variants can have.

    Raises:
        JigsawError: The installation is incomplete.
    """
    return frozenset(load_templates(templates_dir())) - GATEWAY_TEMPLATES


def read_graphs(
    sources: Iterable[GraphSource], mistakes: Mistakes, *, require_files: bool = False
) -> dict[str, TaskGraph]:
    """Reads graphs.

    Args:
        sources: Graphs, or paths of graph.yaml files or their folders; `-` is standard input.
        mistakes: Collection of mistakes; graphs with mistakes are left out of the result.
        require_files: True if model files and samples must exist. It does not apply to a `TaskGraph`.

    Returns:
        The graphs by name, in the order given.
    """
    found = read_graphs_and_lines(sources, mistakes, require_files=require_files)
    return {name: graph for name, (graph, _) in found.items()}


def read_graphs_and_lines(
    sources: Iterable[GraphSource], mistakes: Mistakes, *, require_files: bool = False
) -> dict[str, tuple[TaskGraph, SourceMap]]:
    """Reads graphs, and returns the lines of their entries too. See `read_graphs`.

    If files must exist, the files of models are compared with the graph. The models themselves are not run.
    """
    templates = variant_templates()
    graphs: dict[str, tuple[TaskGraph, SourceMap]] = {}
    for source in sources:
        with mistakes:
            match source:
                case TaskGraph():
                    graph, lines = source, SourceMap(_place(source))
                case GraphText():
                    loaded = spec.load_graph_text(source.yaml, name=_place(source), folder=Path(source.folder))
                    graph, lines = build_graph(loaded, templates=templates, require_files=require_files), loaded.source
                case _:
                    loaded = spec.load_graph(source)
                    graph, lines = build_graph(loaded, templates=templates, require_files=require_files), loaded.source
            if graph.name in graphs:
                mistakes.add(_place(source), f"another graph is named '{graph.name}'", "give each graph its own name")
            graphs.setdefault(graph.name, (graph, lines))
            if require_files:
                report = Report(lines)
                check_files(graph, report)
                report.raise_if_any()
    return graphs


def _place(source: GraphSource) -> str:
    """Returns the name of a graph in messages."""
    return f"graph {source.name}" if isinstance(source, TaskGraph | GraphText) else str(source)


def read_cluster(
    mistakes: Mistakes,
    *,
    gpus: str | None = None,
    cluster: PathLike | Cluster | None = None,
    driver: Driver | None = None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> Cluster | None:
    """Reads the cluster, which is given by exactly one of `gpus` and `cluster`.

    Args:
        mistakes: Collection of mistakes; None is returned if there are any.
        gpus: GPUs of one machine, such as `4xA100-80GB`.
        cluster: A cluster, or the path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        reporter: Recipient of a warning if MIG is emulated although nobody asked for it.
        wording: Form in which mistakes name an option.
    """
    with mistakes:
        if gpus is None and cluster is None:
            raise InputError("no GPUs are given", where=wording.name("gpus"), hint=_gpus_hint(wording))
        if gpus is not None and cluster is not None:
            raise InputError(
                f"{wording.name('cluster')} is given too", where=wording.name("gpus"), hint="keep one of the two"
            )
        if isinstance(cluster, Cluster):
            return replace(cluster, driver=driver or cluster.driver)
        loaded = (
            spec.parse_gpus(gpus, name=wording.name("gpus")) if gpus is not None else spec.load_cluster(cluster or "")
        )
        document = loaded.document.spec
        models = {entry.model for node in document.nodes for entry in node.gpus}
        fallback = driver or default_driver(models)
        built = build_cluster(loaded, CATALOG, driver=fallback)
        undecided = driver is None and document.driver is None and built.agents is None
        if undecided and fallback == "emulated" and not processor_only(models):
            setting = wording.setting("driver", "emulated")
            reporter.warn(f"no GPU answers on this machine, so MIG is emulated; {setting} turns this warning off")
        shared = any(gpu.board.arch == "cpu" for gpu in built.gpus)
        return replace(built, driver=driver or built.driver, processors=usable_processors() if shared else None)
    return None


def _gpus_hint(wording: Wording) -> str:
    real, processor = wording.setting("gpus", "2xA100-80GB"), wording.setting("gpus", "2xcpu")
    file = wording.setting("cluster", "cluster.yaml")
    return f"give {real}, or {processor} to try it without a GPU, or {file} for several machines"


def planned_cluster(plan: Plan, driver: Driver | None) -> Cluster:
    """Returns the cluster of the GPUs that a plan uses.

    Args:
        plan: The plan.
        driver: MIG driver; by default nvml if a GPU answers, else emulated.

    Raises:
        InputError: The catalog lacks a board of the plan.
    """
    gpus = planned_gpus(plan)
    return Cluster(gpus, driver=driver or default_driver({gpu.board.name for gpu in gpus}))


def missing_files(graph: TaskGraph) -> list[str]:
    """Returns the paths of model files and samples that do not exist, sorted."""
    named = {path for task in graph.tasks.values() for v in task.variants for path in v.artifacts.values()}
    return sorted(str(path) for path in named | set(graph.samples.values()) if not path.is_file())


def shown_path(path: Path) -> str:
    """Returns a path as users would write it: relative if it is below the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
