"""Observation of a deployment: its status, its plan, its events and its history, without a way to change it."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jigsaw_triton.api import controller
from jigsaw_triton.console.client import ControllerClient, ControllerGoneError, ControllerHungError, hung
from jigsaw_triton.controller.persistence.lock import is_locked, wait_unlocked
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import LEFT, REPLACED, STOPPED, JournalEvent, Revision
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.plan_reader import plan_from_json

if TYPE_CHECKING:
    # This takes half a second to import, which `status` and `events` would wait for.
    from jigsaw_triton.api.files import PathLike

_POLL_S = 0.2
"""Seconds between two looks at a deployment whose change is waited for."""

_RESTART_S = 40.0
"""Seconds to wait for a controller that died; its supervisor restarts it after at most 30 s."""

_END_S = 60.0
"""Seconds that the processes of a controller may take to end once it has said that it does."""

_CLOSING_EVENT_S = 5.0
"""Seconds to wait for the event that says why a controller has ended, if servers are running."""

_EVENT_WAIT_S = 5.0


class ObservedDeployment:
    """A deployment, running or not, that is only looked at.

    Args:
        state: Folder of the deployment; by default `jigsaw-triton` in `$XDG_STATE_HOME` or `~/.local/state`.

    Attributes:
        paths: Paths of the deployment's files.
    """

    def __init__(self, state: "PathLike | None" = None) -> None:
        self.paths: Paths = deployment_paths(Path(state) if state is not None else None)

    @property
    def client(self) -> ControllerClient:
        """Client of the controller."""
        return ControllerClient(self.paths.control_socket)

    @property
    def running(self) -> bool:
        """True if a controller answers."""
        try:
            return self.find_status() is not None
        except ControllerHungError:
            return False

    def status(self) -> dict[str, Any]:
        """Returns the state of the gateway, the graphs and the workers, as `jigsaw-triton status -o json` prints it.

        Raises:
            StateError: Nothing is deployed, or the controller does not answer.
        """
        status = self.wait_status()
        if status is None:
            raise self.missing()
        return status

    def find_status(self) -> dict[str, Any] | None:
        """Returns the same as `status`, or None if nothing is deployed."""
        with suppress(ControllerGoneError):
            status = self.client.status()
            if status["state"] != "stopped":
                return status
            self.wait_ended()
        return None

    def wait_status(self) -> dict[str, Any] | None:
        """Returns the same as `find_status`, but waits for a controller that its supervisor is restarting."""
        deadline = time.monotonic() + _RESTART_S
        while (status := self.find_status()) is None:
            if not is_locked(self.paths.supervisor_lock) or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        return status

    def missing(self) -> StateError:
        """Returns the error that nothing is deployed, or that a controller is missing or was replaced."""
        if (replaced := controller.replacement(self.paths)) is not None:
            return replaced
        if servers := controller.unattended_servers(self.paths):
            return StateError(
                f"no controller is running here, but {len(servers)} servers are: {', '.join(servers)}",
                where=str(self.paths.state),
                hint="`jigsaw-triton deploy` adopts them, `jigsaw-triton down` ends them",
            )
        return StateError(
            "nothing is deployed here",
            where=str(self.paths.state),
            hint="deploy with `jigsaw-triton deploy GRAPH`, or name another deployment with --state",
        )

    def plan(self) -> Plan:
        """Returns the plan that is served.

        Raises:
            StateError: None is.
        """
        plan = running_plan(self.status())
        if plan is None:
            raise StateError("no plan is served here yet", where=str(self.paths.state), hint=controller.WAIT_HINT)
        return plan

    def events(self, *, after: int = 0, limit: int = 1000) -> tuple[JournalEvent, ...]:
        """Returns events from the journal, which outlives the controller.

        Args:
            after: Number of the last event that is known.
            limit: Number of events to return, the latest.
        """
        if not self.paths.journal.exists():
            return ()
        with closing(JournalReader(self.paths.journal)) as journal:
            return journal.events(after, limit)

    def last_event(self) -> int:
        """Returns the number of the last event; 0 if there is none."""
        events = self.events(limit=1)
        return events[-1].id if events else 0

    def wait(self, state: Literal["ready", "stopped"] = "ready", *, timeout_s: float = 300.0) -> None:
        """Waits until the deployment reaches a state.

        Args:
            state: `ready`: all graphs are served, all servers are ready and no change is in progress. `stopped`:
                nothing is deployed.
            timeout_s: Seconds to wait.

        Raises:
            StateError: The deployment did not reach the state in time, or cannot reach it any more.
        """
        deadline, seen = time.monotonic() + timeout_s, False
        while True:
            try:
                status = self.wait_status() if seen else self.find_status()
            except ControllerHungError:
                if time.monotonic() > deadline:
                    raise
                seen = True
                time.sleep(_POLL_S)
                continue
            left = status is None and bool(controller.unattended_servers(self.paths))
            current = status["state"] if status is not None else "left" if left else "stopped"
            if current == state and (status is None or _all_ready(status)):
                return
            if seen and current == "stopped":
                raise StateError(
                    "the deployment has ended", where=str(self.paths.state), hint="see `jigsaw-triton events`"
                )
            if (seen and left and state == "ready") or time.monotonic() > deadline:
                if status is None:
                    raise self.missing()
                found = "; ".join([current, *status["reasons"]])
                hint = "see `jigsaw-triton events`, or wait longer"
                raise StateError(f"not {state} within {timeout_s:g} s: {found}", where=str(self.paths.state), hint=hint)
            seen = seen or status is not None
            time.sleep(_POLL_S)

    def history(self, *, limit: int = 100) -> tuple[Revision, ...]:
        """Returns the generations of the deployment, the latest last. The history outlives the controller.

        Args:
            limit: Number of generations to return, the latest.
        """
        if not self.paths.journal.exists():
            return ()
        with closing(JournalReader(self.paths.journal)) as journal:
            return journal.generations(limit)

    def wait_ended(self) -> None:
        """Waits until the processes of a controller that has stopped, and of its supervisor, are gone.

        Raises:
            ControllerHungError: The processes do not end.
        """
        for lock in (self.paths.lock, self.paths.supervisor_lock):
            if not wait_unlocked(lock, _END_S):
                raise hung(lock)

    def follow(
        self,
        report: Callable[[str], None],
        after: int,
        until: Callable[[dict[str, Any]], bool],
        *,
        retry: bool = True,
    ) -> dict[str, Any]:
        """Reports events as they come, until the controller is in the wanted state.

        Args:
            report: Function that receives a line for each event.
            after: Number of the last event that is known.
            until: Function that returns True for the wanted state; see `console.server` for its entries.
            retry: True to ask again while the controller does not answer, and to report that.

        Returns:
            The state. If the controller has ended, its entry `state` is `stopped`, or `gone` if servers may be left.

        Raises:
            ControllerHungError: The controller does not answer, and `retry` is False.
        """
        began, answers = after, True
        while True:
            try:
                answer = self._events_after(after)
            except ControllerHungError as error:
                if not retry:
                    raise
                if answers:
                    report(event_line(datetime.now(UTC).isoformat(), "error", error.message))
                answers = False
                time.sleep(_POLL_S)
                continue
            answers = True
            if answer is None:
                return self._last_state(report, began, after)
            for event in answer["events"]:
                report(event_line(event["at"], event["kind"], event["text"]))
                after = event["id"]
            if until(answer):
                if answer["state"] == "stopped":
                    self.wait_ended()
                return answer

    def _events_after(self, after: int) -> dict[str, Any] | None:
        """Returns the controller's state and its next events; None if the controller has ended for good."""
        while True:
            try:
                return self.client.events(after, wait_s=_EVENT_WAIT_S)
            except ControllerGoneError:
                if self.wait_status() is None:
                    return None

    def _last_state(self, report: Callable[[str], None], began: int, reported: int) -> dict[str, Any]:
        """Reports the last events of a controller that has ended; the error is the last one since `began`."""
        self.wait_ended()
        closing = self._closing_event()
        error, code = "", 0
        for event in self.events(after=began):
            if event.id > reported:
                report(event_line(event.at, event.kind, event.text))
            if event.code:
                error, code = event.text, event.code
        if closing is None and not error:
            error, code = "the controller ended unexpectedly; see `jigsaw-triton logs controller`", 1
        elif closing is not None and closing.kind in (LEFT, REPLACED):
            error, code = closing.text, StateError.exit_code
        state = "stopped" if closing is not None and closing.kind == STOPPED else "gone"
        return {"state": state, "queued": False, "error": error, "error_code": code}

    def _closing_event(self) -> JournalEvent | None:
        """Returns the event that says why the controller has ended; None if it died.

        A command that kills a controller writes the event once it has ended the servers, and holds the lock until then.
        """
        give_up_at = time.monotonic() + _CLOSING_EVENT_S
        while True:
            ending = is_locked(self.paths.lock) or controller.unattended_servers(self.paths)
            for event in self.events(limit=1):
                if event.kind in (STOPPED, LEFT, REPLACED):
                    return event
            if not ending or time.monotonic() > give_up_at:
                return None
            time.sleep(_POLL_S)


def _all_ready(status: Mapping[str, Any]) -> bool:
    """Returns True if all graphs are served and all servers are ready."""
    return status["serving"] and all(worker["state"] == "ready" for worker in status["workers"])


def running_plan(status: Mapping[str, Any] | None) -> Plan | None:
    """Returns the plan that is served, from a status; None if no plan is served."""
    if status is None or status["plan"] is None:
        return None
    return plan_from_json(status["plan"], where="the running plan")


def event_line(at: str, kind: str, text: str) -> str:
    """Returns an event as a line: time of day (UTC), kind and text."""
    return f"{at[11:19]} {kind:10} {text}"


def raise_failure(state: Mapping[str, Any]) -> None:
    """Raises the error of the last change, if it failed.

    Args:
        state: Result of `Deployment.follow`.

    Raises:
        JigsawError: The last change failed.
    """
    if state["error"]:
        failure = JigsawError(state["error"], hint="see the events before it: `jigsaw-triton events`")
        failure.exit_code = state["error_code"] or 1
        raise failure
