"""Graphs that join or leave a running deployment. The others stay as deployed; their files are not read again."""

from collections.abc import Collection
from contextlib import closing
from dataclasses import replace

from jigsaw_triton.api import controller
from jigsaw_triton.api.files import shown_path
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.persistence.checkpoint import load
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.errors import Diagnostic, InputError, SpecError, StateError


def deployed(paths: Paths) -> Generation:
    """Returns the generation that serves, as the controller keeps it for the next controller.

    Raises:
        StateError: None serves yet, or a release with another format of the state keeps it.
    """
    with closing(JournalReader(paths.journal)) as journal:
        state = load(journal)
    return serving(state.running if state is not None else None)


def serving(running: Generation | None) -> Generation:
    """Returns the generation that serves.

    Raises:
        StateError: None serves yet.
    """
    if running is None:
        raise StateError("no graph is served yet, so that none can join or leave", hint=controller.WAIT_HINT)
    return running


def without(wanted: Wanted, leaving: Collection[str]) -> Wanted:
    """Returns the input of a deployment without some of its graphs.

    Args:
        wanted: Input of the deployment.
        leaving: Names of the graphs that leave.

    Raises:
        InputError: A graph is not deployed, or none would remain.
    """
    for name in leaving:
        if name not in wanted.graphs:
            raise unknown(name, wanted.graphs)
    staying = [name for name in wanted.graphs if name not in leaving]
    if not staying:
        raise InputError("no graph would remain", hint="take the whole deployment down: `jigsaw-triton down`")
    return replace(
        wanted,
        graphs={name: wanted.graphs[name] for name in staying},
        demand_rps={name: wanted.demand_rps[name] for name in staying},
        profiles={name: wanted.profiles[name] for name in staying if name in wanted.profiles},
    )


def unknown(name: str, deployed: Collection[str]) -> InputError:
    """Returns the error that no graph of a name is deployed.

    Args:
        name: Name that the user gave.
        deployed: Names of the deployed graphs.
    """
    hint = f"deployed graphs: {', '.join(sorted(deployed))}"
    return InputError("no graph of this name is deployed", where=name, hint=hint)


def joined(kept: Wanted, new: Wanted) -> Wanted:
    """Returns the input of a deployment that graphs have joined, with the cluster of the new graphs.

    Args:
        kept: Input of the deployment, with the graphs that stay.
        new: Graphs that join, with their demands and profiles.

    Raises:
        SpecError: A graph of the same name is deployed.
    """
    hint = "to change it, deploy all graphs together without --add; or give this one another name"
    mistakes = [
        Diagnostic(shown_path(graph.folder), 0, f"a graph named '{name}' is deployed already", hint)
        for name, graph in new.graphs.items()
        if name in kept.graphs
    ]
    if mistakes:
        raise SpecError(mistakes)
    return replace(
        kept,
        cluster=new.cluster,
        graphs={**kept.graphs, **new.graphs},
        demand_rps={**kept.demand_rps, **new.demand_rps},
        profiles={**kept.profiles, **new.profiles},
    )


def reason(before: Wanted, after: Wanted) -> str:
    """Returns the reason of the change, as the event log and the history show it.

    Args:
        before: Input of the deployment before the change.
        after: Input after the change.
    """
    added, removed = after.graphs.keys() - before.graphs.keys(), before.graphs.keys() - after.graphs.keys()
    parts = [f"{', '.join(sorted(names))} {verb}" for names, verb in ((added, "added"), (removed, "removed")) if names]
    return f"{' and '.join(parts)} by the user"


def provided_rps(running: Generation, wanted: Wanted) -> dict[str, float]:
    """Returns the requests a second that the running plan provides for, by graph that stays.

    Args:
        running: Generation that serves.
        wanted: Input of the next generation.
    """
    return {name: graph.demand_rps for name, graph in running.plan.graphs.items() if name in wanted.graphs}
