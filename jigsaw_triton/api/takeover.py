"""`takeover`: starts the controller on the machine of the standby gateway, whose agent has a copy of its state."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.reporting import LOG, Reporter
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import CONTENTS, CONTROLLER_EPOCH_FACT, STANDBY_GATEWAY_FACT
from jigsaw_triton.controller.persistence.state_copy import restore
from jigsaw_triton.errors import InputError, StateError

_MOST_NAMED = 5


def take_over(
    agent: Path, *, state: Path | None = None, certificates: Path | None = None, reporter: Reporter = LOG
) -> Deployment:
    """Starts a controller on this machine, in place of one that is lost, and returns its deployment.

    Its gateway takes the ports of the standby gateway, which ends before. Requests are refused for the seconds between.

    Args:
        agent: State folder of the agent of this machine, which keeps the standby gateway.
        state: Folder of the deployment, which must be new; see `Deployment`.
        certificates: Folder with the controller's certificates on this machine; that of the lost controller by default.
        reporter: Receives a note.

    Raises:
        StateError: The agent has no copy of a controller's state, or a deployment is in the folder.
        InputError: Files of the application are missing on this machine.
    """
    paths = deployment_paths(state)
    if paths.journal.exists():
        hint = "choose a new folder with --state"
        raise StateError("there is a deployment in this folder already", where=str(paths.state), hint=hint)
    copy, epoch = _copy(deployment_paths(agent))

    def here(found: State) -> State:
        if missing := sorted({path for path in _paths(found) if not path.exists()}):
            named = ", ".join(map(str, missing[:_MOST_NAMED]))
            more = f" and {len(missing) - _MOST_NAMED} others" if len(missing) > _MOST_NAMED else ""
            hint = "copy the application to the same path on this machine, or mount the folder that has it"
            raise InputError(f"files of the application are missing here: {named}{more}", hint=hint)
        running = found.running
        return replace(
            found,
            wanted=_local(found.wanted, certificates) if found.wanted is not None else None,
            running=replace(running, wanted=_local(running.wanted, certificates)) if running is not None else None,
        )

    paths.create()
    restore(copy, paths.journal, epoch, here)
    deployment = Deployment(state)
    deployment.adopt(reporter=reporter)
    return deployment


def _copy(agent: Paths) -> tuple[bytes, str]:
    """Returns the copy of the controller's state that an agent has, and the highest epoch that it knows."""
    if not agent.journal.exists():
        raise StateError("there is no agent in this folder", where=str(agent.state), hint="see its --state")
    with closing(JournalReader(agent.journal)) as journal:
        content = json.loads(journal.fact(STANDBY_GATEWAY_FACT) or "{}")
        epoch = journal.fact(CONTROLLER_EPOCH_FACT)
    file = agent.state / CONTENTS / content.get("state", "")
    if not file.is_file():
        hint = "only the agent of the node that `gateway: {standby: NODE}` in cluster.yaml names has one"
        raise StateError("this agent has no copy of a controller's state", where=str(agent.state), hint=hint)
    return file.read_bytes(), epoch


def _local(wanted: Wanted, certificates: Path | None) -> Wanted:
    """Returns the input of the deployment for this machine: the gateway takes the place of its standby."""
    cluster = replace(wanted.cluster, standby_gateway=None)
    if cluster.standby_gateway is None and wanted.cluster.standby_gateway is not None:
        cluster = replace(cluster, gateway=replace(cluster.gateway, address=wanted.cluster.standby_gateway.address))
    if certificates is not None and cluster.agents is not None:
        cluster = replace(cluster, agents=replace(cluster.agents, certificates=str(certificates.absolute())))
    return replace(wanted, cluster=cluster)


def _paths(value: Any) -> Iterator[Path]:
    """Yields the paths of the files that a value refers to."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, tuple | list | frozenset):
        for one in value:
            yield from _paths(one)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _paths(getattr(value, field.name))
