"""Deployments: adding, updating and removing graphs."""

from collections.abc import Callable, Collection
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jigsaw_triton.api import controller
from jigsaw_triton.api.observed import running_plan
from jigsaw_triton.api.operated import OperatedDeployment, note_interruption
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.console.client import ControllerGoneError, ControllerHungError
from jigsaw_triton.console.options import process_options
from jigsaw_triton.controller.core.settings import CANARY_S
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.logs import LogFormat
from jigsaw_triton.sizes import readable

if TYPE_CHECKING:
    # These take half a second to import, which `status` and `events` would wait for.
    from jigsaw_triton.api.files import Mistakes, PathLike
    from jigsaw_triton.api.machine import Driver
    from jigsaw_triton.api.planning import Demand, Graphs, Profiles
    from jigsaw_triton.api.request import Request
    from jigsaw_triton.api.rollout import Rollout
    from jigsaw_triton.graph.model import Target
    from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Objective, StandbyMode

_COPIED_BYTES_S = 10e6
"""Bytes of model files that a controller reads and copies in a second, at least: on a slow network disk."""

_NOTED_BYTES = 2**29
"""Least size of model files that a deployment mentions, since to read and copy them takes a second or more."""


class Deployment(OperatedDeployment):
    """A deployment, running or not. `deploy` returns one; `Deployment()` finds one that runs already.

    As a context manager it takes the deployment down at the end of the block.

    Args:
        state: Folder of the deployment; by default `jigsaw-triton` in `$XDG_STATE_HOME` or `~/.local/state`.
        log_format: Form of the controller's log, `text` or `json`, if this object starts it; text by default.
        controller_metrics: Port for the controller's metrics, or address and port such as `0.0.0.0:8004`, if this
            object starts it; none by default.

    Attributes:
        paths: Paths of the deployment's files.

    Example:
        >>> import jigsaw_triton as jt
        >>> jt.Deployment("/nowhere").running
        False
    """

    def __init__(
        self,
        state: "PathLike | None" = None,
        *,
        log_format: LogFormat | None = None,
        controller_metrics: str | int | None = None,
    ) -> None:
        super().__init__(state, process_options(log_format, controller_metrics))
        self._request: Request | None = None

    def __repr__(self) -> str:
        return f"Deployment({str(self.paths.state)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down(missing_ok=True)

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
        period_s: float | None = None,
        forecast: str | None = None,
        window_s: float | None = None,
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
            period_s: See `deploy`.
            forecast: See `deploy`.
            window_s: See `deploy`.
            reporter: See `deploy`.

        Raises:
            StateError: Nothing is deployed, or another change is in progress.
            InfeasibleError: No plan meets the requirements.
            SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
            JigsawError: The update failed. The previous state continues to serve.
        """
        from jigsaw_triton.api.planning import as_mapping
        from jigsaw_triton.api.request import Request
        from jigsaw_triton.api.sources import absolute_path, request_graphs

        self.status()
        request = self._request
        if graphs is not None:
            request = replace(request or Request(()), graphs=request_graphs(graphs, profiles))
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
            "period_s": period_s,
            "forecast": forecast,
            "window_s": window_s,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        request = replace(request, canary=canary, canary_s=canary_s, **changes)
        self.roll_out(self.prepare(request, reporter=reporter), reporter=reporter)

    def add(
        self,
        graphs: "Graphs",
        *,
        demand: "Demand | None" = None,
        profiles: "Profiles | None" = None,
        target: "Target | None" = None,
        gpus: str | None = None,
        cluster: "PathLike | None" = None,
        driver: "Driver | None" = None,
        shed: bool = False,
        reporter: Reporter = LOG,
    ) -> None:
        """Adds graphs to the running deployment. The others go on as they were deployed, without a lost request.

        Files of the other graphs that have changed since are not read. Afterwards `update` needs all graphs.

        Args:
            graphs: Graphs to add.
            demand: Requests a second to provide for; 1 for each new graph by default. It may change the demand of the
                other graphs.
            profiles: See `deploy`.
            target: Target to compile the new graphs to, instead of their own.
            gpus: See `deploy`; by default the deployment keeps its GPUs.
            cluster: See `deploy`.
            driver: See `deploy`.
            shed: True to accept that graphs of lower priority are provided for less if not all fit.
            reporter: See `deploy`.

        Raises:
            StateError: Nothing is deployed, or another change is in progress.
            InfeasibleError: The graphs do not fit, or only if others shed load; the error says what would be enough.
            SpecError: There are mistakes in the files or arguments, or a graph of the same name is deployed.
            JigsawError: The change failed. The previous state continues to serve.
        """
        from jigsaw_triton.api.planning import as_mapping
        from jigsaw_triton.api.request import Request
        from jigsaw_triton.api.shedding import shedding_refused
        from jigsaw_triton.api.sources import absolute_path, request_graphs

        request = Request(
            graphs=request_graphs(graphs, profiles),
            joins=True,
            gpus=gpus,
            cluster=absolute_path(cluster) if cluster is not None else None,
            driver=driver,
            demand=as_mapping(demand),
            target=target,
        )
        rollout = self.prepare(request, reporter=reporter)
        if rollout.sheds and not shed:
            raise shedding_refused(rollout.sheds, PYTHON)
        self.ensure_programs(rollout, reporter.note, reporter)
        self.roll_out(rollout, reporter=reporter)

    def remove(self, *names: str, reporter: Reporter = LOG) -> None:
        """Removes graphs from the running deployment. The others are served on without a lost request.

        Requests that a removed graph has received are answered; later ones are refused. Without the last graph nothing
        is left to serve, so that the deployment is taken down. Afterwards `update` needs all graphs.

        Args:
            names: Names of the graphs.
            reporter: See `deploy`.

        Raises:
            StateError: Nothing is deployed, or another change is in progress.
            InputError: No name is given, or no graph of this name is deployed.
            JigsawError: The change failed. The previous state continues to serve.
        """
        if not names:
            raise InputError("no graph is named", hint="give names of graphs; `down` takes the whole deployment down")
        self.adopt(reporter=reporter)
        if self.is_all(names):
            self.remove_all(names, reporter=reporter)
        else:
            self.roll_out(self.prepare(self.removal(names), reporter=reporter), reporter=reporter)

    def is_all(self, names: Collection[str]) -> bool:
        """Returns True if these are the names of all graphs that are served.

        Raises:
            StateError: Nothing is deployed.
        """
        return bool(self.status()["graphs"].keys() == set(names))

    def remove_all(self, names: Collection[str], *, reporter: Reporter = LOG) -> None:
        """Takes the deployment down if it still serves only graphs of these names, and no graph is being added.

        Args:
            names: Names of the graphs.
            reporter: Recipient of the events as notes.

        Raises:
            StateError: Another change is in progress, or other graphs are served meanwhile.
        """
        self.client.remove_all(names)
        reporter.note("no graph remains, so the whole deployment is stopped")
        self.down(missing_ok=True, reporter=reporter)

    def removal(self, names: Collection[str]) -> "Request":
        """Returns the request that removes graphs."""
        from jigsaw_triton.api.request import Request

        return Request(graphs=(), leaving=tuple(dict.fromkeys(names)))

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
            reporter: Recipient of notes and warnings.
            wording: Form in which mistakes name an option.

        Raises:
            SpecError: There are mistakes in the files or arguments; the error has a diagnostic for each.
            InfeasibleError: No plan meets the requirements.
            StateError: Graphs join or leave, and nothing is deployed.
            InputError: The running controller has other options than this object.
            MigError: The MIG driver does not answer.
        """
        before = self.wait_status()
        if before is None and request.changes_membership:
            raise self.missing()
        if before is not None and before["state"] == "idle":
            # A controller that found no servers to adopt is like a new one.
            before = None
        if before is not None:
            self._check_options(before)
        from jigsaw_triton.api.rollout import planned_rollout

        try:
            return planned_rollout(
                self.paths,
                request,
                before,
                running_plan(before),
                mistakes=mistakes,
                reporter=reporter,
                wording=wording,
            )
        except BaseException:
            if before is None:
                self.end_started(reporter)
            raise

    def ensure_programs(self, rollout: "Rollout", report: Callable[[str], None], reporter: Reporter = LOG) -> None:
        """Finds or downloads everything that the servers run, so that the user sees a download before the start.

        Args:
            rollout: Result of `prepare`.
            report: Function that receives progress.
            reporter: Recipient of the events of a controller that is ended because something is missing.

        Raises:
            MissingDependencyError: This machine lacks something; the hint says how to get it.
            ArtifactError: A download failed.
        """
        from jigsaw_triton.api import programs

        try:
            programs.ensure_programs(rollout.wanted, report)
        except BaseException:
            if rollout.before is None:
                self.end_started(reporter)
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
            reporter: Recipient of the events as notes.

        Raises:
            StateError: Another change is in progress.
            JigsawError: The rollout failed. A first deployment is taken down; after a failed update, the previous
                state continues to serve.
        """
        if self.wait_status() is None:
            controller.check_ports_free(rollout.wanted.cluster)
            self.start(reporter.note)
        try:
            after = self.last_event()
            size = rollout.size_bytes()
            if size >= _NOTED_BYTES:
                reporter.note(f"the controller copies the model files, {readable(size)}, if they have changed")
            self._ask(rollout, size)
            served, self._request = self._request, None if rollout.request.changes_membership else rollout.request
            if wait:
                try:
                    self.wait_settled(after, reporter)
                except JigsawError:
                    self._request = served
                    raise
        except BaseException as error:
            if rollout.before is None and not (keep_serving and self._serves()):
                self.end_started(reporter)
            else:
                note_interruption(error, reporter)
            raise

    def _ask(self, rollout: "Rollout", size_bytes: int) -> None:
        """Asks the controller for a rollout. If it accepts a first deployment, the controller belongs to this object.

        Args:
            rollout: The rollout.
            size_bytes: Size of the model files, which the controller copies before it answers.

        Raises:
            StateError: Another change is in progress, or the controller does not answer.
            JigsawError: The controller cannot read or copy the files.
        """
        try:
            self.client.deploy(rollout.request.to_json(), size_bytes / _COPIED_BYTES_S)
        except StateError as error:
            # Another process deploys with this controller, or takes it down, unless the controller itself failed.
            self._owns_controller &= isinstance(error, (ControllerGoneError, ControllerHungError))
            raise
        self._owns_controller |= rollout.before is None
