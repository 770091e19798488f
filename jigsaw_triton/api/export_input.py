"""Checked input of exports: applications, clusters, and what Kubernetes restricts."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from jigsaw_triton.api.files import Mistakes, PathLike
from jigsaw_triton.api.machine import Driver, processor_only
from jigsaw_triton.api.planning import Demand, as_mapping
from jigsaw_triton.api.profile_files import PROFILES_FILE
from jigsaw_triton.api.reporting import Reporter, Wording
from jigsaw_triton.api.request import DEFAULT_RPS
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.api.wanted import read_wanted
from jigsaw_triton.errors import InputError
from jigsaw_triton.export import names, systemd
from jigsaw_triton.export.commands import PROGRAM
from jigsaw_triton.export.kubernetes import settings as kubernetes
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.spec import load as spec
from jigsaw_triton.spec.cluster_schema import ClusterDocument
from jigsaw_triton.spec.files import STDIN
from jigsaw_triton.spec.words import LOCAL_NODE, shown

Graphs = PathLike | Sequence[PathLike]
"""Path of a graph.yaml or its folder, or several."""

_GRAPH_FILE = "graph.yaml"
_MOST_CONFIG_BYTES = 1_000_000
"""Bytes of files that fit into a ConfigMap, whose limit is 1 MiB."""

_MOST_LABEL = 63 - len(kubernetes.agent_name(""))


@dataclass(frozen=True, slots=True)
class Application:
    """Checked input of an export.

    Attributes:
        files: Name of each graph -> absolute path of its graph.yaml.
        cluster: The cluster.
        document: The cluster as it is written.
        folder: Folder that paths in the cluster are relative to.
        driver: MIG driver on the machine that the export is for.
        demand: Requests a second by graph; empty if none was given.
    """

    files: Mapping[str, Path]
    cluster: Cluster
    document: ClusterDocument
    folder: Path
    driver: Driver
    demand: Mapping[str, float]


def read_application(
    graphs: Graphs,
    demand: Demand | None,
    gpus: str | None,
    cluster: PathLike | None,
    driver: Driver | None,
    mistakes: Mistakes,
    reporter: Reporter,
    wording: Wording,
    *,
    to_serve: bool = True,
) -> Application:
    """Reads and checks graphs, profiles, cluster and demand.

    Raises:
        SpecError: There are mistakes; the error has all of them.
    """
    sources = [graphs] if isinstance(graphs, str | Path) else list(graphs)
    if STDIN in map(str, (*sources, cluster)):
        mistakes.add(STDIN, "an exported file cannot refer to standard input", "give the path of a file")
        mistakes.raise_if_any()
    document: ClusterDocument | None = None
    folder = Path.cwd()
    with mistakes:
        if gpus is not None:
            document = spec.parse_gpus(gpus, name=wording.name("gpus")).document
        elif cluster is not None:
            loaded = spec.load_cluster(cluster)
            document, folder = loaded.document, loaded.folder
    # The GPUs of this machine say nothing about the machine that the export is for.
    models = {entry.model for node in document.spec.nodes for entry in node.gpus} if document is not None else set()
    stated = document.spec.driver if document is not None else None
    chosen: Driver = driver or stated or ("emulated" if processor_only(models) else "nvml")
    given = as_mapping(demand)
    wanted = read_wanted(
        sources,
        gpus=gpus,
        cluster=cluster,
        driver=chosen,
        demand=given,
        default_rps=DEFAULT_RPS,
        to_serve=to_serve,
        mistakes=mistakes,
        reporter=reporter,
        wording=wording,
    )
    assert document is not None
    files = dict(zip(wanted.graphs, map(_file, sources), strict=True))
    return Application(files, wanted.cluster, document, folder, chosen, wanted.demand_rps if given else {})


def _file(source: PathLike) -> Path:
    """Returns the absolute path of a graph's file."""
    path = Path(absolute_path(source))
    return path / _GRAPH_FILE if path.is_dir() else path


def host_of_program(
    program: PathLike | None,
    user: str,
    paths: tuple[str, ...],
    mistakes: Mistakes,
    wording: Wording,
    *,
    workers: bool = True,
) -> systemd.Host:
    """Returns the machine of a unit. Python is beside the program, in the same environment."""
    own = Path(sys.executable)
    folder = Path(absolute_path(program)).parent if program is not None else own.parent
    # The Python of an environment is a link to another one, which may be in somebody's home.
    paths = (*paths, str(own.resolve())) if program is None else paths
    if not systemd.runnable(str(folder)):
        hint = f"install it elsewhere, and give its path: {wording.setting('program', '/opt/jigsaw/bin/jigsaw-triton')}"
        message = "systemd runs no program whose path has quotes, backslashes, dollar signs or control characters"
        mistakes.add(str(folder), message, hint)
    return systemd.Host(str(folder / PROGRAM), str(folder / "python"), user, paths, workers)


