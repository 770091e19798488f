"""From what stands on the command line to the values that the parts work on, with every mistake told at once."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jigsaw_triton.cli.inputs.machine import Driver, default_driver, processor_only
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.errors import Diagnostic, InputError, SpecError
from jigsaw_triton.gpus.catalog import CATALOG, board
from jigsaw_triton.gpus.cluster import build_cluster
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.domain.plan import Plan, plan_from_json
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Problem
from jigsaw_triton.profiles.read import missing, read_profiles
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.load import load_cluster, load_graph, parse_gpus
from jigsaw_triton.spec.words import nearest

GATEWAY_TEMPLATES = frozenset({"ensemble", "front", "pipeline", "step"})
"""Templates of the compiler's own models, which no variant has."""

PROFILES_FILE = "profiles.csv"
_PLAN_LIMIT_BYTES = 64 * 1024 * 1024
_HOW_TO_GIVE_GPUS = (
    "say which: --gpus 2xA100-80GB, --gpus 2xcpu to try it without a GPU, or --cluster cluster.yaml for more"
)


class Mistakes:
    """What is wrong with the input, collected from several places: `with mistakes:` around each."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, where: str, message: str, hint: str = "") -> None:
        """Notes one."""
        self._found.append(Diagnostic(where, 0, message, hint))

    def __enter__(self) -> None:
        """Begins a part whose mistake is noted, and behind which the reading goes on."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        match error:
            case SpecError():
                self._found += error.diagnostics
            case InputError():
                self.add(error.where, error.message, error.hint)
        return isinstance(error, InputError)

    def raise_if_any(self) -> None:
        """Ends the reading of the input where anything is wrong with it.

        Raises:
            SpecError: Something was noted.
        """
        if self._found:
            raise SpecError(tuple(dict.fromkeys(self._found)))


def variant_templates() -> frozenset[str]:
    """Names of the templates that variants may have.

    Raises:
        JigsawError: The installation is incomplete.
    """
    return frozenset(load_templates(templates_dir())) - GATEWAY_TEMPLATES


def read_graphs(paths: Sequence[str], mistakes: Mistakes, *, require_files: bool = False) -> dict[str, TaskGraph]:
    """The graphs of graph.yaml files or their folders, by name, in the order given.

    Args:
        paths: As the user gave them; `-` is standard input.
        mistakes: Where what is wrong goes; such graphs are left out.
        require_files: Whether artifacts and samples must be there.
    """
    templates = variant_templates()
    graphs: dict[str, TaskGraph] = {}
    for path in paths:
        with mistakes:
            graph = build_graph(load_graph(path), templates=templates, require_files=require_files)
            if graph.name in graphs:
                mistakes.add(path, f"there is a graph '{graph.name}' before it", "give each graph a name of its own")
            graphs.setdefault(graph.name, graph)
    return graphs


def read_graph(path: str) -> TaskGraph:
    """The one graph of a command.

    Raises:
        SpecError: Anything is wrong with it.
    """
    mistakes = Mistakes()
    graphs = read_graphs([path], mistakes)
    mistakes.raise_if_any()
    return next(iter(graphs.values()))


def read_profile_tables(graphs: Mapping[str, TaskGraph], mistakes: Mistakes) -> dict[str, ProfileTable]:
    """The profiles.csv beside each graph, by the graph's name."""
    tables: dict[str, ProfileTable] = {}
    for name, graph in graphs.items():
        file = shown_path(graph.folder / PROFILES_FILE)
        with mistakes:
            if not Path(file).exists():
                hint = (
                    f"it says how fast each variant is; `jigsaw-triton profile {shown_path(graph.folder)}` measures it"
                )
                raise InputError("there is no such file", where=file, hint=hint)
            tables[name] = read_profiles(file)
    return tables


def read_cluster(
    out: Output, mistakes: Mistakes, *, gpus: str | None, cluster: str | None, driver: Driver | None
) -> Cluster | None:
    """The cluster of --gpus or --cluster.

    Args:
        out: Where it is said that MIG is emulated, if nobody asked for that.
        mistakes: Where what is wrong goes; None is returned then.
        gpus: Of --gpus.
        cluster: Of --cluster.
        driver: Of --driver, which goes before what the file says.
    """
    with mistakes:
        if gpus is None and cluster is None:
            raise InputError("the GPUs are not given", where="--gpus", hint=_HOW_TO_GIVE_GPUS)
        if gpus is not None and cluster is not None:
            raise InputError("--cluster is given too", where="--gpus", hint="keep one of the two")
        loaded = parse_gpus(gpus) if gpus is not None else load_cluster(cluster or "")
        spec = loaded.document.spec
        models = {entry.model for node in spec.nodes for entry in node.gpus}
        fallback = driver or default_driver(models)
        built = build_cluster(loaded, CATALOG, driver=fallback)
        if driver is None and spec.driver is None and fallback == "emulated" and not processor_only(models):
            out.warn("no GPU answers here, so MIG is emulated; --driver emulated says that this is meant")
        return replace(built, driver=driver or built.driver)
    return None


