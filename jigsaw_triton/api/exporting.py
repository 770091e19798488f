"""Files for programs that start jigsaw-triton: systemd, Compose and Kubernetes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from jigsaw_triton.api.files import Mistakes, PathLike
from jigsaw_triton.api.machine import Driver, processor_only
from jigsaw_triton.api.planning import Demand, as_mapping
from jigsaw_triton.api.profile_files import PROFILES_FILE
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.api.request import DEFAULT_RPS
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.api.wanted import read_wanted
from jigsaw_triton.errors import InputError
from jigsaw_triton.export import compose, marker, names, systemd
from jigsaw_triton.export.cluster_file import cluster_file
from jigsaw_triton.export.commands import PROGRAM, Agent, Deploy, Gpus
from jigsaw_triton.export.kubernetes import settings as kubernetes
from jigsaw_triton.export.kubernetes.manifests import manifests
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.spec import load as spec
from jigsaw_triton.spec.files import STDIN
from jigsaw_triton.spec.schema import ClusterDocument
from jigsaw_triton.spec.words import LOCAL_NODE, shown

Graphs = PathLike | Sequence[PathLike]
"""Path of a graph.yaml or its folder, or several."""

_GRAPH_FILE = "graph.yaml"
_MOST_CONFIG_BYTES = 1_000_000
"""Bytes of files that fit into a ConfigMap, whose limit is 1 MiB."""

_MOST_LABEL = 63 - len(kubernetes.agent_name(""))


@dataclass(frozen=True, slots=True)
class _Application:
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


def export_systemd(
    graphs: Graphs,
    *,
    demand: Demand | None = None,
    gpus: str | None = None,
    cluster: PathLike | None = None,
    driver: Driver | None = None,
    program: PathLike | None = None,
    user: str = "jigsaw-triton",
    mistakes: Mistakes | None = None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> dict[str, str]:
    """Returns the systemd unit of a deployment on one machine.

    Args:
        graphs: Paths of graph.yaml files or their folders, at which the unit finds them too.
        demand: Requests a second to provide for.
        gpus: GPUs of the machine, such as `4xA100-80GB`. Either `gpus` or `cluster` is required.
        cluster: Path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster. By default, and if the file names none, it is nvml, which
            fails on a machine without GPUs.
        program: Path of `jigsaw-triton` in its environment; by default that of this installation.
        user: User whom the servers run as.
        mistakes: Mistakes that were found before.
        reporter: Receives notes about variants without profiles.
        wording: Form in which mistakes name an option.

    Returns:
        Text of the unit by the name of its file.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
    """
    mistakes = mistakes or Mistakes()
    with mistakes:
        names.check_user(user, where=wording.name("user"))
    found = _read(graphs, demand, gpus, cluster, driver, mistakes, reporter, wording)
    paths = [str(path.parent) for path in found.files.values()]
    options = ("--gpus", gpus) if gpus is not None else ("--cluster", absolute_path(cluster or ""))
    deploy = Deploy(tuple(paths), Gpus(options, found.driver), found.demand)
    host = _host(program, user, (*paths, *(options[1:] if cluster is not None else ())), mistakes, wording)
    _check_plain((*paths, *options), mistakes)
    mistakes.raise_if_any()
    return marker.marked({f"{systemd.NAME}.service": systemd.deployment_unit(host, deploy)})


def export_systemd_agent(
    node: str,
    *,
    listen: str = f"0.0.0.0:{kubernetes.AGENT_PORT}",
    certificates: PathLike,
    driver: Driver = "nvml",
    program: PathLike | None = None,
    user: str = "jigsaw-triton",
    wording: Wording = PYTHON,
) -> dict[str, str]:
    """Returns the systemd unit of a node's agent.

    Args:
        node: Name of the node in cluster.yaml.
        listen: IP address and port to listen on.
        certificates: Folder with the node's certificates, as `jigsaw-triton certificates issue` writes it.
        driver: MIG driver of the cluster; without MIG, the agent needs no right and gets none.
        program: See `export_systemd`.
        user: See `export_systemd`.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes in the arguments; the error has a diagnostic for each.
    """
    mistakes = Mistakes()
    with mistakes:
        names.check_user(user, where=wording.name("user"))
    with mistakes:
        names.check_node(node, where=wording.name("agent"))
    with mistakes:
        names.check_listen(listen, where=wording.name("listen"))
    folder = absolute_path(certificates)
    _check_plain((folder,), mistakes)
    host = _host(program, user, (folder,), mistakes, wording)
    mistakes.raise_if_any()
    state = systemd.state_folder(systemd.AGENT_NAME)
    agent = Agent(node, listen, folder, state)
    return marker.marked({f"{systemd.AGENT_NAME}.service": systemd.agent_unit(host, agent, driver)})


def export_compose(
    graphs: Graphs,
    *,
    image: str,
    demand: Demand | None = None,
    gpus: str | None = None,
    cluster: PathLike | None = None,
    driver: Driver | None = None,
    mistakes: Mistakes | None = None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> dict[str, str]:
    """Returns a Compose file for a deployment on one machine.

    Args:
        graphs: Paths of graph.yaml files or their folders on the machine, which the container reads.
        image: Image with tritonserver and jigsaw-triton.
        demand: See `export_systemd`.
        gpus: See `export_systemd`.
        cluster: See `export_systemd`.
        driver: See `export_systemd`.
        mistakes: See `export_systemd`.
        reporter: See `export_systemd`.
        wording: See `export_systemd`.

    Returns:
        Text of the file by its name.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
    """
    mistakes = mistakes or Mistakes()
    with mistakes:
        names.check_image(image, where=wording.name("image"))
    found = _read(graphs, demand, gpus, cluster, driver, mistakes, reporter, wording)
    where = wording.name("cluster")
    if len(found.document.spec.nodes) > 1:
        mistakes.add(where, "Compose starts containers on one machine", "keep one node, or export for Kubernetes")
    _check_no_containers(found.cluster, mistakes, where)
    inside = cluster_file(found.document, driver=found.driver, edge_folder=compose.EDGE_FOLDER)
    edge_paths = {name: str(found.folder / path) for name, path in inside.edge_files.items()}
    folders = {name: (str(path.parent), path.name) for name, path in found.files.items()}
    _check_plain((*edge_paths.values(), *(text for pair in folders.values() for text in pair)), mistakes)
    mistakes.raise_if_any()
    ports = _ports(found.cluster)
    container = compose.Container(
        image=image,
        graphs=folders,
        cluster=inside,
        edge_paths=edge_paths,
        ports=(ports.http, ports.grpc, ports.metrics, *((ports.edge_metrics,) if ports.edge_metrics else ())),
        address=found.cluster.gateway.address,
        driver=found.driver,
        demand=found.demand,
    )
    return marker.marked({compose.FILE: compose.compose_file(container)})


def export_kubernetes(
    graphs: Graphs,
    *,
    image: str,
    cluster: PathLike,
    demand: Demand | None = None,
    driver: Driver | None = None,
    namespace: str = "jigsaw-triton",
    models: str | None = None,
    storage: str = "20Gi",
    runtime_class: str = "nvidia",
    gateway: str | None = None,
    hostnames: Sequence[str] = (),
    monitor: bool = False,
    mistakes: Mistakes | None = None,
    reporter: Reporter = LOG,
    wording: Wording = PYTHON,
) -> dict[str, str]:
    """Returns manifests for Kubernetes: an agent on each node of the cluster, a controller with the gateway.

    Args:
        graphs: Paths of graph.yaml files or their folders.
        image: Image with tritonserver and jigsaw-triton, for all containers.
        cluster: Path of a cluster.yaml or its folder, in which the names of nodes are DNS labels. The manifests have
            their own addresses of agents, and their own folder of certificates.
        demand: See `export_systemd`.
        driver: See `export_systemd`.
        namespace: Namespace of all objects.
        models: Name of a PersistentVolumeClaim with a folder for each graph; by default the files of the graphs go into
            ConfigMaps, which hold 1 MB each.
        storage: Size of the controller's volume.
        runtime_class: RuntimeClass that gives containers NVIDIA's driver; empty for the default of the cluster.
        gateway: Gateway of the Gateway API to attach routes to, as NAME or NAMESPACE/NAME; None for no routes.
        hostnames: Host names of the routes; none for all of the Gateway.
        monitor: True for a ServiceMonitor of the Prometheus Operator.
        mistakes: See `export_systemd`.
        reporter: See `export_systemd`.
        wording: See `export_systemd`.

    Returns:
        Text of each file by its name.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
    """
    mistakes = mistakes or Mistakes()
    with mistakes:
        names.check_image(image, where=wording.name("image"))
    with mistakes:
        names.check_label(namespace, "namespace", where=wording.name("namespace"))
    with mistakes:
        names.check_quantity(storage, where=wording.name("storage"))
    if models is not None:
        with mistakes:
            names.check_domain(models, "claim", where=wording.name("models"))
    if runtime_class:
        with mistakes:
            names.check_domain(runtime_class, "RuntimeClass", where=wording.name("runtime-class"))
    parent = _parent(gateway, hostnames, mistakes, wording)
    found = _read(graphs, demand, None, cluster, driver, mistakes, reporter, wording, to_serve=models is None)
    labels: Mapping[str, str] = {}
    with mistakes:
        labels = names.labels_of(found.files, where="metadata.name")
    nodes = _nodes(found.document, mistakes, wording)
    _check_no_containers(found.cluster, mistakes, wording.name("cluster"))
    edge = found.cluster.edge
    if parent is not None and edge is not None and edge.tls is not None:
        hint = f"remove edge.tls from cluster.yaml, or omit {wording.name('gateway')}"
        mistakes.add(wording.name("gateway"), "the Gateway's routes reach the edge without TLS", hint)
    mistakes.raise_if_any()
    contents = {name: _contents(path, models, mistakes, wording) for name, path in found.files.items()}
    mistakes.raise_if_any()
    port = kubernetes.AGENT_PORT
    settings = kubernetes.Settings(
        namespace=namespace,
        image=image,
        driver=found.driver,
        graphs={name: kubernetes.Graph(labels[name], path.name, contents[name]) for name, path in found.files.items()},
        demand=found.demand,
        nodes=nodes,
        cluster=cluster_file(
            found.document,
            driver=found.driver,
            edge_folder=kubernetes.EDGE,
            agents={node: f"{kubernetes.agent_name(node)}:{port}" for node in nodes},
            certificates=kubernetes.CERTIFICATES,
        ),
        ports=_ports(found.cluster),
        probe=_probe(found.cluster),
        gateway_memory_mib=found.cluster.gateway_memory_mib,
        storage=storage,
        models=models,
        runtime_class=runtime_class,
        parent=parent,
        hostnames=tuple(hostnames),
        monitor=monitor,
    )
    return marker.marked(manifests(settings))


def _read(
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
) -> _Application:
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
    # What answers on this machine says nothing about the machine that the export is for.
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
    return _Application(files, wanted.cluster, document, folder, chosen, wanted.demand_rps if given else {})


def _file(source: PathLike) -> Path:
    """Returns the absolute path of a graph's file."""
    path = Path(absolute_path(source))
    return path / _GRAPH_FILE if path.is_dir() else path


