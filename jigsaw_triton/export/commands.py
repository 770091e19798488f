"""Command lines that the exported files run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Arguments = tuple[str, ...]

PROGRAM = "jigsaw-triton"

MIG_VARIABLES = ("NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES")
"""Environment variables by which NVIDIA's container runtime lets a container change MIG, and see all instances."""

SUPERVISOR = ("-m", "jigsaw_triton.api.supervisor")
"""Arguments of Python, before the state folder, that run a controller in the foreground and restart it if it dies.

On SIGTERM the controller ends, and its servers go on. Whoever starts it then sends it a deployment with `deploy
--detach`.
"""


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs as options of the command line.

    Attributes:
        options: `--cluster FILE` or `--gpus 4xA100-80GB`.
        driver: MIG driver. It is always named, because without a name a machine whose driver does not answer would
            emulate its GPUs.
    """

    options: Arguments
    driver: Literal["nvml", "emulated"]

    @property
    def arguments(self) -> Arguments:
        """Options of the command line."""
        return (*self.options, "--driver", self.driver)


@dataclass(frozen=True, slots=True)
class Deploy:
    """A deployment as a command line.

    Attributes:
        graphs: Paths of the graphs where the command runs.
        gpus: GPUs to run on.
        demand: Requests a second by graph.
        address: Address for the gateway to listen on; None for that of the cluster.
    """

    graphs: Arguments
    gpus: Gpus
    demand: Mapping[str, float] = field(default_factory=dict)
    address: str | None = None

    @property
    def arguments(self) -> Arguments:
        """Arguments of jigsaw-triton for a deployment in the foreground, which its end takes down."""
        demand = ",".join(f"{name}={rps:.15g}" for name, rps in self.demand.items())
        return (
            "deploy",
            *self.graphs,
            *self.gpus.arguments,
            *(("--demand", demand) if demand else ()),
            *(("--address", self.address) if self.address is not None else ()),
            # An exported command runs without a terminal, so it cannot ask for confirmation.
            "--yes",
        )

    @property
    def detached(self) -> Arguments:
        """Arguments of jigsaw-triton that start or update the deployment, and end once it serves."""
        return (*self.arguments, "--detach")


@dataclass(frozen=True, slots=True)
class Front:
    """A front of cells as a command line.

    Attributes:
        file: Path of front.yaml.
        state: State folder of the front.
    """

    file: str
    state: str

    @property
    def arguments(self) -> Arguments:
        """Arguments of jigsaw-triton that run the front in the foreground."""
        return ("front", self.file, "--state", self.state)


@dataclass(frozen=True, slots=True)
class Agent:
    """A node's agent as a command line.

    Attributes:
        name: Name of the node in cluster.yaml.
        listen: Address and port to listen on.
        certificates: Folder with the node's certificate, its key and the authorities.
        state: State folder of the agent.
    """

    name: str
    listen: str
    certificates: str
    state: str

    @property
    def arguments(self) -> Arguments:
        """Arguments of jigsaw-triton that run the agent in the foreground."""
        return (
            "agent",
            *("--name", self.name),
            *("--listen", self.listen),
            *("--certificates", self.certificates),
            *("--state", self.state),
        )
