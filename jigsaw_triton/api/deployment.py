"""Deployments: starting them, updating them, watching them, and taking them down."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from jigsaw_triton.api import controller
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.console.client import ControllerClient, ControllerGoneError, ControllerHungError, hung
from jigsaw_triton.controller.core.settings import CANARY_S
from jigsaw_triton.controller.persistence.lock import is_locked, wait_unlocked
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import LEFT, STOPPED, JournalEvent, Revision
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.planner.domain.plan import Plan, plan_from_json

if TYPE_CHECKING:
    # These take half a second to import, which `status` and `events` would wait for.
    from jigsaw_triton.api.files import Mistakes, PathLike
    from jigsaw_triton.api.machine import Driver
    from jigsaw_triton.api.planning import Demand, Graphs, Profiles
    from jigsaw_triton.api.request import Request
    from jigsaw_triton.api.rollout import Rollout
    from jigsaw_triton.graph.model import Target
    from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Objective, StandbyMode

SETTLED = ("ready", "stopped")
"""States in which no change is in progress."""

_POLL_S = 0.2
_RESTART_S = 40.0
"""Seconds to wait for a controller that died; its supervisor restarts it after at most 30 s."""

_END_S = 60.0
"""Seconds that the processes of a controller may take to end once it has said that it does."""

_CLOSING_EVENT_S = 5.0
"""Seconds to wait for the event that says why a controller has ended, if servers are running."""

_EVENT_WAIT_S = 5.0


class Deployment:
    """A deployment, running or not. `deploy` returns one; `Deployment()` finds one that runs already.

    As a context manager it takes the deployment down at the end of the block.

    Args:
        state: Folder of the deployment; by default `jigsaw-triton` in `$XDG_STATE_HOME` or `~/.local/state`.

    Attributes:
        paths: Paths of the deployment's files.

    Example:
        >>> import jigsaw_triton as jt
        >>> jt.Deployment("/nowhere").running
        False
    """

    def __init__(self, state: "PathLike | None" = None) -> None:
        self.paths: Paths = deployment_paths(Path(state) if state is not None else None)
        self._request: Request | None = None
        self._started_controller = False

    def __repr__(self) -> str:
        return f"Deployment({str(self.paths.state)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down(missing_ok=True)

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
        """Returns the error that nothing is deployed, or that servers are running without a controller."""
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
        plan = _running_plan(self.status())
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
                raise StateError(f"not {state} within {timeout_s:g} s: {found}", where=str(self.paths.state))
            seen = seen or status is not None
            time.sleep(_POLL_S)

    def update(
        self,
        graphs: "Graphs | None" = None,
        *,
        demand: "Demand | None" = None,
        gpus: str | None = None,
        cluster: "PathLike | None" = None,
        driver: "Driver | None" = None,
        profiles: "Profiles | None" = None,
        target: "Target | None" = None,
        share: bool | None = None,
        change_price: float | None = None,
        latency_model: "LatencyModel | None" = None,
        features: str | None = None,
        formulation: "Formulation | None" = None,
        objective: "Objective | None" = None,
        deterministic: bool | None = None,
        canary: float | None = None,
        canary_s: float = CANARY_S,
        standby: "StandbyMode | None" = None,
        reporter: Reporter = LOG,
    ) -> None:
        """Updates the running deployment. New models are loaded and checked beside the old ones; no request is lost.

        What is not given stays as this object last deployed it; the demand and the ports stay as they are in any case.

        Args:
            graphs: Graphs to serve, all of them; required if another process deployed them.
            demand: See `deploy`.
            gpus: See `deploy`; `gpus` or `cluster` is required if another process deployed the graphs.
            cluster: See `deploy`.
            driver: See `deploy`.
            profiles: See `deploy`; without `graphs` it has no effect.
            target: See `deploy`.
            share: See `deploy`.
            change_price: See `deploy`.
            latency_model: See `deploy`.
            features: See `deploy`.
            formulation: See `deploy`.
            objective: See `deploy`.
            deterministic: See `deploy`.
            canary: Share of the requests, such as 0.05, that the new generation answers first; then it takes over, or
                the update is rolled back if it makes more errors or is slower. None for no canary.
            canary_s: Seconds that the canary takes.
            standby: See `deploy`.
            reporter: See `deploy`.

        Raises:
            StateError: Nothing is deployed, or another change is in progress.
            InfeasibleError: No plan meets the requirements.
            SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
            JigsawError: The update failed. The previous state continues to serve.
        """
        from jigsaw_triton.api.planning import as_mapping
        from jigsaw_triton.api.request import Request

        self.status()
        request = self._request
        if graphs is not None:
            request = replace(request or Request(()), graphs=_request_graphs(graphs, profiles))
        if request is None:
            hint = "pass graphs, and gpus or cluster"
            raise InputError("this process does not know what is deployed", where=repr(self), hint=hint)
        if gpus is not None or cluster is not None:
            request = replace(request, gpus=gpus, cluster=absolute_path(cluster) if cluster is not None else None)
        given = {
            "demand": as_mapping(demand) or None,
            "driver": driver,
            "target": target,
            "share": share,
            "change_price": change_price,
            "latency_model": latency_model,
            "features": features,
            "formulation": formulation,
            "objective": objective,
            "deterministic": deterministic,
            "standby": standby,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        request = replace(request, canary=canary, canary_s=canary_s, **changes)
        self.roll_out(self.prepare(request, reporter=reporter), reporter=reporter)

    def history(self, *, limit: int = 100) -> tuple[Revision, ...]:
        """Returns the generations of the deployment, the latest last. The history outlives the controller.

        Args:
            limit: Number of generations to return, the latest.
        """
        if not self.paths.journal.exists():
            return ()
        with closing(JournalReader(self.paths.journal)) as journal:
            return journal.generations(limit)

    def rollback(self, generation: int | None = None, *, wait: bool = True, reporter: Reporter = LOG) -> None:
        """Returns to the graphs and the plan of an earlier generation, under a new number.

        During a canary, a rollback without a generation ends the canary instead, and the running generation stays.

        Args:
            generation: Number of the generation; by default the last one that served before the running one.
            wait: True to return when the change has ended, False to return at once.
            reporter: Receives the events as notes.

        Raises:
            StateError: Nothing is deployed, another change is in progress, or there is no such generation.
            InputError: The files of a model are not those of that generation any more.
        """
        if self.wait_status() is None:
            raise self.missing()
        after = self.last_event()
        ended_canary = self.client.rollback(generation)
        if not wait:
            return
        try:
            if ended_canary:
                # The error that it leaves is for whoever deployed the canary.
                self.follow(reporter.note, after, _settled)
            else:
                self._wait_settled(after, reporter)
        except BaseException as error:
            _note_interruption(error, reporter)
            raise

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

    def down(self, *, missing_ok: bool = False, reporter: Reporter = LOG) -> None:
        """Stops the gateway and the workers, and destroys their MIG instances. Logs and events are kept.

        A controller that does not answer is killed; the rest is then done without it.

        Args:
            missing_ok: True if it is no error that nothing is deployed.
            reporter: Receives the events as notes.

        Raises:
            StateError: Nothing is deployed, or a controller is starting or ending.
            InstanceInUseError: A process outside the deployment holds a MIG instance.
        """
        stopped = self._stop(reporter.note)
        ended = controller.end_orphans(self.paths)
        if ended:
            reporter.note(f"ended {ended} servers and MIG instances that a killed controller left")
        if not stopped and not ended and not missing_ok:
            raise self.missing()

    def _stop(self, report: Callable[[str], None]) -> bool:
        """Has the controller end the servers, or kills it and does so itself; returns False if there is none."""
        try:
            if self.wait_status() is not None:
                self._stop_orderly(report)
                return True
            if not is_locked(self.paths.supervisor_lock):
                return False
        except ControllerHungError:
            pass
        report("the controller does not answer: it is killed, and its servers are ended without it")
        controller.kill(self.paths)
        controller.end_orphans(self.paths)
        return True

    def _stop_orderly(self, report: Callable[[str], None]) -> None:
        """Asks the controller to stop, and waits for its end."""
        after = self.last_event()

        def stopped(state: Mapping[str, Any]) -> bool:
            if state["state"] not in ("stopping", "stopped"):
                # The controller died before it took note of the request, and was restarted.
                self._ask_to_stop()
            return bool(state["state"] == "stopped")

        self._ask_to_stop()
        self.follow(report, after, stopped, patient=False)

    def _ask_to_stop(self) -> None:
        with suppress(ControllerGoneError):
            self.client.down()

    def wait_ended(self) -> None:
        """Waits until the processes of a controller that has stopped, and of its supervisor, are gone.

        Raises:
            ControllerHungError: They do not end.
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
        patient: bool = True,
    ) -> dict[str, Any]:
        """Reports events as they come, until the controller is in the wanted state.

        Args:
            report: Receives a line for each event.
            after: Number of the last event that is known.
            until: Returns True for the wanted state; see `console.server` for its entries.
            patient: True to go on while the controller does not answer, and to report that.

        Returns:
            The state. If the controller has ended, its entry `state` is `stopped`, or `gone` if servers may be left.

        Raises:
            ControllerHungError: The controller does not answer, and `patient` is False.
        """
        began, answers = after, True
        while True:
            try:
                answer = self._events_after(after)
            except ControllerHungError as error:
                if not patient:
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
        elif closing is not None and closing.kind == LEFT:
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
                if event.kind in (STOPPED, LEFT):
                    return event
            if not ending or time.monotonic() > give_up_at:
                return None
            time.sleep(_POLL_S)

    def adopt(self, *, reporter: Reporter = LOG) -> bool:
        """Starts a controller if servers are running without one. It continues to serve with them.

        Args:
            reporter: Receives a note.

        Returns:
            True if a controller was started.

        Raises:
            StateError: Another process has just started a controller, or a release with another format of its state
                started the servers.
            JigsawError: The controller did not start.
        """
        if self.wait_status() is not None or not controller.unattended_servers(self.paths):
            return False
        controller.check_adoptable(self.paths)
        reporter.note("servers are running here without a controller; a new controller adopts them")
        self._start()
        return True

    def prepare(
        self,
        request: "Request",
        *,
        mistakes: "Mistakes | None" = None,
        reporter: Reporter = LOG,
        wording: Wording = PYTHON,
    ) -> "Rollout":
        """Reads a request and plans for it, before anything is changed.

        Args:
            request: The request.
            mistakes: Mistakes that were found before.
            reporter: Receives notes and warnings.
            wording: Form in which mistakes name an option.

        Raises:
            SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
            InfeasibleError: No plan meets the requirements.
            MigError: The MIG driver does not answer.
        """
        before = self.wait_status()
        if before is not None and before["state"] == "idle":
            # A controller that found no servers to adopt is like a new one.
            before = None
        from jigsaw_triton.api.rollout import planned_rollout

        try:
            return planned_rollout(
                self.paths,
                request,
                before,
                _running_plan(before),
                mistakes=mistakes,
                reporter=reporter,
                wording=wording,
            )
        except BaseException:
            if before is None:
                self._end_started_controller(reporter)
            raise

    def ensure_programs(self, rollout: "Rollout", report: Callable[[str], None], reporter: Reporter = LOG) -> None:
        """Finds or downloads everything that the servers run, so that the user sees a download before the start.

        Args:
            rollout: Result of `prepare`.
            report: Receives progress.
            reporter: Receives the events of a controller that is ended because something is missing.

        Raises:
            MissingDependencyError: This machine lacks something; the hint says how to get it.
            ArtifactError: A download failed.
        """
        from jigsaw_triton.api import programs

        try:
            programs.ensure_programs(rollout.wanted, report)
        except BaseException:
            if rollout.before is None:
                self._end_started_controller(reporter)
            raise

    def roll_out(
        self, rollout: "Rollout", *, wait: bool = True, keep_serving: bool = True, reporter: Reporter = LOG
    ) -> None:
        """Starts the controller if none runs, and has it carry out a rollout.

        Args:
            rollout: Result of `prepare`.
            wait: True to wait until the rollout has ended.
            keep_serving: True if a first deployment stays that serves when the wait is interrupted. Otherwise it is
                taken down. An update continues in any case.
            reporter: Receives the events as notes.

        Raises:
            StateError: Another change is in progress.
            JigsawError: The rollout failed. A first deployment is taken down; after a failed update, the previous
                state continues to serve.
        """
        self._request = rollout.request
        if self.wait_status() is None:
            controller.check_ports_free(rollout.wanted.cluster)
            self._start()
        try:
            after = self.last_event()
            self.client.deploy(rollout.request.to_json())
            if wait:
                self._wait_settled(after, reporter)
        except BaseException as error:
            if rollout.before is None and not (keep_serving and self._serves()):
                self._end_started_controller(reporter)
            else:
                _note_interruption(error, reporter)
            raise

    def _wait_settled(self, after: int, reporter: Reporter) -> None:
        """Reports events until no change is in progress. Raises the error of the last change."""
        raise_failure(self.follow(reporter.note, after, _settled))

    def _start(self) -> None:
        controller.start(self.paths, self._supervisor_pid)
        self._started_controller = True

    def _supervisor_pid(self) -> int | None:
        status = self.find_status()
        return int(status["controller"]["supervisor"]) if status is not None else None

    def _end_started_controller(self, reporter: Reporter) -> None:
        """Ends the controller if this object started it."""
        if self._started_controller:
            self._stop(reporter.note)

    def _serves(self) -> bool:
        status = self.find_status()
        return status is not None and status["generation"] > 0 and status["state"] != "stopping"


