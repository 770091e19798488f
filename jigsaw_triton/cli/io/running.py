"""The running controller as commands see it: found, started, asked, followed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.console.client import ControllerClient, ControllerGoneError
from jigsaw_triton.controller.journal import Journal, JournalEvent
from jigsaw_triton.controller.lock import AlreadyRunsError, is_locked, wait_unlocked
from jigsaw_triton.controller.orphans import DRIVER_FACT
from jigsaw_triton.controller.ownership import foreign_instances, ours
from jigsaw_triton.controller.paths import Paths, deployment_paths
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.gpus.cluster import with_foreign
from jigsaw_triton.gpus.driver import open_driver
from jigsaw_triton.gpus.model import Cluster, MigInstance
from jigsaw_triton.planner.domain.plan import Plan, plan_from_json
from jigsaw_triton.servers.logfile import tail
from jigsaw_triton.servers.os_process import start_time

SETTLED = ("ready", "stopped")
"""States in which nothing is under way."""

_START_S = 60.0
_COMES_BACK_S = 40.0
"""Seconds to wait for a controller that died: its supervisor starts it again after at most 30."""

_POLL_S = 0.05
_EVENT_WAIT_S = 5.0
_LOG_LINES = 15
_WAIT_HINT = "wait for it: `jigsaw-triton status --wait ready`"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment, running or not.

    Attributes:
        paths: Where it keeps its files.
    """

    paths: Paths

    @classmethod
    def at(cls, state: Path | None) -> "Deployment":
        """The deployment of `--state`."""
        return cls(deployment_paths(state))

    @property
    def client(self) -> ControllerClient:
        """To speak to its controller."""
        return ControllerClient(self.paths.control_socket)

    def status(self) -> dict[str, Any] | None:
        """Of a running controller; None where there is none."""
        with suppress(ControllerGoneError):
            status = self.client.status()
            if status["state"] != "stopped":
                return status
            self.wait_ended()
        return None

    def living_status(self) -> dict[str, Any] | None:
        """Status of the controller, which its supervisor may just be starting again; None where there is none."""
        give_up_at = time.monotonic() + _COMES_BACK_S
        while (status := self.status()) is None:
            if not is_locked(self.paths.supervisor_lock) or time.monotonic() > give_up_at:
                break
            time.sleep(_POLL_S)
        return status

    def wait_ended(self) -> None:
        """Waits for the last breath of a controller that has stopped."""
        wait_unlocked(self.paths.lock)

    def required_status(self) -> dict[str, Any]:
        """Of a running controller.

        Raises:
            StateError: There is none.
        """
        status = self.living_status()
        if status is None:
            raise self.absent()
        return status

    def plan(self) -> Plan:
        """The plan that is served.

        Raises:
            StateError: None is.
        """
        plan = running_plan(self.required_status())
        if plan is None:
            raise StateError(
                "nothing is served here yet",
                where=str(self.paths.state),
                hint=_WAIT_HINT,
            )
        return plan

    def absent(self) -> StateError:
        """The error that nothing is deployed here, or that servers run without a controller."""
        if servers := self.serving():
            return StateError(
                f"no controller runs here, but {len(servers)} servers of the deployment do: {', '.join(servers)}",
                where=str(self.paths.state),
                hint="`jigsaw-triton deploy` goes on with them, `jigsaw-triton down` ends them",
            )
        return StateError(
            "nothing is deployed here",
            where=str(self.paths.state),
            hint="deploy with `jigsaw-triton deploy GRAPH`, or name another deployment with --state",
        )

    def serving(self) -> list[str]:
        """Names of the servers in the journal that run."""
        if not self.paths.journal.exists():
            return []
        with closing(Journal(self.paths.journal)) as journal:
            return [record.name for record in journal.servers() if start_time(record.pid) == record.started]

    def around_others(self, cluster: Cluster) -> Cluster:
        """The cluster's GPUs as they are now, with the MIG instances that others have on them.

        Raises:
            InputError: The driver does not have these GPUs.
            MigError: The driver cannot tell.
        """
        driver = open_driver(cluster, self.paths.state)
        cluster = driver.survey(cluster)
        if not self.paths.journal.exists():
            return with_foreign(cluster, driver.instances())
        with closing(Journal(self.paths.journal)) as journal:
            return with_foreign(cluster, foreign_instances(driver, journal))

    def left(self, cluster: Cluster) -> tuple[MigInstance, ...]:
        """Our MIG instances, which the next controller destroys first where none runs.

        Raises:
            InputError: The driver does not have these GPUs.
            MigError: The driver cannot tell.
        """
        if not self.paths.journal.exists():
            return ()
        with closing(Journal(self.paths.journal)) as journal:
            if journal.fact(DRIVER_FACT) != cluster.driver:
                return ()
            return ours(open_driver(cluster, self.paths.state).instances(), journal)

    def last_event(self) -> int:
        """Number of the last event in the journal; 0 where there is none."""
        events = self.recorded(limit=1)
        return events[-1].id if events else 0

    def next_generation(self) -> int:
        """Number of the plan that would be made next."""
        if not self.paths.journal.exists():
            return 1
        with closing(Journal(self.paths.journal)) as journal:
            return journal.last_generation() + 1

    def recorded(self, *, after: int = 0, limit: int = 1000) -> tuple[JournalEvent, ...]:
        """Events in the journal, whether or not a controller runs."""
        if not self.paths.journal.exists():
            return ()
        with closing(Journal(self.paths.journal)) as journal:
            return journal.events(after, limit)

    def start(self) -> None:
        """Starts a supervised controller in a session of its own, and returns when it answers.

        If it does not answer, it is ended.

        Raises:
            StateError: Somebody else has just started one.
            JigsawError: It ended at once.
        """
        self.paths.create()
        log = self.paths.log("controller")
        began = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "jigsaw_triton.cli.supervisor", str(self.paths.state)]
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
        try:
            self._wait_started(process, began)
        except BaseException:
            process.terminate()
            process.wait()
            raise

    def _wait_started(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        give_up_at = time.monotonic() + _START_S
        while (status := self.status()) is None or status["controller"]["supervisor"] != process.pid:
            if process.poll() == AlreadyRunsError.exit_code:
                raise StateError("another deploy is under way", where=str(self.paths.state), hint=_WAIT_HINT)
            if process.poll() is not None or time.monotonic() > give_up_at:
                log = self.paths.log("controller")
                told = "\n".join(f"  {line}" for line in tail(log, _LOG_LINES, since=log_start))
                raise JigsawError(f"the controller did not start; its log ends:\n{told}", where=str(log))
            time.sleep(_POLL_S)

    def take_down(self, tell: Callable[[str], None]) -> bool:
        """Has the controller take all down, and waits for its end; False where there is none."""
        if self.living_status() is None:
            return False
        after = self.last_event()
        with suppress(ControllerGoneError):
            self.client.down()
        self.follow(tell, after, lambda answer: answer["state"] == "stopped")
        return True

    def follow(
        self, tell: Callable[[str], None], after: int, until: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """Tells events as they come, until the controller's state is the one waited for.

        Args:
            tell: Gets a line an event.
            after: Number of the last event that is known.
            until: Of the state; see `console.server`.

        Returns:
            The state. Where the controller ended, `{"state": "stopped", ...}`.
        """
        began = after
        while True:
            try:
                answer = self.client.events(after, wait_s=_EVENT_WAIT_S)
            except ControllerGoneError:
                if self.living_status() is not None:
                    continue
                return self._epilogue(tell, began, after)
            for event in answer["events"]:
                tell(event_line(event["at"], event["kind"], event["text"]))
                after = event["id"]
            if until(answer):
                if answer["state"] == "stopped":
                    self.wait_ended()
                return answer

    def _epilogue(self, tell: Callable[[str], None], began: int, told: int) -> dict[str, Any]:
        """What the journal of a controller that has ended has to say of the events since `began`."""
        self.wait_ended()
        error, code = "", 0
        for event in self.recorded(after=began):
            if event.id > told:
                tell(event_line(event.at, event.kind, event.text))
            if event.code:
                error, code = event.text, event.code
        return {"state": "stopped", "queued": False, "error": error, "error_code": code}


def running_plan(status: Mapping[str, Any] | None) -> Plan | None:
    """The plan that is served, by a status; None where there is none."""
    if status is None or status["plan"] is None:
        return None
    return plan_from_json(status["plan"], where="the running plan")


def event_line(at: str, kind: str, text: str) -> str:
    """An event as a line: time of day (UTC), kind, text."""
    return f"{at[11:19]} {kind:10} {text}"


def require_paths(paths: list[str]) -> list[str]:
    """Absolute forms of what the controller is to read itself.

    Raises:
        InputError: Standard input is among them.
    """
    if "-" in paths:
        raise InputError(
            "a deployment cannot be read from standard input", where="-", hint="save the graph in a folder of its own"
        )
    return [os.path.abspath(path) for path in paths]  # noqa: PTH100 - Path.resolve would follow links


def raise_failure(state: dict[str, Any], out: Output) -> None:
    """Turns the error of a change into this process's.

    Raises:
        JigsawError: The last change failed.
    """
    if state["error"]:
        failure = JigsawError(state["error"], hint="the events before tell the story: `jigsaw-triton events`")
        failure.exit_code = state["error_code"] or 1
        raise failure
