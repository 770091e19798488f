"""A Compose file for a deployment on one machine."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jigsaw_triton.export.cluster_file import ClusterFile
from jigsaw_triton.export.commands import MIG_VARIABLES, PROGRAM, Deploy, Gpus
from jigsaw_triton.spec.yaml_writer import Block, dump_yaml

FILE = "compose.yaml"
EDGE_FOLDER = "/run/secrets"
"""Folder in which Compose mounts secrets."""

_APPS, _CONFIG = "/srv/jigsaw-triton", "/etc/jigsaw-triton/cluster.yaml"
_STATE, _CACHE, _RUN = "/var/lib/jigsaw-triton", "/var/cache/jigsaw-triton", "/run/user"

_COMMENTS = """\
# Runs a deployment on this machine: `docker compose up --detach --wait`, and `docker compose down` to end it.
# To update it from changed files, without losing a request:
#   docker compose exec jigsaw-triton jigsaw-triton {update}
# Stopping the container takes the deployment down: the gateway first, then the workers and their MIG instances.
"""

_PRIVILEGED = """\
# The container is privileged, because a process that changes MIG in a container needs CAP_SYS_ADMIN, and has to open
# the device files of instances that did not exist when the container started. Nothing else may change MIG on this
# machine.
"""


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a deployment.

    Attributes:
        image: Image with tritonserver and jigsaw-triton.
        graphs: Name of each graph -> absolute path of its folder on the host, and name of its file.
        cluster: cluster.yaml in the container.
        edge_paths: Name of each file of the edge in the container -> absolute path on the host.
        ports: Ports to publish.
        address: IPv4 address of the host to publish them on.
        driver: MIG driver.
        demand: Requests a second by graph.
        shm_mib: Size of /dev/shm in MiB.
    """

    image: str
    graphs: Mapping[str, tuple[str, str]]
    cluster: ClusterFile
    edge_paths: Mapping[str, str]
    ports: tuple[int, ...]
    address: str
    driver: Literal["nvml", "emulated"]
    demand: Mapping[str, float] = field(default_factory=dict)
    shm_mib: int = 1024


def compose_file(container: Container) -> str:
    """Returns the text of a compose.yaml."""
    deploy = Deploy(
        graphs=tuple(f"{_APPS}/{name}/{file}" for name, (_, file) in container.graphs.items()),
        gpus=Gpus(("--cluster", _CONFIG), container.driver),
        demand=container.demand,
    )
    mig = dict.fromkeys(MIG_VARIABLES, "all") if container.driver == "nvml" else {}
    service: dict[str, Any] = {
        "image": container.image,
        "command": [PROGRAM, *map(_escaped, deploy.arguments)],
        "entrypoint": [],
        # The servers of a controller that died have no parent: the init process reaps them.
        "init": True,
        "restart": "unless-stopped",
        "stop_grace_period": "3m",
        "environment": {"JIGSAW_STATE": _STATE, "JIGSAW_CACHE": _CACHE, "XDG_RUNTIME_DIR": _RUN} | mig,
        "volumes": [
            *(
                {"type": "bind", "source": _escaped(folder), "target": f"{_APPS}/{name}", "read_only": True}
                for name, (folder, _) in container.graphs.items()
            ),
            {"type": "volume", "source": "state", "target": _STATE},
            {"type": "volume", "source": "cache", "target": _CACHE},
        ],
        "tmpfs": [_RUN, "/tmp"],
        "read_only": True,
        "shm_size": f"{container.shm_mib}m",
        "ports": [
            {"target": port, "published": str(port), "host_ip": container.address, "protocol": "tcp"}
            for port in container.ports
        ],
        "configs": [{"source": "cluster", "target": _CONFIG}],
        "healthcheck": {
            "test": ["CMD", PROGRAM, "status"],
            "interval": "30s",
            "timeout": "20s",
            "start_period": "10m",
            "start_interval": "5s",
        },
        **_rights(container.driver),
    }
    document: dict[str, Any] = {
        "name": "jigsaw-triton",
        "services": {"jigsaw-triton": service},
        "volumes": {"state": {}, "cache": {}},
        "configs": {"cluster": {"content": Block(_escaped(container.cluster.text))}},
    }
    if container.edge_paths:
        service["secrets"] = list(container.edge_paths)
        document["secrets"] = {name: {"file": _escaped(path)} for name, path in container.edge_paths.items()}
    update = shlex.join(deploy.detached)
    privileged = _PRIVILEGED if container.driver == "nvml" else ""
    return _COMMENTS.format(update=update) + privileged + dump_yaml(document)


def _rights(driver: str) -> dict[str, Any]:
    if driver != "nvml":
        return {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
    return {
        "privileged": True,
        "deploy": {
            "resources": {"reservations": {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}}
        },
    }


def _escaped(text: str) -> str:
    """Returns a text in which Compose finds no variable."""
    return text.replace("$", "$$")
