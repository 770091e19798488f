"""`takeover`: starts the controller on the machine of the standby gateway, whose agent has a copy of its state."""

import json
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.reporting import LOG, Reporter
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation, Wanted
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.model_files import ModelFiles, names
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import CONTROLLER_EPOCH_FACT, STANDBY_GATEWAY_FACT
from jigsaw_triton.controller.persistence.state_copy import restore
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.servers.certificates.credentials import check_credentials, credentials_in


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
        InputError: Certificates, files of the edge, or model files are missing on this machine, or there is no space.
    """
    paths = deployment_paths(state)
    if paths.journal.exists():
        hint = "choose a new folder with --state"
        raise StateError("there is a deployment in this folder already", where=str(paths.state), hint=hint)
    copy, epoch = _copy(deployment_paths(agent))
    arrived = deployment_paths(agent).contents

    def here(found: State) -> State:
        if found.running is None:
            raise StateError("nothing was served when the controller was lost", where=str(agent), hint="deploy again")
        changed = _local_state(found, certificates)
        _check_certificates(changed.wanted)
        _check_edge(changed.wanted)
        files = _model_files(found.running.wanted, arrived)
        requests = [request for request in (changed.asked, changed.queued) if request is not None]
        asked = [arrived / name for request in requests for name in names(request.wanted.graphs)]
        if not all(path.is_file() for path in asked):
            reporter.warn("the last deploy is not repeated, since its model files have not arrived here; deploy again")
            changed, asked = replace(changed, asked=None, queued=None), []
        # A takeover that is refused leaves nothing.
        paths.create()
        ModelFiles(paths.contents).add({*files, *asked})
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
    file = agent.contents / content.get("state", "")
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
        InputError: The certificates are missing or invalid.
    """
    agents = wanted.cluster.agents if wanted is not None else None
    if agents is None or not agents.certificates:
        return
    credentials = credentials_in(Path(agents.certificates))
    if not credentials.cert.exists():
        hint = "copy them to this machine, and name their folder with --certificates"
        raise InputError("the controller's certificates are missing here", where=agents.certificates, hint=hint)
    check_credentials(credentials)


def _check_edge(wanted: Wanted | None) -> None:
    """Checks that the files of the edge are on this machine.

    Raises:
        InputError: A file is missing.
    """
    edge = wanted.cluster.edge if wanted is not None else None
    if edge is None:
        return
    named = (edge.api_keys, *(astuple(edge.tls) if edge.tls is not None else ()))
    if missing := [name for name in named if name is not None and not Path(name).exists()]:
        hint = "copy them to the same paths on this machine"
        raise InputError(f"files of the edge are missing here: {', '.join(missing)}", hint=hint)


def _model_files(wanted: Wanted, arrived: Path) -> list[Path]:
    """Returns the files of the served models that an agent has got.

    Args:
        wanted: Input of the generation that serves.
        arrived: Folder of the agent's files.

    Raises:
        InputError: Some have not arrived.
    """
    files = [arrived / name for name in sorted(names(wanted.graphs))]
    if lacking := [path for path in files if not path.is_file()]:
        hint = "copy them from the folder `contents` in the state folder of the lost controller, or deploy again"
        raise InputError(f"{len(lacking)} of {len(files)} model files have not arrived", where=str(arrived), hint=hint)
    return files
