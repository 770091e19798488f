"""Files for programs that start jigsaw-triton, which are systemd, Compose and Kubernetes, and for Envoy."""

from collections.abc import Mapping, Sequence

from jigsaw_triton.api.export_input import (
    Graphs,
    check_no_containers,
    check_plain,
    gateway_ports,
    gateway_probe,
    graph_contents,
    host_of_program,
    node_names,
    read_application,
    read_parent,
)
from jigsaw_triton.api.files import Mistakes, PathLike
from jigsaw_triton.api.fronts import FrontFile
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import Demand
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.export import commands, compose, marker, names, systemd
from jigsaw_triton.export.cluster_file import cluster_file
from jigsaw_triton.export.commands import Agent, Deploy, Gpus
from jigsaw_triton.export.kubernetes import settings as kubernetes
from jigsaw_triton.export.kubernetes.manifests import manifests
from jigsaw_triton.front.config import links
from jigsaw_triton.front.envoy import bootstrap as envoy
from jigsaw_triton.spec.yaml_writer import dump_yaml

_FIRST_HIGH_PORT = 1024
"""First port that other users than root may listen on."""


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
    """Returns the systemd unit of a deployment on one machine, or of the controller of several machines with agents.

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
        reporter: Recipient of notes about variants without profiles.
        wording: Form in which mistakes name an option.

    Returns:
        Text of the unit by the name of its file.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
    """
    mistakes = mistakes or Mistakes()
    with mistakes:
        names.check_user(user, where=wording.name("user"))
    found = read_application(graphs, demand, gpus, cluster, driver, mistakes, reporter, wording)
    paths = [str(path.parent) for path in found.files.values()]
    options = ("--gpus", gpus) if gpus is not None else ("--cluster", absolute_path(cluster or ""))
    deploy = Deploy(tuple(paths), Gpus(options, found.driver), found.demand)
    agents = found.cluster.agents
    read = (
        *paths,
        *(options[1:] if cluster is not None else ()),
        *((agents.certificates,) if agents is not None and agents.certificates else ()),
    )
    host = host_of_program(program, user, read, mistakes, wording, workers=agents is None)
    check_plain((*paths, *options), mistakes)
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
    check_plain((folder,), mistakes)
    host = host_of_program(program, user, (folder,), mistakes, wording)
    mistakes.raise_if_any()
    state = systemd.state_folder(systemd.AGENT_NAME)
    agent = Agent(node, listen, folder, state)
    return marker.marked({f"{systemd.AGENT_NAME}.service": systemd.agent_unit(host, agent, driver)})


def export_systemd_front(
    front: PathLike,
    *,
    program: PathLike | None = None,
    user: str = "jigsaw-triton",
    wording: Wording = PYTHON,
) -> dict[str, str]:
    """Returns the systemd unit of a front of cells.

    Args:
        front: Path of a front.yaml or its folder, at which the unit finds it too.
        program: See `export_systemd`.
        user: User whom the front runs as.
        wording: Form in which mistakes name an option.

    Raises:
        SpecError: There are mistakes in the file or arguments; the error has a diagnostic for each.
    """
    mistakes = Mistakes()
    with mistakes:
        names.check_user(user, where=wording.name("user"))
    path = absolute_path(front)
    read, lowest = [path], _FIRST_HIGH_PORT
    with mistakes:
        found = FrontFile(path).read()
        read += [*links(found).values(), *([found.edge.api_keys] if found.edge.api_keys is not None else [])]
        lowest = min(found.ports.http, found.ports.grpc, found.ports.metrics)
    check_plain((path,), mistakes)
    host = host_of_program(program, user, tuple(read), mistakes, wording)
    mistakes.raise_if_any()
    service = commands.Front(path, systemd.state_folder(systemd.FRONT_NAME))
    unit = systemd.front_unit(host, service, low_ports=lowest < _FIRST_HIGH_PORT)
    return marker.marked({f"{systemd.FRONT_NAME}.service": unit})


