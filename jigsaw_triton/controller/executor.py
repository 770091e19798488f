"""Executor of the core's actions: plans, compiles, and changes servers, routes and repositories."""

import asyncio
import contextlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry
from jigsaw_triton.compiler.rehearsal import rehearsal
from jigsaw_triton.compiler.store import write_route
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.agreement import agreement
from jigsaw_triton.controller.core.generation import Basis, Generation
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.fleet.drain import drained
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.fleet.space import check_space
from jigsaw_triton.controller.persistence.history import keep
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.planning.job import Job
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.runtime.dtypes import Arrays

DRAIN_S = 60.0
"""Seconds to wait for batches in flight: usually longer than the gateway's deadlines for a call and an early one."""

_MOST_NAMED = 8
"""Largest number of nodes that an error names for one reason. A convention: a cluster may have two thousand."""


class Executor:
    """Carries out actions.

    Args:
        paths: Paths of the deployment.
        fleet: Servers of the deployment.
        templates: Templates of model repositories, by name.
        journal: Journal that records the plans.
        planning: Process that makes the plans.
    """

    def __init__(
        self,
        paths: Paths,
        fleet: Fleet,
        templates: Mapping[str, Template],
        journal: Journal,
        planning: PlanningProcess,
    ) -> None:
        self._paths = paths
        self._fleet = fleet
        self._templates = templates
        self._journal = journal
        self._planning = planning
        self._routes: dict[str, tuple[RouteEntry, ...]] = {}
        self._writing_routes = asyncio.Lock()

    async def resume(self, routes: Mapping[str, tuple[RouteEntry, ...]]) -> None:
        """Goes on where an earlier controller stopped: writes all routes once more, and removes others."""
        await self._set_routes(routes)
        for path in (self._paths.run / "routes").glob("*.json"):
            if path.stem not in routes:
                path.unlink()

    async def renew(self) -> None:
        """Writes all routes once more, because the epoch of this controller has changed.

        The gateway would refuse the others as soon as it has read one of the later epoch.
        """
        # The dictionary is passed itself, since a copy could undo routes that a change writes meanwhile.
        await self._set_routes(self._routes)

    async def solve(
        self, action: a.Solve, actual: Actual, standby: frozenset[str]
    ) -> tuple[Plan, Bundle, tuple[Stage, ...]]:
        """Computes a plan that leaves the MIG instances of others alone, and compiles it.

        Args:
            action: Action of the core.
            actual: Servers and models that exist now.
            standby: Graphs that standby variants serve now.

        Returns:
            The plan, its bundle, and the stages of the change from `actual`.
        """
        if not action.review:
            # A review may overlap with the solve of a deploy, whose cluster it must not replace.
            await self._fleet.serve_on(action.wanted.cluster)
        surveyed = await self._fleet.around_others(action.wanted.cluster)
        cluster = replace(surveyed, gpus=tuple(gpu for gpu in surveyed.gpus if gpu.id not in action.cordoned))
        if action.wanted.cluster.gpus and not cluster.gpus:
            raise _without_gpus(action, frozenset(gpu.id for gpu in surveyed.gpus))
        backends = self._fleet.backends
        planned = await self._planning.plan(Job(action, cluster, actual, standby, self._templates, backends))
        running = action.running
        if planned is None:
            assert running is not None, "only a review changes nothing"
            return running.plan, running.bundle, ()
        served = running.bundle if running is not None else None
        await asyncio.to_thread(check_space, planned.bundle, served, self._paths.state)
        slow = {(*kind,): ratio for kind, ratio in action.slow.items()}
        basis = Basis(action.graphs, slow, action.unusable)
        made = Generation(action.wanted, planned.plan, planned.bundle, basis)
        await asyncio.to_thread(keep, self._journal, made, action.reason, by_load=not action.by_user)
        if running is not None:
            self._forget_generations(running.bundle.generation)
        return planned.plan, planned.bundle, planned.stages

    async def stages(
        self, action: a.Solve, plan: Plan, bundle: Bundle, actual: Actual, standby: frozenset[str]
    ) -> tuple[Stage, ...]:
        """Computes the stages of a change again, because what exists is no longer what `solve` got.

        Args:
            action: Action of the core.
            plan: Plan that was made for it.
            bundle: Bundle compiled from the plan.
            actual: Servers and models that exist now.
            standby: Graphs that standby variants serve now.
        """
        job = Job(action, action.wanted.cluster, actual, standby, {}, frozenset(), made=(plan, bundle))
        planned = await self._planning.plan(job)
        assert planned is not None, "the plan has been found to change something"
        return planned.stages

    def _forget_generations(self, before: int) -> None:
        """Removes the files of generations that no request can be bound to any more."""
        for path in self._paths.generations.glob("*.*"):
            if int(path.suffix[1:]) < before:
                path.unlink(missing_ok=True)

    async def run(self, action: a.Action) -> None:
        """Carries out any action except `Solve`.

        Raises:
            JigsawError: The action failed and left nothing behind.
        """
        match action:
            case a.BringUp(worker):
                await self._fleet.bring_up(worker)
            case a.LoadModels(worker_name, models):
                await self._fleet.load(worker_name, models)
            case a.UnloadModels(worker_name, names):
                await self._fleet.unload(worker_name, names)
                for name in names:
                    self._paths.slots(worker_name, name).unlink(missing_ok=True)
            case a.RestartWorker(worker, delay_s):
                await self._fleet.restart(worker, delay_s)
            case a.Drain(worker_name, models):
                await self._drain(worker_name, models)
            case a.Settle(graph, generation):
                await self._settle(graph, generation)
            case a.Retire(worker):
                await self._fleet.retire(worker.name)
                await asyncio.to_thread(shutil.rmtree, self._paths.worker_slots(worker.name), True)
            case _:
                await self._run_at_gateway(action)

    async def _run_at_gateway(self, action: a.Action) -> None:
        match action:
            case a.StartGateway(wanted):
                await self._fleet.gateway.start(wanted.cluster.gateway)
            case a.RestartGateway(wanted, folders, delay_s):
                # A controller that this one has replaced may have changed a file; the gateway then refused it.
                await self._set_routes(self._routes)
                await self._fleet.gateway.restart(wanted.cluster.gateway, folders, delay_s)
            case a.LoadGateway(folders, routes):
                await self._set_routes(routes)
                await self._fleet.gateway.load(folders)
            case a.SetRoutes(routes):
                await self._set_routes(routes)
            case a.Flip(_, front, samples):
                sample = await asyncio.to_thread(self._request, samples)
                await self._fleet.gateway.flip(front, rehearsal(front), sample)
            case a.Compare(graph, front, samples):
                sample = await asyncio.to_thread(self._request, samples)
                answers = await self._fleet.gateway.compare(front, rehearsal(front), sample)
                request = "the sample request" if sample is not None else "a request of zeros"
                self._journal.event("canary", f"{graph}: in the answer to {request}, {agreement(*answers)}")
            case a.UnloadGateway(names):
                await self._fleet.gateway.unload(names)
                for name in names:
                    await self._end_route(name)
            case a.StopGateway():
                await self._fleet.gateway.stop()
                await self._fleet.replication.end()
            case _:
                raise ValueError(f"not an action to run: {action!r}")

    def _request(self, samples: Mapping[str, Path]) -> Arrays | None:
        """Returns a sample request with a batch dimension of 1; None without samples, or if one cannot be read."""
        folder = self._paths.contents
        with contextlib.suppress(OSError, ValueError):
            return {name: np.load(folder / path, allow_pickle=False)[None] for name, path in samples.items()} or None
        return None

    async def _set_routes(self, routes: Mapping[str, tuple[RouteEntry, ...]]) -> None:
        # Routes list a task after those that it depends on. They are written in reverse, so that a request that an
        # early task binds to a generation finds that generation in the later tasks.
        async with self._writing_routes:
            for name, entries in reversed(list(routes.items())):
                self._journal.check_epoch()
                await asyncio.to_thread(write_route, self._paths.run, name, entries, self._journal.epoch)
                self._routes[name] = entries

    async def _drain(self, worker: str, models: Collection[str]) -> None:
        for model in models:
            if not await drained(self._paths.slots(worker, model), DRAIN_S):
                raise ServerError(f"model {model} still has a batch in flight after {DRAIN_S:g} s", where=worker)
        await self._fleet.replication.unused(models=[(worker, model) for model in models])

    async def _settle(self, graph: str, generation: int) -> None:
        path = self._paths.generation(graph, generation)
        if not await _unused(path):
            raise ServerError(
                f"requests of {graph} are still bound to generation {generation} after {DRAIN_S:g} s", where="gateway"
            )
        await self._fleet.replication.unused(generations=[(graph, generation)])

    async def _end_route(self, name: str) -> None:
        """Removes a route once no front at the gateway uses it.

        Raises:
            ServerError: A request that uses the route does not end in time.
        """
        held = self._paths.task(name)
        if not await _unused(held):
            raise ServerError(f"route {name} still has a request in flight after {DRAIN_S:g} s", where="gateway")
        # The lock keeps `renew` from writing this route once more.
        async with self._writing_routes:
            self._routes.pop(name, None)
            (self._paths.run / "routes" / f"{name}.json").unlink(missing_ok=True)
            held.unlink(missing_ok=True)


