"""Properties of every compiled graph, on random graphs with fan-out, conditions and tensors used twice or never."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph
from jigsaw_triton.compiler.route import route_json
from jigsaw_triton.graph.chain import with_chains
from jigsaw_triton.graph.model import Target, Task, TaskGraph, When
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType
from jigsaw_triton.planner.candidates.chained import chains
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.runtime.chains import members
from jigsaw_triton.runtime.spec import CLOCK_TENSOR, CONDITION_INPUT, TOKEN_OUTPUT
from tests.compiler.samples import compiled, plan, spec_of, spec_text
from tests.fakes.graphs import graph, task, variants
from tests.native.parts import parse_route, parse_spec

TYPES = st.builds(
    TensorType, st.sampled_from(["FP32", "UINT8", "BYTES"]), st.sampled_from([(1,), (4,), (-1, 4), (-1, -1, 3)])
)
TARGETS: tuple[Target, ...] = ("graph", "ensemble", "bls")
COMMON = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def graphs(draw: st.DrawFn) -> TaskGraph:
    """A graph of one to six tasks in which every input is used, and every tensor that no task uses is an output."""
    inputs = {f"IN{i}": draw(TYPES) for i in range(draw(st.integers(1, 2)))}
    known = {TensorRef(GRAPH_INPUTS, name): kind for name, kind in inputs.items()}
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 6))):
        made = _task(draw, f"t{number}", known)
        tasks.append(made)
        rows = made.for_each is not None or made.when is not None
        known |= {TensorRef(made.name, n): t.rows() if rows else t for n, t in made.outputs.items()}
    used = {ref for item in tasks for ref in (*item.inputs.values(), *((item.when.tensor,) if item.when else ()))}
    inputs = {name: kind for name, kind in inputs.items() if TensorRef(GRAPH_INPUTS, name) in used}
    ends = [TensorRef(t.name, n) for t in tasks for n in t.outputs if TensorRef(t.name, n) not in used]
    more = draw(st.lists(st.sampled_from(sorted(used, key=str)), unique=True, max_size=2))
    outputs = {f"OUT{i}": str(ref) for i, ref in enumerate([*ends, *(r for r in more if not r.is_graph_input)])}
    return graph(tasks, outputs or {"OUT": f"{tasks[-1].name}.A"}, inputs=inputs)


def _task(draw: st.DrawFn, name: str, known: Mapping[TensorRef, TensorType]) -> Task:
    refs = sorted(known, key=str)
    picked = draw(st.lists(st.sampled_from(refs), min_size=1, max_size=3))
    iterable = [ref for ref in picked if len(known[ref].shape) > 1 and known[ref].shape[0] == -1]
    over = draw(st.sampled_from([None, *iterable]))
    numbers = [ref for ref in refs if known[ref] in (TensorType("FP32", (1,)), TensorType("UINT8", (1,)))]
    condition = draw(st.sampled_from([None, *numbers]))
    return task(
        name,
        {f"I{i}": str(ref) for i, ref in enumerate(picked)},
        outputs={key: draw(TYPES) for key in "AB"[: draw(st.integers(1, 2))]},
        of=variants(draw(st.integers(1, 2))),
        for_each=None if over is None else str(over),
        when=None if condition is None else When(condition, 0.5, None, 0.5),
    )


@st.composite
def plans(draw: st.DrawFn, of: TaskGraph) -> Plan:
    """A plan in which each task has one to three slices, some shared, or in which one or two slices hold all tasks."""
    if draw(st.booleans()):
        batch = st.sampled_from([1, 2, 8])
        chosen = {name: draw(st.sampled_from(item.variants)).name for name, item in of.tasks.items()}
        together = {
            (0, at, "1g"): [PlacedModel(of.name, task, variant, 1, draw(batch)) for task, variant in chosen.items()]
            for at in range(draw(st.integers(1, 2)))
        }
        return plan([of], together)
    placed: dict[tuple[int, int, str], list[PlacedModel]] = {}
    at = 0
    for item in of.tasks.values():
        for _ in range(draw(st.integers(1, 3))):
            variant = draw(st.sampled_from(item.variants)).name
            model = PlacedModel(of.name, item.name, variant, draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 8])))
            last = placed.get(((at - 1) // 7, (at - 1) % 7, "1g"), [])
            share = draw(st.booleans())
            if share and last and (item.name, variant) not in {(m.task, m.variant) for m in last}:
                last.append(model)
            else:
                placed[(at // 7, at % 7, "1g")] = [model]
                at += 1
    return plan([of], placed)


@st.composite
def cases(draw: st.DrawFn) -> tuple[TaskGraph, Plan]:
    of = draw(graphs())
    return of, draw(plans(of))


def forms(of: TaskGraph, planned: Plan, target: Target) -> Iterator[tuple[TaskGraph, CompiledGraph]]:
    """Yields each form in which the gateway may serve a graph, with the graph of that form."""
    item = compiled(of, planned, target=target).graphs[of.name]
    if item.apart is not None:
        yield of, item.apart
    yield with_chains(of, chains(of, planned)), item


def maps_of(
    config: Any, made: Mapping[str, TensorRef], tasks: Mapping[str, tuple[Task, Any]]
) -> Mapping[str, tuple[TensorRef, Any]]:
    """Checks an ensemble step by step. Returns the graph tensor, data type and dimensions of each ensemble tensor.

    Clocks and tokens count as outputs of the task that makes them.

    Args:
        config: Configuration of the ensemble.
        made: Tensors of the graph for the ensemble's inputs, by name.
        tasks: Task and configuration of each model, by the model's name.
    """
    known = {i.name: (made[i.name], (i.data_type, list(i.dims))) for i in config.input}
    for step in config.ensemble_scheduling.step:
        member, model = tasks[step.model_name]
        wanted = {**member.inputs, **({CONDITION_INPUT: member.when.tensor} if member.when else {})}
        given = {name: known[tensor][0] for name, tensor in step.input_map.items()}
        clock = given.pop(CLOCK_TENSOR, None)
        if any(i.name == CLOCK_TENSOR for i in model.input):
            assert (clock is not None) == bool(member.dependencies())
        if clock is not None:
            assert (clock.task in member.dependencies(), clock.name) == (True, CLOCK_TENSOR)
        assert given == wanted
        assert {i.name: (i.data_type, list(i.dims)) for i in model.input if i.name in step.input_map} == {
            name: known[tensor][1] for name, tensor in step.input_map.items()
        }
        for output in model.output:
            if output.name in step.output_map:
                tensor = step.output_map[output.name]
                assert tensor not in known
                known[tensor] = (TensorRef(member.name, output.name), (output.data_type, list(output.dims)))
    assert {o.name: (o.data_type, list(o.dims)) for o in config.output} == {
        o.name: known[o.name][1] for o in config.output
    }
    return known


@pytest.mark.slow
@COMMON
@given(cases())
def test_an_ensemble_connects_tensors_as_the_graph_does(case: tuple[TaskGraph, Plan]) -> None:
    for of, item in forms(*case, "ensemble"):
        assert item.target == "ensemble"
        config = cfg.of_folder(item.front)
        if item.pipeline is not None:
            (step,) = config.ensemble_scheduling.step
            assert step.model_name == item.pipeline.name
            assert all(
                name == tensor for tensors in (step.input_map, step.output_map) for name, tensor in tensors.items()
            )
            config = cfg.of_folder(item.pipeline)
        tasks = {t.name: (of.tasks[t.task], cfg.of_folder(t.folder)) for t in item.tasks if t.folder is not None}
        known = maps_of(config, {i.name: TensorRef(GRAPH_INPUTS, i.name) for i in config.input}, tasks)
        assert {o.name: known[o.name][0] for o in config.output} == dict(of.outputs)


@COMMON
@given(cases())
def test_a_chain_on_a_worker_connects_tensors_as_the_graph_does(case: tuple[TaskGraph, Plan]) -> None:
    of, planned = case
    whole = with_chains(of, chains(of, planned))
    for worker in compiled(of, planned).workers.values():
        tasks = {m.name: (of.tasks[m.task], cfg.of_folder(m.folder)) for m in worker.models if not m.members}
        for model in worker.models:
            if model.members:
                config, task = cfg.of_folder(model.folder), whole.tasks[model.task]
                outside = {str(ref): ref for name in members(model.task) for ref in of.tasks[name].inputs.values()}
                known = maps_of(config, outside, tasks)
                assert {i.name for i in config.input} == set(task.inputs)
                made = {o.name: known[o.name][0] for o in config.output}
                tokens = {name: made.pop(name) for name in list(made) if name.startswith(TOKEN_OUTPUT)}
                assert {name: str(tensor) for name, tensor in made.items()} == {name: name for name in task.outputs}
                assert list(tokens) == [f"{TOKEN_OUTPUT}.{number}" for number in range(model.tokens)]
                assert [*tokens.values()] == [TensorRef(name, TOKEN_OUTPUT) for name in members(model.task)]
                # Outputs of a chain come from its last task or go to clients.
                assert all(
                    known[name][0] in of.outputs.values()
                    for name in task.outputs
                    if not name.startswith(f"{members(model.task)[-1]}.")
                )


@COMMON
@given(cases(), st.sampled_from(TARGETS))
def test_names_are_unique_and_routes_match_the_models_of_workers(case: tuple[TaskGraph, Plan], target: Target) -> None:
    of, planned = case
    bundle = compiled(of, planned, target=target)
    models = {(w.name, m.name): m for w in bundle.workers.values() for m in w.models}
    assert len(models) == sum(len(w.models) for w in bundle.workers.values())
    routed = set()
    for item in bundle.graphs[of.name].forms:
        gateway = [item.front.name, *(task.name for task in item.tasks)]
        assert len(set(gateway)) == len(gateway)
        specs = {
            task["route"]: task
            for folder in {item.front.name: item.front, **{model.name: model for model in item.models}}.values()
            for task in (spec_of(folder) if "spec" in cfg.of_folder(folder).parameters else {}).get("tasks", ())
        }
        assert specs.keys() == {task.name for task in item.tasks}
        for route in item.tasks:
            spec = specs[route.name]
            assert spec["name"] == route.task
            assert parse_route(route_json(route.route)) == {"entries": len(route.route)}
            for entry in route.route:
                model = models[entry.worker, entry.model]
                routed.add((entry.worker, entry.model))
                assert (model.task, model.batch, model.instances) == (route.task, entry.batch, entry.slots)
                assert entry.variant in spec["variants"]
                assert "1" in entry.service_ms.keys() & entry.deadline_ms.keys()
                config = cfg.of_folder(model.folder)
                assert _shapes(config.input) == {t["name"]: t["shape"] for t in spec["inputs"]}
                wanted = {t["name"]: t["shape"] for t in spec["outputs"]}
                assert wanted.items() <= _shapes(config.output).items()
                names = [o.name for o in config.output if o.name.startswith(TOKEN_OUTPUT)]
                assert len(names) == entry.tokens == len(model.members or (model.name,))
    assert routed == models.keys()


def _shapes(tensors: Any) -> dict[str, list[int]]:
    return {t.name: list(t.dims) for t in tensors}


@COMMON
@given(cases(), st.sampled_from(TARGETS))
def test_the_backend_can_read_every_front(case: tuple[TaskGraph, Plan], target: Target) -> None:
    for _, item in forms(*case, target):
        folders = [item.front, *(task.folder for task in item.tasks if task.folder is not None)]
        fronts = [folder for folder in folders if cfg.of_folder(folder).backend == "jigsaw"]
        assert len(fronts) == (1 if item.target == "graph" else len(item.tasks))
        for front in fronts:
            assert parse_spec(spec_text(front)).get("tasks") == (len(item.tasks) if item.target == "graph" else 1)


@pytest.mark.slow
@COMMON
@given(cases())
def test_compiling_is_deterministic_and_keeps_unchanged_models(case: tuple[TaskGraph, Plan]) -> None:
    of, planned = case
    first = compiled(of, planned)
    assert compiled(of, planned) == first
    second = compiled(of, planned, generation=4, running=first)
    assert second.workers == first.workers
    assert _routes(second.graphs[of.name]) == _routes(first.graphs[of.name])
    whole = with_chains(of, chains(of, planned))
    assert {task.name for task in second.graphs[of.name].tasks} == {f"{of.name}.{name}.g4" for name in whole.tasks}


@pytest.mark.slow
@COMMON
@given(st.data(), cases())
def test_only_changed_models_are_new(data: st.DataObject, case: tuple[TaskGraph, Plan]) -> None:
    of, planned = case
    first = compiled(of, planned)
    second = compiled(of, data.draw(plans(of)), generation=4, running=first)
    before = _placed(first)
    for at, model in _placed(second).items():
        assert model.name.endswith(".g3" if before.get(at) == model else ".g4")
        assert (at in before and before[at].digest == model.digest) == model.name.endswith(".g3")


def _placed(bundle: Bundle) -> dict[tuple[str, str, str], Any]:
    return {(w.name, m.task, m.variant): m for w in bundle.workers.values() for m in w.models}


def _routes(item: CompiledGraph) -> dict[str, Any]:
    """Returns the routes of all tasks without the generations whose requests they serve."""
    return {task.task: tuple(replace(entry, generations=()) for entry in task.route) for task in item.tasks}
