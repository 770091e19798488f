"""Deployments whose running generation, machines and load control are operated."""

from collections.abc import Mapping
from typing import Any

from jigsaw_triton.api.controlled import ControlledDeployment
from jigsaw_triton.api.controller import WAIT_HINT
from jigsaw_triton.api.observed import raise_failure
from jigsaw_triton.api.reporting import LOG, Reporter
from jigsaw_triton.errors import JigsawError, StateError

_SETTLED = ("ready", "stopped")
"""States in which no change is in progress."""


class OperatedDeployment(ControlledDeployment):
    """A deployment that is operated without new graphs: rolled back, paused, and moved off machines."""

    def rollback(self, generation: int | None = None, *, wait: bool = True, reporter: Reporter = LOG) -> None:
        """Returns to the graphs and the plan of an earlier generation, under a new number.

        During a canary, a rollback without a generation ends the canary instead, and the running generation stays.

        Args:
            generation: Number of the generation; by default the last one that served before the running one.
            wait: True to return when the change has ended, False to return at once.
            reporter: Recipient of the events as notes.

        Raises:
            StateError: Nothing is deployed, another change is in progress, or there is no such generation.
        """
        if self.wait_status() is None:
            raise self.missing()
        after = self.last_event()
        ended_canary = self.client.rollback(generation)
        if not wait:
            return
        try:
            if ended_canary:
                # The error of an ended canary concerns the user who deployed it, so it is not raised here.
                self.follow(reporter.note, after, _settled)
            else:
                self.wait_settled(after, reporter)
        except BaseException as error:
            note_interruption(error, reporter)
            raise

    def cordon(self, node: str) -> None:
        """Withdraws a machine from new plans. Its workers stay until the next plan.

        Args:
            node: Name of the machine in the cluster.

        Raises:
            StateError: Nothing is deployed.
            InputError: The cluster has no such machine.
        """
        self.status()
        self.client.cordon(node, cordoned=True)

    def uncordon(self, node: str) -> None:
        """Returns a machine that was withdrawn, and has the controller plan with it; see `cordon`."""
        self.status()
        self.client.cordon(node, cordoned=False)

    def drain(self, node: str, *, reporter: Reporter = LOG) -> None:
        """Withdraws a machine from new plans and replaces its workers now, without a lost request.

        Args:
            node: Name of the machine in the cluster.
            reporter: Recipient of the events as notes.

        Raises:
            StateError: Nothing is deployed, or the other machines cannot carry the demand: the workers stay.
            InputError: The cluster has no such machine.
        """
        self.status()
        after = self.last_event()
        self.client.cordon(node, cordoned=True, drain=True)

        def ended(answer: Mapping[str, Any]) -> bool:
            return _settled(answer) and (bool(answer["error"]) or not self._workers_on(node))

        last = self.follow(reporter.note, after, ended)
        if last["state"] == "ready" and last["error"]:
            hint = f"free capacity on the others, or return the node: `jigsaw-triton node uncordon {node}`"
            raise StateError(f"node {node} still serves: {last['error']}", hint=hint)

    def _workers_on(self, node: str) -> list[str]:
        status = self.find_status()
        nodes = status["nodes"] if status is not None else []
        return [worker for one in nodes if one["name"] == node for worker in one["workers"]]

    def pause(self) -> None:
        """Makes the controller ignore the measured load.

        Raises:
            StateError: Nothing is deployed.
        """
        self._pause(True)

    def resume(self) -> None:
        """Makes the controller follow the measured load again.

        Raises:
            StateError: Nothing is deployed.
        """
        self._pause(False)

    def _pause(self, paused: bool) -> None:
        if self.wait_status() is None:
            raise self.missing()
        self.client.pause(paused)

    def wait_settled(self, after: int, reporter: Reporter = LOG) -> None:
        """Reports events until no change is in progress, after the user has asked for one.

        Args:
            after: Number of the last event that is known.
            reporter: Recipient of the events as notes.

        Raises:
            JigsawError: The change that the user asked for failed, whatever has changed since.
        """
        last = self.follow(reporter.note, after, _settled)
        # A controller of an earlier release has one error for all changes, as has one that has ended.
        asked = {name: last.get(f"asked_{name}", last[name]) for name in ("error", "error_code")}
        raise_failure(asked if last["state"] == "ready" else last)


def _settled(state: Mapping[str, Any]) -> bool:
    """Returns True if no change is in progress, in a state that `Deployment.follow` reads."""
    return state["state"] in _SETTLED and not state["queued"]


def note_interruption(error: BaseException, reporter: Reporter) -> None:
    """Reports that a change continues, if the user has interrupted the wait for it.

    Args:
        error: Error that ended the wait.
        reporter: Recipient of the note.
    """
    if not isinstance(error, JigsawError):
        reporter.note(f"interrupted; the controller goes on with the change: {WAIT_HINT}")
