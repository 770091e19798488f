"""Settings that cannot change while a deployment is running."""

from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.model import Cluster, GatewayPorts

_DOWN = "take it down first: `jigsaw-triton down`"


def check_ports(before: GatewayPorts, after: GatewayPorts) -> None:
    """Refuses another address or other ports for a gateway that serves.

    Raises:
        InputError: They differ.
    """
    if before != after:
        raise InputError("the gateway's address and ports cannot change while it serves", hint=f"keep them, or {_DOWN}")


def check_ground(before: Cluster, after: Cluster) -> None:
    """Refuses another MIG driver, another image, and an edge that comes or goes, under what runs.

    Raises:
        StateError: They differ.
    """
    if before.driver != after.driver:
        raise StateError(f"MIG is {before.driver} here and cannot become {after.driver} under what runs", hint=_DOWN)
    if before.image != after.image:
        names = [str(c.image) if c.image is not None else "this machine's tritonserver" for c in (before, after)]
        raise StateError(f"workers run from {names[0]} and cannot go over to {names[1]} under what runs", hint=_DOWN)
    if (before.edge is None) != (after.edge is None):
        change = "go" if after.edge is None else "come"
        raise StateError(f"the edge cannot {change} while the gateway serves", hint=_DOWN)
    if before.gateway_image != after.gateway_image:
        raise StateError("the gateway's image cannot change while it serves", hint=_DOWN)
