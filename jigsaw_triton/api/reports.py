"""Reports as HTML files: about a running deployment, and about results of `simulate` and `evaluate`."""

import json
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jigsaw_triton.api.controller import WAIT_HINT
from jigsaw_triton.api.drift import gateway_metrics
from jigsaw_triton.api.observed import ObservedDeployment
from jigsaw_triton.api.profiles import figures_of_graphs
from jigsaw_triton.api.setup_document import read_setup
from jigsaw_triton.console.plan_changes import READY, plan_changes
from jigsaw_triton.console.reports.deployment import MOST_EVENTS, DeploymentFigures, deployment_page
from jigsaw_triton.console.reports.load import Load
from jigsaw_triton.console.reports.results import result_page
from jigsaw_triton.controller.core.request_counts import read_request_counts
from jigsaw_triton.controller.persistence.checkpoint import load
from jigsaw_triton.controller.persistence.load_history import KEPT_S, read_history
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.servers.metrics import Sample, parse_metrics


def deployment_report(deployment: ObservedDeployment) -> str:
    """Returns the HTML file about a running deployment.

    Raises:
        StateError: Nothing is deployed, or no plan is served yet.
    """
    status, where = deployment.status(), str(deployment.paths.state)
    at = datetime.now(UTC)
    with closing(JournalReader(deployment.paths.journal)) as journal:
        state = load(journal)
        changes = plan_changes(journal.generations(), journal.events(kinds=(READY,)))
    if state is None or state.running is None:
        raise StateError("no plan is served here yet", where=where, hint=WAIT_HINT)
    samples = read_history(deployment.paths.load, at.timestamp() - KEPT_S)
    counters: tuple[Sample, ...] = ()
    unread = ""
    try:
        counters = parse_metrics(gateway_metrics(status["gateway"], where), ("jigsaw_slo_", "jigsaw_generation_"))
    except StateError as error:
        unread = error.message
    wanted = state.running.wanted
    return deployment_page(
        DeploymentFigures(
            at=at,
            status=status,
            generation=state.running,
            outcomes=_outcomes(counters),
            requests=read_request_counts(counters),
            unread=unread,
            load=Load(samples, tuple(change for change in changes if samples and change.t >= samples[0]["t"])),
            history=deployment.history(),
            events=deployment.events(limit=MOST_EVENTS),
            profiles=tuple(figures_of_graphs(wanted.graphs, wanted.profiles)),
        )
    )


def result_report(path: Path) -> str:
    """Returns the HTML file about a result that a command has printed with `-o json`.

    Raises:
        InputError: The file cannot be read, or it is no such result.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "check the path and its permissions"
        raise InputError(f"the file cannot be read ({error.strerror})", where=str(path), hint=hint) from error
    except (ValueError, RecursionError) as error:
        hint = "give the output of a command with -o json"
        raise InputError(f"the file is not JSON ({error})", where=str(path), hint=hint) from error
    return result_page(document, str(path), partial(read_setup, where=str(path)))


def _outcomes(samples: tuple[Sample, ...]) -> dict[str, dict[str, float]]:
    """Returns the requests by graph and outcome."""
    found: dict[str, dict[str, float]] = {}
    for sample in samples:
        if sample.name == "jigsaw_slo_total":
            found.setdefault(sample.labels["graph"], {})[sample.labels["outcome"]] = sample.value
    return found