def _without_gpus(action: a.Solve, surveyed: Collection[GpuId]) -> InputError:
    """Returns the error that a plan has no GPU, with the nodes that it lacks.

    Args:
        action: Action that asks for the plan.
        surveyed: GPUs that are not lost.
    """
    nodes = {gpu.id.node for gpu in action.wanted.cluster.gpus}
    withdrawn = {gpu.node for gpu in surveyed if gpu in action.cordoned}
    text = ", ".join((*_named(nodes - withdrawn, "lost"), *_named(withdrawn, "withdrawn")))
    hint = "return a node with `jigsaw-triton node uncordon NODE`, or wait until a lost one is back"
    return InputError(f"no GPU is left: {text}", hint=hint)


def _named(nodes: Collection[str], why: str) -> Iterator[str]:
    """Yields the reason for each node, and only the number of the nodes beyond `_MOST_NAMED`."""
    for node in sorted(nodes)[:_MOST_NAMED]:
        yield f"node {node} is {why}"
    if (more := len(nodes) - _MOST_NAMED) > 0:
        yield f"{more} more {'is' if more == 1 else 'are'} {why}"


async def _unused(path: Path) -> bool:
    """Waits until no front locks a file. Returns False on timeout."""
    return not path.exists() or await drained(path, DRAIN_S)  # noqa: ASYNC240 - a local file, looked at in microseconds
