"""By what demands can be multiplied before there is no plan for them."""

from collections.abc import Collection
from dataclasses import replace

from jigsaw_triton.errors import JigsawError
from jigsaw_triton.planner.domain.problem import on_floors
from jigsaw_triton.planner.formulation.model import SCALE_GAP
from jigsaw_triton.planner.search.choices import complete, with_room
from jigsaw_triton.planner.search.planning import Planning

_SOMEWHAT = 1.02
"""How much larger than what floors allow for a demand is tried first where the mean accuracy counts."""

_MOST_SCALE = 1e6

_LEAST_SCALE = 1e-3
"""Of demands: where a cluster carries less than that, it has no room for the tasks."""


def largest_scale(planning: Planning, scaled: Collection[str]) -> tuple[float, float]:
    """By what the demands of these graphs can be multiplied at most, and the gap of that.

    Raises:
        InfeasibleError: There is no plan at any scale.
        JigsawError: Nothing was found in time.
    """
    problem, options = planning.problem, planning.options
    candidates = planning.candidates()
    roomy = with_room(problem, candidates, options)
    if complete(roomy):
        near = planning.scale_near(scaled, roomy)
        if not near and planning.has_no_room(scaled, roomy):
            raise planning.infeasible(candidates)
        scale, outcome = planning.largest_scale(scaled, roomy, near, options.time_limit_s)
        if scale > 0:
            return scale, outcome.stages[0].gap
        if outcome.status == "unknown":
            raise planning.out_of_time()
    raise planning.infeasible(candidates)


def largest_scale_by_halving(planning: Planning, scaled: Collection[str]) -> tuple[float, float]:
    """As `largest_scale`, by doubling and halving; see `Planning.by_halving`."""
    low = _scale_of_floors(planning, scaled)
    growth = _SOMEWHAT if low else 2.0
    high = low * growth or 1.0
    while (carries := planning.carries(scaled, high)) and high < _MOST_SCALE:
        low, high, growth = high, high * growth, min(2.0, growth**2)
    unsure = carries is None
    while high - low > SCALE_GAP * high:
        if high < _LEAST_SCALE:
            raise planning.out_of_time() if unsure else planning.infeasible(planning.candidates())
        middle = (low + high) / 2
        carries = planning.carries(scaled, middle)
        unsure = unsure or carries is None
        low, high = (middle, high) if carries else (low, middle)
    return low, (high - low) / low if unsure else 0.0


def _scale_of_floors(planning: Planning, scaled: Collection[str]) -> float:
    """A scale to begin with, of plans that keep the mean accuracy with each request; 0 where none is found soon."""
    if planning.options.share:
        return 0.0
    try:
        scale, _ = largest_scale(replace(planning, problem=on_floors(planning.problem), told=False), scaled)
    except JigsawError:
        return 0.0
    return scale if planning.carries(scaled, scale) else 0.0
