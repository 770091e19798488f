"""Bundles, plans and a shell without processes, for tests of the core."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jigsaw_triton.compiler.bundle import (
    Bundle,
    CompiledGraph,
    ModelFolder,
    Place,
    RouteEntry,
    TaskFront,
    Worker,
    WorkerModel,
)
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.order import placed_gpus
from jigsaw_triton.controller.core.recovery import essential
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.step import step
from jigsaw_triton.controller.persistence.checkpoint import pickled, unpickled
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.graph.model import Slo, TaskGraph, Variant
from jigsaw_triton.planner.domain.plan import GraphPlan, Plan, SolverReport, Standby
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import graph_of
from tests.fakes.problems import row

BOARD = "A100-80GB"

LEARNED = Settings(learning_s=0.0)
"""Settings of a controller that believes the first fall of a load."""
VARIANTS = (Variant("a", 1.0, "emulated"), Variant("b", 0.9, "emulated"))
GRAPH = replace(
    chain(2, name="app"),
    slo=Slo(1000.0, accuracy=0.9),
    tasks={name: replace(task, variants=VARIANTS) for name, task in chain(2).tasks.items()},
)
"""Graph of tasks t0 and t1 with variants a and b. The accuracy SLO allows b for one of the tasks, not for both."""


def wanted(demand_rps: float = 10.0, graph: TaskGraph = GRAPH, gpus: int = 2) -> Wanted:
    cluster = Cluster(tuple(Gpu(GpuId("n", i), CATALOG[BOARD]) for i in range(gpus)))
    return Wanted({graph.name: graph}, {graph.name: demand_rps}, {}, cluster)


def worker(place: str, *models: tuple[str, str], generation: int = 1) -> Worker:
    """A worker at `<gpu>/<slice>@<start>` with models given as (task, variant)."""
    gpu, _, at = place.partition("/")
    kind, _, start = at.partition("@")
    loaded = tuple(
        WorkerModel(
            ModelFolder(f"app.{task}.{variant}.g{generation}", {}),
            "app",
            task,
            variant,
            1,
            4,
            digest=f"{task}{variant}{generation}",
        )
        for task, variant in sorted(models)
    )
    stand = Place(GpuId("n", int(gpu)), BOARD, Placement(int(start), kind))
    return Worker(f"n-{gpu}-{kind}-{start}", loaded, stand, 1000)


def steps(generation: int = 1) -> Worker:
    """The worker of the Python step `s`."""
    model = WorkerModel(ModelFolder(f"app.s.g{generation}", {}), "app", "s", "", 1, 1, digest="s", tokens=1)
    return Worker("steps-app", (model,))


def bundle(
    generation: int, workers: Iterable[Worker], tasks: Sequence[str] = ("t0", "t1"), *, target: str = "graph"
) -> Bundle:
    """A bundle, as compiled from a plan.

    Args:
        generation: Number of the generation.
        workers: Workers with their models.
        tasks: Names of the tasks or chains that the front calls.
        target: Target of the graph: `graph`, whose tasks have no models of their own at the gateway, or `ensemble`.
    """
    by_name = {w.name: w for w in sorted(workers, key=lambda w: w.name)}
    fronts = tuple(
        TaskFront(
            f"app.{task}.g{generation}",
            task,
            tuple(
                RouteEntry(
                    w.name,
                    m.name,
                    m.batch,
                    m.instances,
                    variant=m.variant,
                    generations=(generation,) if target == "graph" else (),
                )
                for w in by_name.values()
                for m in w.models
                if m.task == task
            ),
            ModelFolder(f"app.{task}.g{generation}", {}) if target == "ensemble" else None,
        )
        for task in tasks
    )
    front = ModelFolder("app", {"config.pbtxt": f"generation {generation}".encode()})
    return Bundle(generation, by_name, {"app": CompiledGraph(front, None, fronts, target)})


def chained(made: Bundle) -> Bundle:
    """Adds a chain of t0 and t1 to every worker. Each worker must have one variant of either task."""
    number = made.generation
    workers = {}
    for name, worker_made in made.workers.items():
        first, second = worker_made.models
        folder = ModelFolder(f"app.t0~t1.{first.variant}~{second.variant}.g{number}", {})
        whole = replace(
            first,
            folder=folder,
            task="t0~t1",
            variant=f"{first.variant}~{second.variant}",
            digest=f"{first.name} {second.name}",
            members=(first.name, second.name),
        )
        workers[name] = replace(worker_made, models=(first, second, whole))
    apart = made.graphs["app"]
    front = ModelFolder("app", {"config.pbtxt": f"generation {number}, chained".encode()})
    tasks = bundle(number, workers.values(), ["t0~t1"], target=apart.target).graphs["app"].tasks
    return Bundle(number, workers, {"app": CompiledGraph(front, None, tasks, apart.target, apart=apart)})


def standing_by(made: Bundle, generation: int | None = None) -> Bundle:
    """Adds a standby model of the other variant to every worker with one model.

    Args:
        made: Bundle.
        generation: Generation in the names of the standby models; None for the bundle's.
    """
    number, graph = made.generation if generation is None else generation, made.graphs["app"]
    workers, entries = dict(made.workers), dict[str, list[RouteEntry]]()
    for name, alone in made.workers.items():
        if len(alone.models) == 1 and alone.place is not None:
            (model,) = alone.models
            variant = {"a": "b", "b": "a"}[model.variant]
            folder = ModelFolder(f"app.{model.task}.{variant}.g{number}", {})
            other = replace(model, folder=folder, variant=variant, digest=f"{model.task}{variant}{number}")
            workers[name] = replace(alone, standby=(other,))
            generations = (made.generation,) if graph.target == "graph" else ()
            entry = RouteEntry(name, other.name, other.batch, other.instances, variant, generations=generations)
            entries.setdefault(model.task, []).append(entry)
    tasks = tuple(replace(task, standby=tuple(entries.get(task.task, ()))) for task in graph.tasks)
    return replace(made, workers=workers, graphs={"app": replace(graph, tasks=tasks)})


def with_contents(made: Bundle) -> Bundle:
    """Gives models of the same variants the same content, whatever their slices and generations."""

    def known(models: Iterable[WorkerModel]) -> tuple[WorkerModel, ...]:
        return tuple(replace(model, content=f"{model.task} {model.variant}") for model in models)

    workers = {n: replace(w, models=known(w.models), standby=known(w.standby)) for n, w in made.workers.items()}
    return replace(made, workers=workers)


def plan(demand_rps: float, standby: Standby | None = None) -> Plan:
    graphs = {"app": GraphPlan(demand_rps, demand_rps, 1.0, 100.0, {}, standby)}
    return Plan(graphs, (), 2, 14, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.1, 0.0))


def planned(demand_rps: float, made: Bundle) -> Plan:
    """Returns a plan for a demand, which carries three times as much with the standby variants of the bundle."""
    some = any(worker.standby for worker in made.workers.values())
    return plan(demand_rps, Standby(3 * demand_rps, 0.9) if some else None)


def generation(made: Bundle, demand_rps: float = 10.0) -> Generation:
    return Generation(wanted(demand_rps), planned(demand_rps, made), made)


def profiled(made: Bundle, *, demand_rps: float = 8.0, memory_mib: float = 900.0) -> Generation:
    """Returns a generation in which each instance of a replica carries 10 requests a second."""
    rows = [
        row(task, variant, slice_=kind, instances=n, batch=4, rps=12.5 * n, gpu=BOARD, memory_mib=memory_mib)
        for task in ("t0", "t1")
        for variant in "ab"
        for kind in ("1g", "1gx2", "2g", "3g", "4g")
        for n in (1, 2)
    ]
    base = generation(made, demand_rps)
    gpus = placed_gpus(made.workers.values())
    planned = replace(base.plan, graphs={"app": graph_of(gpus, demand_rps)}, gpus=gpus)
    asked = replace(base.wanted, profiles={"app": ProfileTable(rows)}, latency_model="2p95")
    return Generation(asked, planned, made)


def checkpointed(state: State) -> State:
    """Returns what the next controller finds of a state after a crash: the essential part, written and read again."""
    found: State = unpickled(pickled(essential(state)))
    return found


Fault = Callable[[a.Action], str]
"""Function that returns an action's error; empty if the action succeeds."""