def read_demand(
    texts: Sequence[str], names: Sequence[str], mistakes: Mistakes, *, default_rps: float | None = None
) -> dict[str, float]:
    """Requests a second by graph.

    Args:
        texts: `12` for the one graph, or `NAME=RPS`, several of them with commas between.
        names: Of the graphs.
        mistakes: Where what is wrong goes.
        default_rps: For graphs without one; None where each must have one.
    """
    demand: dict[str, float] = {}
    before = len(mistakes)
    for item in (item.strip() for text in texts for item in text.split(",")):
        with mistakes:
            name, rps = _demand_item(item, names)
            if name in demand:
                raise InputError(f"the graph {name} has two", where="--demand", hint="keep one")
            demand[name] = rps
    lacking = [name for name in names if name not in demand]
    if default_rps is not None:
        return demand | dict.fromkeys(lacking, default_rps)
    if len(mistakes) == before:
        for name in lacking:
            mistakes.add("--demand", f"the graph {name} has none", f"add --demand {name}=RPS")
    return demand


def _demand_item(item: str, names: Sequence[str]) -> tuple[str, float]:
    name, equals, text = item.rpartition("=")
    if not equals and len(names) > 1:
        hint = f"write --demand {','.join(f'{name}=RPS' for name in names)}"
        raise InputError(f"'{item}' does not say of which graph", where="--demand", hint=hint)
    if equals and name not in names:
        raise InputError(f"there is no graph '{name}'", where="--demand", hint=nearest(name, names, "graphs"))
    try:
        rps = float(text)
    except ValueError:
        rps = math.nan
    if not 0 < rps <= MAX_DEMAND_RPS:
        hint = f"write a number above 0 and up to {MAX_DEMAND_RPS:.0f}"
        raise InputError(f"'{text}' is not a number of requests a second", where="--demand", hint=hint)
    return name or names[0], rps


def read_wanted(
    out: Output,
    paths: Sequence[str],
    *,
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    demand: Sequence[str],
    default_rps: float | None = None,
    to_serve: bool = True,
) -> Wanted:
    """Everything that a plan or a deployment is made of.

    Args:
        out: Where it is said what is emulated and what has no profile.
        paths: Of the graphs; profiles.csv is beside each.
        gpus: Of --gpus.
        cluster: Of --cluster.
        driver: Of --driver.
        demand: Of --demand.
        default_rps: For graphs without a demand; None where each must have one.
        to_serve: Artifacts and samples must be there, and the cluster must be one that this release serves on.

    Raises:
        SpecError: Anything is wrong, all of it.
    """
    mistakes = Mistakes()
    graphs = read_graphs(paths, mistakes, require_files=to_serve)
    profiles = read_profile_tables(graphs, mistakes)
    built = read_cluster(out, mistakes, gpus=gpus, cluster=cluster, driver=driver)
    # Where a graph could not be read, its demand would be called one of an unknown graph.
    complete = len(graphs) == len(paths)
    demand_rps = read_demand(demand, list(graphs), mistakes, default_rps=default_rps) if complete else {}
    if to_serve and built is not None and built.engine == "ray":
        mistakes.add(
            "engine", "serving on several machines (engine: ray) is not in this release", "write engine: local"
        )
    mistakes.raise_if_any()
    assert built is not None
    boards = sorted({gpu.board.name for gpu in built.gpus})
    for name, graph in graphs.items():
        for sentence in missing(graph, profiles[name], boards):
            out.note(f"{name}: {sentence}")
    return Wanted(graphs, demand_rps, profiles, built)


def problem(wanted: Wanted, *, running: Plan | None = None) -> Problem:
    """What the planner is asked."""
    workloads = tuple(Workload(graph, wanted.demand_rps[name]) for name, graph in wanted.graphs.items())
    return Problem(workloads, wanted.cluster, wanted.profiles, running=running)


def read_plan(path: Path) -> Plan:
    """A plan.json.

    Raises:
        InputError: It cannot be read or is none.
    """
    text = load_text(path, limit_bytes=_PLAN_LIMIT_BYTES)
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is not JSON: {error}", where=str(path), hint="plan again with -O") from error
    return plan_from_json(data, where=str(path))


def planned_cluster(plan: Plan, driver: Driver | None) -> Cluster:
    """The cluster of the GPUs that a plan uses.

    Raises:
        InputError: The catalog lacks a board of the plan.
    """
    gpus = tuple(Gpu(gpu.id, board(gpu.model, where=f"GPU {gpu.id} of the plan")) for gpu in plan.gpus)
    return Cluster(gpus, driver=driver or default_driver({gpu.board.name for gpu in gpus}))


def shown_path(path: Path) -> str:
    """A path as users would write it: relative where it is below the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
