"""What the data plane costs: a chain of two workers behind the gateway against a native ensemble in one tritonserver.

Both sides have the same two models, compiled by the same code, of so little work that what is measured is the way of a
request. perf_analyzer loads them in turn over gRPC, and the ratios are of runs that followed each other.
"""

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import harness, system
from benchmarks.harness import Figure, Tell, figure, spread
from jigsaw_triton.compiler import ensemble
from jigsaw_triton.compiler.bundle import Dispatcher, ModelFolder, WorkerModel
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.evaluation.load import Load, Measured, request_tensors
from jigsaw_triton.evaluation.perf_analyzer import LoadRun
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.problem import Problem
from jigsaw_triton.planner.solve import make_plan
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import Installation, find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

ROUNDS = 5
CLIENTS = (1, 8, 32)
ROWS = 3
BATCH = 64
BOARDS = 2
"""With room for a worker a task."""

RUN_S = 2.5
WARM_UP_S = 1.5

RATE_GOALS = {8: 0.7, 32: 0.85}
P50_ADDED_GOAL_MS = 0.6
ROWS_GOAL = 0.85

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {{name: {name}}}
spec:
  target: {target}
  slo: {{latency_ms: 1000}}
  inputs:
    X: {{dtype: FP32, shape: [16]}}
  outputs: {{Y: second.Y}}
  tasks:
    first:
      inputs: {{X: inputs.X}}
      outputs:
        Y: {{dtype: FP32, shape: [{first}]}}
      variants:
        - {{name: only, accuracy: 1.0, template: python, artifacts: {{model.py: first.py}}{yields}}}
    second:
      inputs: {{X: first.Y}}
      outputs:
        Y: {{dtype: FP32, shape: [{second}]}}
      variants:
        - {{name: only, accuracy: 1.0, template: python, artifacts: {{model.py: second.py}}}}
"""

MODEL = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {{"Y": {expression}}}
"""

TWICE = MODEL.format(expression='inputs["X"] * 2')
ROWS_OF = MODEL.format(expression=f'inputs["X"][:, None].repeat({ROWS}, axis=1)')


@dataclass(frozen=True, slots=True)
class Side:
    """What is loaded.

    Attributes:
        graph: As clients see it.
        url: Of the server that has it.
    """

    graph: TaskGraph
    url: str


def chain(folder: Path, name: str, target: str = "auto") -> TaskGraph:
    """Two stages of 16 floats."""
    document = GRAPH.format(name=name, target=target, first="16", second="16", yields="")
    return system.read_graph(folder / name, document, {"first.py": TWICE, "second.py": TWICE})


def fan_out(folder: Path, name: str, target: str) -> TaskGraph:
    """The first stage makes rows, the second is called for each."""
    document = GRAPH.format(name=name, target=target, first="-1, 16", second="16", yields=f", yields: {{Y: {ROWS}}}")
    document = document.replace("    second:\n", "    second:\n      for_each: first.Y\n")
    return system.read_graph(folder / name, document, {"first.py": ROWS_OF, "second.py": TWICE})


def fixed_rows(folder: Path, name: str) -> TaskGraph:
    """The same as one would write it for a native ensemble: the second stage takes all rows of a request at once."""
    document = GRAPH.format(name=name, target="auto", first=f"{ROWS}, 16", second=f"{ROWS}, 16", yields="")
    return system.read_graph(folder / name, document, {"first.py": ROWS_OF, "second.py": TWICE})


def wanted(graphs: Sequence[TaskGraph], cluster: Cluster) -> Wanted:
    """The graphs with profiles by which one worker does for each task, whatever the load."""
    rows = [system.profile("cpu", task, "only", BATCH, 1.0, 1e6) for task in ("first", "second")]
    by_name = {graph.name: graph for graph in graphs}
    return Wanted(by_name, dict.fromkeys(by_name, 1.0), dict.fromkeys(by_name, ProfileTable(rows)), cluster)


def native(deployment: Wanted, backends: frozenset[str]) -> list[ModelFolder]:
    """The models that workers would get, and in front of them an ensemble that calls them in its own server."""
    workloads = tuple(Workload(graph, 1.0) for graph in deployment.graphs.values())
    plan = make_plan(Problem(workloads, deployment.cluster, deployment.profiles))
    templates = system.templates()
    bundle = compile_plan(
        plan,
        deployment.graphs,
        deployment.cluster,
        deployment.profiles,
        generation=1,
        templates=templates,
        backends=backends,
        identity=Identities(),
    )
    models = [model for worker in bundle.workers.values() for model in worker.models]
    fronts = [_native_front(graph, models, templates["ensemble"]) for graph in deployment.graphs.values()]
    return [*(model.folder for model in models), *fronts]


def _native_front(graph: TaskGraph, models: Sequence[WorkerModel], template: Template) -> ModelFolder:
    of_task = {model.task: model.folder for model in models if model.graph == graph.name}
    direct = [Dispatcher(of_task[task], task, ()) for task in graph.tasks]
    return ensemble.front(graph, ensemble.steps(graph, direct), template, max_batch=BATCH)