def deploy(
    graphs: "Graphs",
    *,
    demand: "Demand | None" = None,
    gpus: str | None = None,
    cluster: "PathLike | None" = None,
    driver: "Driver | None" = None,
    profiles: "Profiles | None" = None,
    target: "Target | None" = None,
    http: int | None = None,
    grpc: int | None = None,
    metrics: int | None = None,
    address: str | None = None,
    share: bool = False,
    change_price: float = 0.0,
    latency_model: "LatencyModel" = "queue",
    features: str = "AST",
    formulation: "Formulation" = "exact",
    objective: "Objective" = "slices",
    deterministic: bool = False,
    canary: float | None = None,
    canary_s: float = CANARY_S,
    standby: "StandbyMode" = "auto",
    state: "PathLike | None" = None,
    wait: bool = True,
    reporter: Reporter = LOG,
) -> Deployment:
    """Deploys graphs, or updates the running deployment, and returns once it serves.

    It plans for the demand, creates MIG instances, starts a tritonserver in each and the gateway in front. A controller
    in a process of its own then follows the load; it outlives this process. Use the result as a context manager to take
    the deployment down at the end of a block.

    Args:
        graphs: Graphs, or paths of graph.yaml files or their folders.
        demand: Requests a second to provide for; 1 for each graph by default, or what the running deployment has.
        gpus: GPUs of this machine, such as `4xA100-80GB`, or `2xcpu`. Either `gpus` or `cluster` is required.
        cluster: Path of a cluster.yaml or its folder.
        driver: MIG driver, instead of the one of the cluster.
        profiles: Profiles; by default those in profiles.csv beside each graph.
        target: Target to compile to, instead of the graphs' own.
        http: HTTP port of the gateway; 8000 by default.
        grpc: gRPC port of the gateway; 8001 by default.
        metrics: Metrics port of the gateway; 8002 by default.
        address: IPv4 address that the gateway listens on; 127.0.0.1 by default.
        share: True if rarely called models may share a slice.
        change_price: Compute slices that a plan must save for each running MIG instance that it changes.
        latency_model: Latency model of the planner: `queue` or `2p95`.
        features: Features of the planner, of A accuracy scaling, S spatial partitioning and T task-graph-informed
            budgeting; fewer are a baseline.
        formulation: Formulation of the planner: `exact`, or `paper` as a baseline.
        objective: Objective of the planner: `slices` for the fewest, or `accuracy` for the highest that the GPUs carry
            at the measured load. A change must then gain 0.1% of accuracy for each slice and each instance.
        deterministic: True if emulated variants take the profiled median and yield even numbers of rows, instead of
            drawing both.
        canary: See `Deployment.update`; only for the update of a running deployment.
        canary_s: See `Deployment.update`.
        standby: `auto` to load lighter variants in the same slices for bursts, where they fit; `off` not to.
        state: Folder of the deployment; by default `jigsaw-triton` in `$XDG_STATE_HOME` or `~/.local/state`.
        wait: True to return once the deployment serves; False to return at once.
        reporter: Receives notes, events and warnings; by default the logger `jigsaw_triton`.

    Raises:
        InfeasibleError: No plan meets the requirements.
        SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
        StateError: Another change is in progress.
        MissingDependencyError: This machine lacks something; the hint says how to get it.
        JigsawError: The deployment failed. A first deployment is taken down; after a failed update, the previous state
            continues to serve.
    """
    from jigsaw_triton.api.planning import as_mapping
    from jigsaw_triton.api.request import Request

    deployment = Deployment(state)
    request = Request(
        graphs=_request_graphs(graphs, profiles),
        gpus=gpus,
        cluster=absolute_path(cluster) if cluster is not None else None,
        driver=driver,
        demand=as_mapping(demand),
        target=target,
        http=http,
        grpc=grpc,
        metrics=metrics,
        address=address,
        share=share,
        change_price=change_price,
        latency_model=latency_model,
        features=features,
        formulation=formulation,
        objective=objective,
        deterministic=deterministic,
        canary=canary,
        canary_s=canary_s,
        standby=standby,
    )
    deployment.adopt(reporter=reporter)
    rollout = deployment.prepare(request, reporter=reporter)
    deployment.ensure_programs(rollout, reporter.note, reporter)
    deployment.roll_out(rollout, wait=wait, reporter=reporter)
    return deployment


