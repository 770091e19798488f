"""Settings that cannot change while a deployment is running."""

from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.gpus.model import Cluster

_DOWN = "take it down first: `jigsaw-triton down`"


def check_ports(before: GatewayPorts, after: GatewayPorts) -> None:
    """Refuses a change of the gateway's address or ports.

    Raises:
        InputError: The address or the ports differ.
    """
    if before != after:
        raise InputError("the gateway's address and ports cannot change while it serves", hint=f"keep them, or {_DOWN}")


def check_ground(before: Cluster, after: Cluster) -> None:
    """Refuses a change of the engine, the MIG driver or an image, and an edge that is added or removed.

    Raises:
        StateError: One of these settings differs.
    """
    if before.driver != after.driver:
        raise StateError(
            f"the MIG driver cannot change from {before.driver} to {after.driver} while a deployment runs", hint=_DOWN
        )
    engines = [cluster.agents.engine if cluster.agents is not None else "local" for cluster in (before, after)]
    if engines[0] != engines[1]:
        raise StateError(
            f"the engine cannot change from `{engines[0]}` to `{engines[1]}` while a deployment runs", hint=_DOWN
        )
    if (
        before.agents is not None
        and after.agents is not None
        and before.agents.certificates != after.agents.certificates
    ):
        replace = f"replace the files in {before.agents.certificates}, which are then used within seconds, or "
        raise StateError(
            "the folder of the certificates cannot change while a deployment runs",
            where=after.agents.certificates,
            hint=f"{replace if before.agents.certificates else ''}{_DOWN}",
        )
    if before.image != after.image:
        names = [str(c.image) if c.image is not None else "this machine's tritonserver" for c in (before, after)]
        raise StateError(
            f"the workers' image cannot change from {names[0]} to {names[1]} while a deployment runs", hint=_DOWN
        )
    if (before.edge is None) != (after.edge is None):
        change = "removed" if after.edge is None else "added"
        raise StateError(f"the edge cannot be {change} while the gateway serves", hint=_DOWN)
    if before.gateway_image != after.gateway_image:
        raise StateError("the gateway's image cannot change while it serves", hint=_DOWN)
