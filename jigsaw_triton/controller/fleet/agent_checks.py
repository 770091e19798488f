"""Checks that the agents of a cluster fit to their controller and to each other, before anything starts."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from jigsaw_triton import __version__
from jigsaw_triton.controller.fleet.wire import WIRE_VERSION, Json
from jigsaw_triton.errors import InputError

CLOCKS_S = 60.0
"""Seconds by which the clocks of two machines may differ. Certificates are valid from one moment to another, and logs
are compared by their times."""

NONE: Mapping[str, Json] = MappingProxyType({})


def check_agents(described: Mapping[str, Json], now_s: float, known: Mapping[str, Json] = NONE) -> tuple[str, ...]:
    """Checks what agents say of their nodes.

    Args:
        described: Name of each node -> what its agent has just said.
        now_s: Time of this machine's clock in seconds since 1970.
        known: Name of each node that was checked before -> what its agent said then.

    Returns:
        Notices about differences that do no harm.

    Raises:
        InputError: An agent does not fit.
    """
    for name, one in described.items():
        for message, hint in _mistakes(name, one, now_s):
            raise InputError(message, where=f"node {name}", hint=hint)
    together = {**known, **described}
    if len({one["tritonserver"] for one in together.values()}) > 1:
        found = ", ".join(f"{name} has {one['tritonserver']}" for name, one in sorted(together.items()))
        raise InputError(f"the nodes have different tritonservers: {found}", hint="install the same one on all nodes")
    return tuple(
        f"node {name} has jigsaw-triton {one['release']}, the controller {__version__}"
        for name, one in described.items()
        if one["release"] != __version__
    )


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
