"""Draws the change from a running plan to the next: the steps of the planner, with the stages of the controller."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from xml.etree.ElementTree import Element

from docs.pictures.boards import PIECE, large, plan_strips
from docs.pictures.canvas import INNER, INSET, LINE, document, legend, words
from docs.pictures.plans import ROOT, Example
from jigsaw_triton.api.wanted import read_wanted
from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.gpus.board import colours
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan, PlannedGpu
from jigsaw_triton.planner.transition.transition import Step, transition
from jigsaw_triton.report.numbers import number
from jigsaw_triton.resources import templates_dir

_BACKENDS = frozenset({"jigsaw", "python"})

Layouts = Mapping[GpuId, Mapping[Placement, PlacedSlice]]


def stages(example: Example, before: Plan, after: Plan) -> tuple[Stage, ...]:
    """Returns the stages in which the controller changes from one plan to another."""
    app = ROOT / "ensembles" / example.app
    wanted = read_wanted([app], gpus=example.gpus, driver="emulated", demand={"": example.demand_rps}, to_serve=False)
    old = Generation(wanted, before, _bundle(wanted, before, 1))
    new = Generation(wanted, after, _bundle(wanted, after, 2, running=old.bundle))
    exists = Actual()
    for stage in stages_to(exists, None, old):
        for action in stage.actions:
            exists = exists.after(action)
    return stages_to(exists, old, new)


def _bundle(wanted: Wanted, plan: Plan, generation: int, running: Bundle | None = None) -> Bundle:
    return compile_plan(
        plan,
        wanted.graphs,
        wanted.cluster,
        wanted.profiles,
        generation=generation,
        templates=load_templates(templates_dir()),
        backends=_BACKENDS,
        identity=str,
        running=running,
    )


def change(example: Example, before: Plan, after: Plan) -> str:
    """Draws the change: the GPUs before, and each step with its stages, its GPUs afterwards, and the capacity."""
    planned = transition(example.problem(), after, example.options)
    steps = planned.steps
    found = stages(example, before, after)
    (name,) = after.graphs
    strips = [*plan_strips(before), *plan_strips(after)]
    palette = colours(strips)
    layouts: dict[GpuId, dict[Placement, PlacedSlice]] = {
        gpu.id: {placed.placement: placed for placed in gpu.layout} for gpu in before.gpus
    }
    models = {gpu.id: gpu.model for gpu in (*before.gpus, *after.gpus)}
    content: list[Element] = [
        words(f"before: capacity {number(before.graphs[name].capacity_rps)} requests/s", INSET, INSET + 12, "t bold")
    ]
    y: float = INSET + 20
    y = _boards(content, _shown(before, layouts, models, models), palette, y)
    for index, step in enumerate(steps, 1):
        content += [
            words(f"{index}. {_KINDS[step.kind]}", INSET, y + 12, "t bold"),
            words(_figures(step, name), INSET + INNER, y + 12, "t end"),
        ]
        y += 20
        for title in _titles(found, index):
            content.append(words(title, INSET + 10, y + 11, "s"))
            y += 16
        _apply(step, layouts, after)
        touched = sorted({one.gpu for one in step.changes})
        marked = {(one.gpu, one.placement) for one in step.changes if one.kind != "remove"}
        y = _boards(content, _shown(before, layouts, models, touched), palette, y + 2, marked)
    content += legend(palette, y + 8)
    return document(f"{len(steps)} steps of a change, about {number(planned.seconds)} s", y + 20 + INSET, *content)


_KINDS = {
    "shares": "switch requests",
    "instances": "change instances",
    "variant": "change models",
    "geometry": "replace slices",
    "add": "add slices",
    "remove": "remove slices",
}


def _figures(step: Step, graph: str) -> str:
    """Returns the duration of a step, and the capacity during and after it."""
    during, after = (number(rps[graph]) for rps in (step.during_rps, step.after_rps))
    return f"{number(step.seconds)} s, capacity {during}, then {after}"


def _titles(found: Iterable[Stage], step: int) -> list[str]:
    return [stage.title for stage in found if stage.step == step]


def _apply(step: Step, layouts: dict[GpuId, dict[Placement, PlacedSlice]], after: Plan) -> None:
    """Changes the layouts as a step does."""
    wanted = {(gpu.id, placed.placement): placed for gpu in after.gpus for placed in gpu.layout}
    for one in step.changes:
        of_gpu = layouts.setdefault(one.gpu, {})
        if one.kind == "remove":
            del of_gpu[one.placement]
        else:
            of_gpu[one.placement] = replace(
                wanted.get((one.gpu, one.placement), PlacedSlice(one.placement, ())), models=one.after
            )


def _shown(plan: Plan, layouts: Layouts, models: Mapping[GpuId, str], of: Iterable[GpuId]) -> Plan:
    """Returns a plan with the GPUs to draw."""
    gpus = tuple(PlannedGpu(gpu, models[gpu], tuple(layouts.get(gpu, {}).values())) for gpu in sorted(of))
    return replace(plan, gpus=gpus)


def _boards(
    content: list[Element],
    plan: Plan,
    palette: Mapping[str, str],
    y: float,
    marked: Iterable[tuple[GpuId, Placement]] = (),
) -> float:
    """Draws the GPUs of a plan. Returns the place below them."""
    marks = set(marked)
    for strip, gpu in zip(plan_strips(plan), plan.gpus, strict=True):
        content += large(strip, palette, y, {placement for on, placement in marks if on == gpu.id})
        y += LINE + PIECE + 12
    return y
