"""Dispatchers: the model at the gateway that joins a task's requests to batches and sends them to workers."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Dispatcher, ModelFolder, RouteEntry
from jigsaw_triton.compiler.slack import Slack
from jigsaw_triton.compiler.templates import CONFIG_FILE, MODEL_FILE, Template
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Task, TaskGraph, TensorRef
from jigsaw_triton.planner.plan import GraphPlan
from jigsaw_triton.runtime.counters import MOST_INSTANCES
from jigsaw_triton.runtime.spec import CONDITION_INPUT, Condition, DispatcherSpec, Mode, TensorSpec

MAX_BATCH = 64
"""Of what clients may send in one request where a graph batches, and of the requests that a dispatcher joins."""

MAX_INSTANCES = MOST_INSTANCES
"""Of a dispatcher; each is a process at the gateway (17 MB)."""

MIN_TIMEOUT_MS = 30_000.0
"""Loading and first executions on a fresh worker may take seconds; nothing is given up sooner than this."""

MIN_USUAL_TIMEOUT_MS, USUAL_TIMEOUT_SERVICES = 5_000.0, 20.0
"""A worker that has answered before is taken for failed after so many times what a batch takes, and no sooner."""

TIMEOUT_SLOS = 10.0
"""Whoever waited for that many times the latency promised, for a worker, gets an error instead of an answer."""


def dispatcher(
    graph: TaskGraph,
    task: Task,
    plan: GraphPlan,
    route: tuple[RouteEntry, ...],
    template: Template,
    *,
    slack: Slack,
    service_ms: float,
    generation: int,
    blaming: bool,
) -> Dispatcher:
    """Compiles the dispatcher of a task.

    Args:
        graph: Of the task.
        task: That it does.
        plan: Of the graph.
        route: At least one entry.
        template: Named `dispatcher`.
        slack: How long requests may wait.
        service_ms: Time that a batch takes, as of `slack.service_ms`.
        generation: In its name.
        blaming: Whether a pipeline calls it, which learns from its messages alone whom a failure blames.

    Raises:
        InputError: A tensor of the task has no place in a configuration.
    """
    where = f"{graph.name}.{task.name}"
    config = cfg.parse(template.config_text, where=f"{template.name}/{CONFIG_FILE}")
    config.name = names.dispatcher(graph.name, task.name, generation)
    config.max_batch_size = max(MAX_BATCH, *(entry.batch for entry in route))
    inputs = {name: graph.type_of(ref) for name, ref in consumed(task, where=where).items()}
    outputs = {name: graph.type_of(TensorRef(task.name, name)) for name in task.makes}
    cfg.set_tensors(config, inputs, outputs, ragged=True)
    cfg.set_instances(config, min(MAX_INSTANCES, sum(entry.slots for entry in route)))
    full = _preferred(mode(graph, task), task.name, plan, route, config.max_batch_size)
    _set_queue(config, full)
    cfg.set_spec(config, replace(_spec(graph, task, slack, service_ms, full), blaming=blaming))
    files: dict[str, bytes] = {CONFIG_FILE: cfg.render(config)}
    if template.model_py is not None:
        files[f"{cfg.VERSION}/{MODEL_FILE}"] = template.model_py
    return Dispatcher(ModelFolder(config.name, files), task.name, route)


def consumed(task: Task, *, where: str) -> dict[str, TensorRef]:
    """Inputs of a task's dispatcher: the task's own, and what its condition looks at.

    Raises:
        InputError: An input has the name that the condition's goes by.
    """
    if task.when is None:
        return dict(task.inputs)
    if CONDITION_INPUT in task.inputs:
        raise InputError(f"no input may be named {CONDITION_INPUT}", where=where, hint="rename it")
    return {**task.inputs, CONDITION_INPUT: task.when.tensor}


def mode(graph: TaskGraph, task: Task) -> Mode:
    """How its batches are made; see `runtime.spec.Mode`."""
    if task.for_each is not None or task.when is not None:
        return "rows"
    types = [*(graph.input_type(task, name) for name in task.inputs), *task.outputs.values()]
    return "items" if any(cfg.varies(tensor) for tensor in types) else "stack"


def one_by_one(graph: TaskGraph, task: Task) -> bool:
    """Whether each of its items goes to a worker in a request of its own, as `runtime.spec.DispatcherSpec` has it."""
    return mode(graph, task) == "items" or bool(_yields(graph, task))


def _yields(graph: TaskGraph, task: Task) -> tuple[str, ...]:
    return tuple(name for name in task.outputs if graph.makes_rows(TensorRef(task.name, name)))


def timeout_ms(graph: TaskGraph) -> float:
    """After which a request is given up."""
    return max(MIN_TIMEOUT_MS, TIMEOUT_SLOS * graph.slo.latency_ms)


def call_timeout_ms(graph: TaskGraph) -> float:
    """After which what has not answered a call counts as failed."""
    return max(MIN_TIMEOUT_MS, graph.slo.latency_ms)


def _spec(graph: TaskGraph, task: Task, slack: Slack, service_ms: float, full: int) -> DispatcherSpec:
    longest_ms = call_timeout_ms(graph)
    usual_timeout_ms = max(MIN_USUAL_TIMEOUT_MS, USUAL_TIMEOUT_SERVICES * service_ms)
    calls = {name: graph.input_type(task, name) for name in task.inputs}
    return DispatcherSpec(
        graph=graph.name,
        task=task.name,
        mode=mode(graph, task),
        inputs=tuple(
            TensorSpec(name, call.dtype, call.shape, iterated=graph.iterated(task, task.inputs[name]))
            for name, call in calls.items()
        ),
        outputs=tuple(TensorSpec(name, call.dtype, call.shape) for name, call in task.outputs.items()),
        condition=Condition(task.when.above, task.when.below) if task.when is not None else None,
        call_timeout_ms=math.ceil(longest_ms),
        usual_timeout_ms=math.ceil(min(usual_timeout_ms, longest_ms)),
        wait_timeout_ms=math.ceil(timeout_ms(graph)),
        slack_ms=slack.all_ms,
        slo_ms=graph.slo.latency_ms,
        share_ms=slack.share_ms,
        full=full,
        variants=tuple(variant.name for variant in task.variants),
        yields=_yields(graph, task),
        counts=dict(task.counts),
    )


def _preferred(mode: Mode, task: str, plan: GraphPlan, route: Sequence[RouteEntry], most: int) -> int:
    """How many requests an instance is to take at a time.

    Where a request is one call, what the largest worker takes in one batch: more would only wait behind it. Where a
    request is some rows, what fills every slot once: the more rows there are, the fuller are the batches cut of them.
    """
    if mode != "rows":
        return max(entry.batch for entry in route)
    rows_per_request = plan.tasks[task].rate_rps / plan.demand_rps if plan.demand_rps > 0 else 0.0
    round_rows = sum(entry.batch * entry.slots for entry in route)
    if rows_per_request <= 0:
        return most
    return max(1, min(most, int(round_rows / rows_per_request)))


def _set_queue(config: ModelConfig, preferred: int) -> None:
    """No delay: batches form while all instances are busy.

    And no queue policy: with one, Triton 24.10 lets requests wait for up to half a second beside an idle instance
    (docs/adr/0007). What comes too late is refused by the dispatcher itself (`runtime.backlog`).
    """
    batching = config.dynamic_batching
    batching.ClearField("default_queue_policy")
    batching.ClearField("preferred_batch_size")
    batching.preferred_batch_size.append(preferred)
