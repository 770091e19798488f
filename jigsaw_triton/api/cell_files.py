"""Writes the files of cells: a folder for each cell of a plan, and the front.yaml of the front over them."""

import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import Mistakes, PathLike, load_plan_or_partition, read_graphs
from jigsaw_triton.api.reporting import PYTHON, Wording
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.export.cells import (
    CELL,
    CELLS,
    CLUSTER,
    FRONT,
    PLAN,
    CellContent,
    GatewayCertificates,
    cell_files,
)
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.cluster import build_cluster
from jigsaw_triton.planner.cells.model import Partition
from jigsaw_triton.planner.domain.plan import Plan, plan_to_text
from jigsaw_triton.servers.certificates.credentials import (
    check_credentials,
    credentials_in,
    identity,
    info,
    read_certificates,
)
from jigsaw_triton.servers.names import is_address
from jigsaw_triton.spec import load as spec
from jigsaw_triton.spec.entries import ADDRESS_PATTERN
from jigsaw_triton.spec.words import nearest

STATE = "state"
"""Name of the state folder of a cell, in the folder of the cell."""

_ONLY_CELL = "cell1"


def write_cells(
    folder: PathLike,
    graphs: Sequence[PathLike],
    *,
    cluster: PathLike,
    plan: PathLike,
    gateways: Mapping[str, str] | None = None,
    standbys: Mapping[str, str] | None = None,
    certificates: PathLike | None = None,
    overwrite: bool = False,
    wording: Wording = PYTHON,
) -> tuple[str, ...]:
    """Writes a folder for each cell of a plan, and the front.yaml of the front over them.

    Args:
        folder: Folder to write to; created if missing.
        graphs: Paths of graph.yaml files or their folders: the graphs of the plan.
        cluster: Path of the cluster.yaml that was planned for.
        plan: Path of a file that `plan --cells -O` wrote.
        gateways: Cell -> host of its gateway, if that has a machine of its own.
        standbys: Cell -> host of its standby gateway.
        certificates: Folder with cert.pem, key.pem and ca.pem, with which the front and the gateways speak TLS and
            verify each other; by default they speak without it.
        overwrite: True to replace the files of an earlier call.
        wording: Form in which mistakes name an option.

    Returns:
        Names of the cells.

    Raises:
        SpecError: There are mistakes in the files.
        InputError: Plan, graphs and cluster do not belong together, or the folder cannot be written.
        StateError: A cell that is not in the plan any more is still deployed.
    """
    mistakes = Mistakes()
    paths = {}
    for path in graphs:
        for name in read_graphs([path], mistakes, require_files=True):
            paths[name] = absolute_path(path)
    loaded = None
    with mistakes:
        loaded = spec.load_cluster(cluster)
        # The cluster is built only to find mistakes in its file, for which any driver will do.
        build_cluster(loaded, CATALOG)
    mistakes.raise_if_any()
    assert loaded is not None
    nodes = tuple(node.name for node in loaded.document.spec.nodes)
    contents = _contents(load_plan_or_partition(plan), paths, nodes, str(plan))
    names = [cell.name for cell in contents]
    hosts, spares = gateways or {}, standbys or {}
    for given, option in ((hosts, "gateway-host"), (spares, "standby-host")):
        for name, host in given.items():
            _check_host(name, host, names, wording.name(option))
    contents = [replace(cell, host=hosts.get(cell.name), standby=spares.get(cell.name)) for cell in contents]
    files = {text: str(file.path) for text, file in loaded.files.items()}
    shown = _certificates(Path(absolute_path(certificates))) if certificates is not None else None
    _write(Path(folder), cell_files(loaded.document, files, contents, shown), overwrite=overwrite, wording=wording)
    return tuple(names)


def _certificates(folder: Path) -> GatewayCertificates:
    """Returns the certificates in a folder, once they are checked.

    Raises:
        InputError: A file cannot be read, has expired, or does not fit the others, or no name can be verified.
        MissingDependencyError: The package `cryptography` is missing.
    """
    files = credentials_in(folder)
    check_credentials(files)
    found = info(read_certificates(files.cert)[0])
    names = [*map(identity, found.nodes), *(host for host in found.hosts if not is_address(host))]
    if not names:
        hint = "issue it for a name: `jigsaw-triton certificates issue gateway`"
        raise InputError("the certificate carries no DNS name", where=str(files.cert), hint=hint)
    return GatewayCertificates(str(files.cert), str(files.key), str(files.ca), names[0])


def _check_host(cell: str, host: str, names: Collection[str], where: str) -> None:
    if cell not in names:
        raise InputError(f"the plan has no cell '{cell}'", where=where, hint=nearest(cell, names, "cells"))
    if not re.fullmatch(ADDRESS_PATTERN, f"{host}:1"):
        raise InputError(f"{host!r} is not a host name or an address", where=where, hint="leave the port out")


def _contents(
    plan: Plan | Partition,
    graphs: Mapping[str, str],
    nodes: tuple[str, ...],
    where: str,
) -> list[CellContent]:
    """Returns the cells of a plan, once it is checked that graphs and nodes are those of the plan."""
    match plan:
        case Partition(cells):
            parts = [(cell.name, cell.nodes, dict(cell.weights), cell.plan) for cell in cells]
        case Plan():
            parts = [(_ONLY_CELL, nodes, dict.fromkeys(plan.graphs, 1.0), plan)]
    planned = {name for _, _, _, one in parts for name in one.graphs}
    if missing := sorted(planned - graphs.keys()):
        raise InputError(f"the plan serves {missing[0]}, which is not given", where=where, hint="give all its graphs")
    if unknown := sorted(graphs.keys() - planned):
        raise InputError(f"the plan does not serve {unknown[0]}", where=where, hint="plan again with all graphs")
    inside = {node for _, own, _, _ in parts for node in own}
    if inside != set(nodes):
        other = sorted(inside ^ set(nodes))[0]
        hint = "plan again with this cluster.yaml"
        raise InputError(f"node {other} is in only one of the plan and the cluster", where=where, hint=hint)
    return [
        CellContent(
            name=name,
            nodes=own,
            graphs={graph: graphs[graph] for graph in one.graphs},
            demand={graph: found.demand_rps for graph, found in one.graphs.items()},
            weights=weights,
            plan=plan_to_text(one),
        )
        for name, own, weights, one in parts
    ]


def _write(folder: Path, files: Mapping[str, str], *, overwrite: bool, wording: Wording) -> None:
    """Writes all files or none. Cells of an earlier call that are not needed any more lose their files."""
    if (folder / FRONT).exists() and not overwrite:
        hint = f"choose another folder, or replace the files with {wording.name('overwrite')}"
        raise InputError("the folder has cells already", where=str(folder), hint=hint)
    old = [path for path in sorted((folder / CELLS).glob(f"*/{CELL}")) if str(path.relative_to(folder)) not in files]
    for path in old:
        if Deployment(path.parent / STATE).wait_status() is not None:
            hint = f"take it down first: `jigsaw-triton cells down {folder} --cell {path.parent.name}`"
            raise StateError(f"cell {path.parent.name} is not in the plan, and still deployed", hint=hint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
            for name, text in files.items():
                (Path(part) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(part) / name).write_text(text, encoding="utf-8")
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(part) / name).replace(folder / name)
        for path in old:
            for name in (CELL, CLUSTER, PLAN):
                (path.parent / name).unlink(missing_ok=True)
    except OSError as error:
        message = f"the folder cannot be written ({error.strerror})"
        raise InputError(message, where=str(folder), hint="choose another path") from error
