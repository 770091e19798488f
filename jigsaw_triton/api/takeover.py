"""`takeover`: starts the controller on the machine of the standby gateway, whose agent has a copy of its state."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import astuple, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.reporting import LOG, Reporter
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation, Wanted
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import CONTENTS, CONTROLLER_EPOCH_FACT, STANDBY_GATEWAY_FACT
from jigsaw_triton.controller.persistence.state_copy import restore
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.gateway import Edge
from jigsaw_triton.servers.certificates.credentials import check_credentials, credentials_in

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
        StateError: The agent has no copy of a controller's state, nothing was served, a deployment is in the folder, or
            the journal cannot be written.
        InputError: Certificates or files of the application are missing on this machine.
    """
    paths = deployment_paths(state)
    if paths.journal.exists():
        hint = "choose a new folder with --state"
        raise StateError("there is a deployment in this folder already", where=str(paths.state), hint=hint)
    copy, epoch = _copy(deployment_paths(agent))

    def here(found: State) -> State:
        if found.running is None:
            raise StateError("nothing was served when the controller was lost", where=str(agent), hint="deploy again")
        changed = _local_state(found, certificates)
        _check_certificates(changed.wanted)
        if missing := sorted({path for path in _paths(changed) if not path.exists()}):
            named = ", ".join(map(str, missing[:_MOST_NAMED]))
            more = f" and {len(missing) - _MOST_NAMED} others" if len(missing) > _MOST_NAMED else ""
            hint = "copy the application to the same path on this machine, or mount the folder that has it"
            raise InputError(f"files of the application are missing here: {named}{more}", hint=hint)
        # A takeover that is refused leaves nothing.
        paths.create()
        return changed

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


def _local_state(state: State, certificates: Path | None) -> State:
    """Returns the state for this machine, with the requests of the user that are to be carried out."""

    def generation(one: Generation | None) -> Generation | None:
        return replace(one, wanted=_local(one.wanted, certificates)) if one is not None else None

    def request(one: ChangeRequest | None) -> ChangeRequest | None:
        if one is None:
            return None
        return replace(one, wanted=_local(one.wanted, certificates), restored=generation(one.restored))

    running = generation(state.running)
    return replace(
        state,
        wanted=_local(state.wanted, certificates) if state.wanted is not None else None,
        running=running,
        # Recovery recognises a change that can only go on by this identity.
        pending=running if state.pending is state.running else generation(state.pending),
        asked=request(state.asked),
        queued=request(state.queued),
    )


def _local(wanted: Wanted, certificates: Path | None) -> Wanted:
    """Returns the input of the deployment for this machine: the gateway takes the place of its standby."""
    cluster = wanted.cluster
    if cluster.standby_gateway is not None:
        address = cluster.standby_gateway.address
        cluster = replace(cluster, standby_gateway=None, gateway=replace(cluster.gateway, address=address))
    if certificates is not None and cluster.agents is not None:
        cluster = replace(cluster, agents=replace(cluster.agents, certificates=str(certificates.absolute())))
    return replace(wanted, cluster=cluster)


def _check_certificates(wanted: Wanted | None) -> None:
    """Checks that the controller's certificates are on this machine.

    Raises:
        InputError: They are not, or they are invalid.
    """
    agents = wanted.cluster.agents if wanted is not None else None
    if agents is None or not agents.certificates:
        return
    credentials = credentials_in(Path(agents.certificates))
    if not credentials.cert.exists():
        hint = "copy them to this machine, and name their folder with --certificates"
        raise InputError("the controller's certificates are missing here", where=agents.certificates, hint=hint)
    check_credentials(credentials)


def _paths(value: Any) -> Iterator[Path]:
    """Yields the paths of the files that a value refers to."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Edge):
        yield from map(Path, filter(None, (value.api_keys, *(astuple(value.tls) if value.tls is not None else ()))))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, tuple | list | frozenset):
        for one in value:
            yield from _paths(one)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _paths(getattr(value, field.name))