@dataclass
class World:
    """A shell that carries out the core's actions at once and in order.

    Attributes:
        bundles: Generation number -> its compiled bundle, or an error of the planner.
        fault: Function that makes actions fail.
        state: State of the core.
        done: Actions carried out, in order.
        reports: Reports as (kind, text), in order.
        held: Actions that `hold` has kept back; `end` carries them out.
        hold: Function that returns True for actions to keep back.
        carries_rps: Capacity of the cluster, for plans that may fall short of the demand.
        clock_s: Time of the last count of arrivals.
    """

    bundles: Mapping[int, Bundle | str]
    fault: Fault = lambda _: ""
    state: State = field(default_factory=lambda: State(settings=LEARNED))
    done: list[a.Action] = field(default_factory=list)
    reports: list[tuple[str, str]] = field(default_factory=list)
    hold: Callable[[a.Action], bool] = lambda _: False
    carries_rps: float = math.inf
    held: list[a.Issued] = field(default_factory=list)
    clock_s: float = 0.0

    def send(self, event: e.Event) -> None:
        queue: list[e.Event] = [event]
        while queue:
            self.state, outputs = step(self.state, queue.pop(0))
            for output in outputs:
                if isinstance(output, a.Report):
                    self.reports.append((output.kind, output.text))
                elif self.hold(output.action):
                    self.held.append(output)
                else:
                    queue.append(self.outcome(output))

    def end(self) -> None:
        """Carries out the actions that were held."""
        held, self.held = self.held, []
        for issued in held:
            self.send(self.outcome(issued))

    def outcome(self, issued: a.Issued) -> e.Event:
        action = issued.action
        error = self.fault(action)
        if error:
            return e.Failed(issued.id, error)
        if isinstance(action, a.Solve):
            made = self.bundles[action.generation]
            if isinstance(made, str):
                return e.Failed(issued.id, made, 3)
            asked_rps = action.demand_rps["app"]
            served_rps = min(asked_rps, self.carries_rps) if action.may_fall_short else asked_rps
            return e.Solved(issued.id, planned(served_rps, made), made)
        self.done.append(action)
        return e.Done(issued.id)

    def ticks(self, rates_rps: Iterable[float]) -> None:
        """Sends one tick a second with these arrival rates."""
        for rate in rates_rps:
            self.send(e.Tick(self.state.now_s + 1.0, {"app": rate}))

    def arrive(self, rates_rps: Iterable[float], seconds: float = 0.25) -> None:
        """Sends counts of arrivals at these rates."""
        for rate in rates_rps:
            self.clock_s += seconds
            self.send(e.Arrived(self.clock_s, seconds, {"app": rate * seconds}))

    def kinds(self) -> list[str]:
        """Returns the type names of the actions carried out."""
        return [type(action).__name__ for action in self.done]


def deployed(world: World) -> World:
    """Returns the world once its first generation serves."""
    world.send(e.Tick(100.0, {}))
    world.send(e.DeployRequested(wanted()))
    assert world.state.phase is Phase.READY
    return world


def phase(world: World) -> str:
    """Returns the phase, which the type checker takes for constant elsewhere."""
    return world.state.phase.value


ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
TWO = bundle(
    2,
    [
        worker("0/1g@0", ("t0", "a")),
        worker("0/1g@1", ("t1", "a")),
        worker("0/1g@2", ("t1", "a"), generation=2),
    ],
)
