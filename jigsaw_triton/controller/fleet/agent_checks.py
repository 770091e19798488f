"""Checks that the agents of a cluster fit to their controller and to each other, before anything starts."""

from collections.abc import Iterator, Mapping

from jigsaw_triton import __version__
from jigsaw_triton.controller.fleet.wire import WIRE_VERSION, Json
from jigsaw_triton.errors import InputError

CLOCKS_S = 60.0
"""Seconds by which the clocks of two machines may differ. Certificates are valid from one moment to another, and logs
are compared by their times."""


def check_agents(described: Mapping[str, Json], now_s: float) -> tuple[str, ...]:
    """Checks what agents say of themselves.

    Args:
        described: Name of each node -> what its agent has just said.
        now_s: Time of this machine's clock in seconds since 1970.

    Returns:
        Notices about differences that do no harm.

    Raises:
        InputError: An agent does not fit.
    """
    for name, one in described.items():
        for message, hint in _mistakes(name, one, now_s):
            raise InputError(message, where=f"node {name}", hint=hint)
    return tuple(
        f"node {name} has jigsaw-triton {one['release']}, the controller {__version__}"
        for name, one in described.items()
        if one["release"] != __version__
    )


def check_servers(described: Mapping[str, Json]) -> None:
    """Checks that the workers of all nodes run the same tritonserver.

    Args:
        described: Name of each node -> what its agent says, once it knows the image of the deployment.

    Raises:
        InputError: The tritonservers differ.
    """
    if len({one["tritonserver"] for one in described.values()}) > 1:
        found = ", ".join(f"{name} has {one['tritonserver']}" for name, one in sorted(described.items()))
        hint = "install the same one on all nodes, or give all the same image with `server` in cluster.yaml"
        raise InputError(f"the nodes have different tritonservers: {found}", hint=hint)


def _mistakes(name: str, one: Json, now_s: float) -> Iterator[tuple[str, str]]:
    """Yields messages and hints about one agent."""
    if one["name"] != name:
        yield f"the agent there calls itself {one['name']!r}", "correct `agent` in cluster.yaml, or --name there"
    if one["wire"] != WIRE_VERSION:
        message = f"it has jigsaw-triton {one['release']}, which does not work together with {__version__}"
        yield message, f"install jigsaw-triton {__version__} there"
    difference_s = one["utc_s"] - now_s
    if abs(difference_s) > CLOCKS_S:
        message = f"its clock differs from this machine's by {difference_s:.0f} s"
        yield message, "let all machines set their clocks by NTP"