def _host(
    program: PathLike | None, user: str, paths: tuple[str, ...], mistakes: Mistakes, wording: Wording
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
    return systemd.Host(str(folder / PROGRAM), str(folder / "python"), user, paths)


def _check_plain(texts: Sequence[str], mistakes: Mistakes) -> None:
    for text in texts:
        if not systemd.plain(text):
            mistakes.add(shown(text), "the path has control characters", "rename the file or folder")


def _check_no_containers(cluster: Cluster, mistakes: Mistakes, where: str) -> None:
    """Refuses servers in containers of their own, which a container cannot start."""
    for entry, image in (("server", cluster.image), ("gateway", cluster.gateway_image)):
        if image is not None:
            hint = f"remove {entry}.image: the servers run from the image of the export"
            mistakes.add(where, f"{entry}.image would start a container in a container", hint)


def _ports(cluster: Cluster) -> kubernetes.Ports:
    gateway, edge = cluster.gateway, cluster.edge
    return kubernetes.Ports(gateway.http, gateway.grpc, gateway.metrics, edge.metrics if edge is not None else None)


def _probe(cluster: Cluster) -> Literal["HTTP", "HTTPS", "TCP"]:
    """Returns the probe that needs neither a key nor a certificate of a client."""
    edge = cluster.edge
    if edge is None or (edge.tls is None and edge.api_keys is None):
        return "HTTP"
    open_to_all = edge.tls is not None and edge.tls.client_ca is None and edge.api_keys is None
    return "HTTPS" if open_to_all else "TCP"


def _parent(
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


def _nodes(document: ClusterDocument, mistakes: Mistakes, wording: Wording) -> tuple[str, ...]:
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


def _contents(file: Path, models: str | None, mistakes: Mistakes, wording: Wording) -> dict[str, bytes]:
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