Runs = Mapping[tuple[str, int], Sequence[Measured]]
"""(side, clients) -> one measurement a round."""


async def _sides(stack: AsyncExitStack, folder: Path, installation: Installation) -> dict[str, Side]:
    """Both sides, serving; the stack takes them down."""
    behind = {
        "ensemble": chain(folder, "chain", "ensemble"),
        "bls": chain(folder, "chain-bls", "bls"),
        "rows": fan_out(folder, "rows", "ensemble"),
        "rows_bls": fan_out(folder, "rows-bls", "bls"),
    }
    alone = {"native": chain(folder, "native-chain"), "native_rows": fixed_rows(folder, "native-rows")}
    deployment, native_deployment = (
        wanted(tuple(graphs.values()), system.cluster("cpu", BOARDS)) for graphs in (behind, alone)
    )
    gateway = await stack.enter_async_context(system.system(installation))
    await gateway.deploy(deployment)
    ports = native_deployment.cluster.gateway
    server = await stack.enter_async_context(system.lone_server(installation, ports))
    await server.load_gateway(native(native_deployment, installation.backends))
    sides = {name: Side(graph, f"127.0.0.1:{deployment.cluster.gateway.grpc}") for name, graph in behind.items()}
    return sides | {name: Side(graph, f"127.0.0.1:{ports.grpc}") for name, graph in alone.items()}


async def measure(tell: Tell) -> list[Figure]:
    """Brings up both sides, loads them in turn, and compares."""
    installation, analyzer = find_installation(), find_perf_analyzer()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jigsaw-bench-")))
        tell("starting eight workers, their gateway, and the server of the native ensembles")
        sides = await _sides(stack, folder, installation)

        async def load(name: str, clients: int, seconds: float = RUN_S) -> Measured:
            side = sides[name]
            run = LoadRun(analyzer, Load(side.graph.name, "grpc", side.url, clients, duration_s=seconds), folder)
            run.prepare(request_tensors(side.graph)[0])
            return await asyncio.to_thread(run.measure)

        for name in sides:
            await load(name, 8, WARM_UP_S)
        runs: dict[tuple[str, int], list[Measured]] = {}
        for number in range(ROUNDS):
            for clients in CLIENTS:
                tell(f"round {number + 1} of {ROUNDS}: {clients} clients")
                names = ("native", "ensemble", "bls") if clients < CLIENTS[-1] else sides
                for name in names:
                    runs.setdefault((name, clients), []).append(await load(name, clients))
    return figures(runs)


def figures(runs: Runs) -> list[Figure]:
    """What the runs say."""
    native, most = "native ensemble, requests/s", CLIENTS[-1]
    found = [
        _rates(runs, f"dataplane.chain2.rate.{_clients(n)}", ("ensemble", "native"), n, native, RATE_GOALS.get(n))
        for n in CLIENTS
    ]
    found.append(_added_ms(runs))
    rows = f"{ROWS} rows a request; {native}, which takes a request's rows as one fixed tensor"
    name = f"dataplane.fanout{ROWS}.rate.{_clients(most)}"
    found.append(_rates(runs, name, ("rows", "native_rows"), most, rows, ROWS_GOAL))
    for n in CLIENTS:
        name = f"dataplane.bls_over_ensemble.{_clients(n)}"
        found.append(_rates(runs, name, ("bls", "ensemble"), n, "target ensemble, requests/s"))
    name = f"dataplane.bls_over_ensemble.fanout{ROWS}.{_clients(most)}"
    found.append(_rates(runs, name, ("rows_bls", "rows"), most, f"{ROWS} rows a request; target ensemble, requests/s"))
    return found


def _rates(
    runs: Runs, name: str, sides: tuple[str, str], clients: int, baseline: str, at_least: float | None = None
) -> Figure:
    """One side's throughput over another's."""
    ours, theirs = ([run.throughput_rps for run in runs[side, clients]] for side in sides)
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    note = f"median of {len(ratios)} rounds, {spread(ratios)}; {median(ours):.0f} requests/s; baseline: {baseline}"
    return figure(name, median(ratios), "ratio", note, at_least=at_least, baseline=median(theirs))


def _added_ms(runs: Runs) -> Figure:
    ours, theirs = ([run.latency_ms[50] for run in runs[side, 1]] for side in ("ensemble", "native"))
    added = [one - other for one, other in zip(ours, theirs, strict=True)]
    note = f"median of {len(added)} rounds, {spread(added)}; baseline: native ensemble, p50 in ms"
    name = "dataplane.chain2.p50_added_ms.1_client"
    return figure(name, median(added), "ms", note, at_most=P50_ADDED_GOAL_MS, baseline=median(theirs))


def _clients(count: int) -> str:
    return f"{count}_client{'s' if count > 1 else ''}"


if __name__ == "__main__":
    sys.exit(harness.main("dataplane", lambda tell: system.run(measure(tell))))