def export_envoy(front: PathLike, *, reporter: Reporter = LOG) -> dict[str, str]:
    """Returns the configuration of an Envoy that balances requests over cells in the place of `jigsaw-triton front`.

    Args:
        front: Path of a front.yaml or its folder.
        reporter: Recipient of warnings about settings that Envoy does not have.

    Raises:
        SpecError: There are mistakes in the file, or it asks for what Envoy cannot do.
    """
    found, mistakes = FrontFile(front).read(), Mistakes()
    for message, hint in envoy.problems(found):
        mistakes.add(str(front), message, hint)
    mistakes.raise_if_any()
    for text in envoy.left_out(found):
        reporter.warn(text)
    return marker.marked({envoy.FILE: dump_yaml(envoy.bootstrap(found))})


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
    found = read_application(graphs, demand, gpus, cluster, driver, mistakes, reporter, wording)
    where = wording.name("cluster")
    if len(found.document.spec.nodes) > 1:
        mistakes.add(where, "Compose starts containers on one machine", "keep one node, or export for Kubernetes")
    elif found.cluster.agents is not None:
        mistakes.add(
            where,
            "the container starts its workers itself, without agents",
            f"remove `engine: {found.cluster.agents.engine}`",
        )
    check_no_containers(found.cluster, mistakes, where)
    inside = cluster_file(found.document, driver=found.driver, edge_folder=compose.EDGE_FOLDER)
    edge_paths = {name: str(found.folder / path) for name, path in inside.edge_files.items()}
    folders = {name: (str(path.parent), path.name) for name, path in found.files.items()}
    check_plain((*edge_paths.values(), *(text for pair in folders.values() for text in pair)), mistakes)
    mistakes.raise_if_any()
    ports = gateway_ports(found.cluster)
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
    ray: bool = False,
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
        ray: True for a RayCluster of KubeRay, in which Ray starts the agents, in place of DaemonSets.
        mistakes: See `export_systemd`.
        reporter: See `export_systemd`.
        wording: See `export_systemd`.

    Returns:
        Text of each file by its name.

    Raises:
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
    """
    mistakes = mistakes or Mistakes()
    _check_names(image, namespace, storage, models, runtime_class, mistakes, wording)
    parent = read_parent(gateway, hostnames, mistakes, wording)
    found = read_application(
        graphs, demand, None, cluster, driver, mistakes, reporter, wording, to_serve=models is None
    )
    labels: Mapping[str, str] = {}
    with mistakes:
        labels = names.labels_of(found.files, where="metadata.name")
    nodes = node_names(found.document, mistakes, wording)
    check_no_containers(found.cluster, mistakes, wording.name("cluster"))
    edge = found.cluster.edge
    if parent is not None and edge is not None and edge.tls is not None:
        hint = f"remove edge.tls from cluster.yaml, or omit {wording.name('gateway')}"
        mistakes.add(wording.name("gateway"), "the Gateway's routes reach the edge without TLS", hint)
    mistakes.raise_if_any()
    contents = {name: graph_contents(path, models, mistakes, wording) for name, path in found.files.items()}
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
            agents=None if ray else {node: f"{kubernetes.agent_name(node)}:{port}" for node in nodes},
            certificates=kubernetes.CERTIFICATES,
            ray=kubernetes.ray_settings() if ray else None,
        ),
        ports=gateway_ports(found.cluster),
        probe=gateway_probe(found.cluster),
        gateway_memory_mib=found.cluster.gateway_memory_mib,
        storage=storage,
        models=models,
        runtime_class=runtime_class,
        parent=parent,
        hostnames=tuple(hostnames),
        monitor=monitor,
        ray=ray,
    )
    return marker.marked(manifests(settings))


def _check_names(
    image: str,
    namespace: str,
    storage: str,
    models: str | None,
    runtime_class: str,
    mistakes: Mistakes,
    wording: Wording,
) -> None:
    """Collects mistakes in the names that the user gives for objects of Kubernetes; see `export_kubernetes`."""
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