def check_plain(texts: Sequence[str], mistakes: Mistakes) -> None:
    """Refuses paths that do not fit on one line."""
    for text in texts:
        if not systemd.plain(text):
            mistakes.add(shown(text), "the path has control characters", "rename the file or folder")


def check_no_containers(cluster: Cluster, mistakes: Mistakes, where: str) -> None:
    """Refuses servers in containers of their own, which a container cannot start."""
    for entry, image in (("server", cluster.image), ("gateway", cluster.gateway_image)):
        if image is not None:
            hint = f"remove {entry}.image: the servers run from the image of the export"
            mistakes.add(where, f"{entry}.image would start a container in a container", hint)


def gateway_ports(cluster: Cluster) -> kubernetes.Ports:
    """Returns the ports of the gateway, or of the edge in front of it."""
    gateway, edge = cluster.gateway, cluster.edge
    return kubernetes.Ports(gateway.http, gateway.grpc, gateway.metrics, edge.metrics if edge is not None else None)


def gateway_probe(cluster: Cluster) -> Literal["HTTP", "HTTPS", "TCP"]:
    """Returns the probe that needs neither a key nor a certificate of a client."""
    edge = cluster.edge
    if edge is None or (edge.tls is None and edge.api_keys is None):
        return "HTTP"
    open_to_all = edge.tls is not None and edge.tls.client_ca is None and edge.api_keys is None
    return "HTTPS" if open_to_all else "TCP"


def read_parent(
    gateway: str | None, hostnames: Sequence[str], mistakes: Mistakes, wording: Wording
) -> tuple[str, str] | None:
    """Returns namespace and name of a Gateway."""
    for hostname in hostnames:
        with mistakes:
            names.check_domain(hostname, "host name", where=wording.name("hostname"))
    if gateway is None:
        if hostnames:
            hint = f"add {wording.setting('gateway', 'NAMESPACE/NAME')}"
            mistakes.add(wording.name("hostname"), "host names belong to routes, and routes to a Gateway", hint)
        return None
    namespace, _, name = gateway.rpartition("/")
    where = wording.name("gateway")
    with mistakes:
        if namespace or "/" in gateway:
            names.check_label(namespace, "namespace", where=where, hint="write NAMESPACE/NAME or NAME")
        names.check_domain(name, "Gateway", where=where)
    return namespace, name


def node_names(document: ClusterDocument, mistakes: Mistakes, wording: Wording) -> tuple[str, ...]:
    """Returns the names of the nodes, and checks that Kubernetes accepts them."""
    for node in document.spec.nodes:
        with mistakes:
            hint = f"name nodes with lower-case letters, digits and '-', at most {_MOST_LABEL} in all"
            where = wording.name("cluster")
            names.check_label(node.name, "name of the node", where=where, hint=hint)
            if len(node.name) > _MOST_LABEL:
                raise InputError(f"the name of the node {shown(node.name)} is too long", where=where, hint=hint)
            if node.name == LOCAL_NODE:
                message = f"the node {LOCAL_NODE} would be the controller's own machine"
                raise InputError(message, where=where, hint="choose another name")
    return tuple(node.name for node in document.spec.nodes)


def graph_contents(file: Path, models: str | None, mistakes: Mistakes, wording: Wording) -> dict[str, bytes]:
    """Reads the files of a graph for a ConfigMap; none if a volume claim has them."""
    if models is not None:
        return {}
    profiles = file.parent / PROFILES_FILE
    found = {file.name: file, **({PROFILES_FILE: profiles} if profiles.is_file() else {})}
    found |= {PurePosixPath(text).as_posix(): local.path for text, local in spec.load_graph(file).files.items()}
    size = sum(path.stat().st_size for path in found.values())
    if size > _MOST_CONFIG_BYTES:
        hint = f"copy the folder into a PersistentVolumeClaim, and give its name: {wording.setting('models', 'CLAIM')}"
        message = f"the graph's files have {size / 1e6:.1f} MB, and a ConfigMap holds {_MOST_CONFIG_BYTES / 1e6:g} MB"
        mistakes.add(str(file), message, hint)
        return {}
    return {text: path.read_bytes() for text, path in found.items()}