def _settled(state: Mapping[str, Any]) -> bool:
    """True if no change is in progress, in a state that `Deployment.follow` reads."""
    return state["state"] in SETTLED and not state["queued"]


def _all_ready(status: Mapping[str, Any]) -> bool:
    """True if all graphs are served and all servers are ready."""
    return status["serving"] and all(worker["state"] == "ready" for worker in status["workers"])


def _running_plan(status: Mapping[str, Any] | None) -> Plan | None:
    """Returns the plan that is served, from a status; None if no plan is served."""
    if status is None or status["plan"] is None:
        return None
    return plan_from_json(status["plan"], where="the running plan")


def event_line(at: str, kind: str, text: str) -> str:
    """Returns an event as a line: time of day (UTC), kind and text."""
    return f"{at[11:19]} {kind:10} {text}"


def _note_interruption(error: BaseException, reporter: Reporter) -> None:
    """Reports that a change continues, if the user has interrupted the wait for it."""
    if not isinstance(error, JigsawError):
        reporter.note(f"interrupted; the controller goes on with the change: {controller.WAIT_HINT}")


def absolute_path(path: "PathLike") -> str:
    """Returns the absolute form of a path that the controller will read.

    Raises:
        InputError: The path is standard input.
    """
    if str(path) == "-":
        raise InputError(
            "a deployment cannot be read from standard input", where="-", hint="save the graph in a folder of its own"
        )
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links


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


def _request_graphs(graphs: "Graphs", profiles: "Profiles | None") -> tuple[Any, ...]:
    """Returns graphs in the form in which the controller reads them."""
    from jigsaw_triton.api.files import ONLY_GRAPH, GraphText, Mistakes, load_graph, read_profile_tables
    from jigsaw_triton.api.planning import as_profiles, as_sources
    from jigsaw_triton.graph.model import TaskGraph

    sources, given = as_sources(graphs), as_profiles(profiles)
    if not given and not any(isinstance(source, TaskGraph) for source in sources):
        return tuple(source if isinstance(source, GraphText) else absolute_path(str(source)) for source in sources)
    mistakes = Mistakes()
    loaded = {}
    for source in sources:
        with mistakes:
            graph = source if isinstance(source, TaskGraph) else load_graph(str(source))
            loaded[graph.name] = graph
    named = {name for name in given if name != ONLY_GRAPH} or ({*loaded} if given else set())
    tables = read_profile_tables({n: g for n, g in loaded.items() if n in named}, mistakes, given=given)
    mistakes.raise_if_any()
    return tuple(GraphText.of(graph, tables.get(name)) for name, graph in loaded.items())
