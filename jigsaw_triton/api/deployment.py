"""Deployments: adding, updating and removing graphs."""

from collections.abc import Collection
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter
from jigsaw_triton.api.rolled_out import RolledOutDeployment
from jigsaw_triton.console.options import process_options
from jigsaw_triton.controller.core.settings import CANARY_S
from jigsaw_triton.errors import InputError
from jigsaw_triton.logs import LogFormat

if TYPE_CHECKING:
    # These take half a second to import, which `status` and `events` would wait for.
    from jigsaw_triton.api.files import PathLike
    from jigsaw_triton.api.machine import Driver
    from jigsaw_triton.api.planning import Demand, Graphs, Profiles
    from jigsaw_triton.api.request import Request
    from jigsaw_triton.graph.model import Target
    from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Objective, StandbyMode


class Deployment(RolledOutDeployment):
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
