"""The measured load: what is noted of it, and which of it calls for another plan. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.adoption import solve
from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.outcome import Outcome, rate
from jigsaw_triton.controller.core.review import due
from jigsaw_triton.controller.core.rows import covered_rps
from jigsaw_triton.controller.core.slowness import judged, sentences, slow_kinds
from jigsaw_triton.controller.core.state import Phase, State


def demand_with(
    state: State, now_s: float, rates_rps: Mapping[str, float], utc_offset_s: float
) -> Mapping[str, Demand]:
    """Returns the demand of each graph with the arrivals of the last second."""
    if state.running is None:
        return state.demand
    graphs, forecast = state.running.wanted.graphs, state.running.wanted.forecast_settings
    demand = {name: state.demand.get(name, Demand()).with_forecast(forecast) for name in graphs}
    for name in graphs.keys() & rates_rps.keys():
        demand[name] = demand[name].with_sample(
            Sample(now_s, rates_rps[name]),
            state.settings,
            base_rps=state.running.wanted.demand_rps[name],
            utc_offset_s=utc_offset_s,
        )
    return demand


def learned(demand: Mapping[str, Demand]) -> dict[str, Demand]:
    """Returns what has been learned of each graph's load, without the recent arrivals."""
    return {name: one.learned() for name, one in demand.items()}


def absorb_times(state: State) -> Outcome:
    """Judges the models by their recent service times."""
    if not state.times and not state.slow and not state.slow_kinds:
        return state, ()
    verdicts = judged(state.times, state.slow, state.settings)
    reports = tuple(a.Report("slow", text) for text in sentences(state.slow, verdicts))
    workers = state.actual.workers
    known = {served: ratio for served, ratio in state.slow.items() if served.worker in workers}
    slow = {served: ratio for served, ratio in {**known, **verdicts}.items() if ratio > 1}
    kinds = slow_kinds(state.slow_kinds, verdicts, workers)
    return replace(state, slow=slow, slow_kinds=kinds), reports


def follow_load(state: State) -> Outcome:
    """Plans again at once if the measured load exceeds the capacity of the running plan, or slices are slow."""
    running = state.running
    if running is None or state.paused or state.now_s < state.quiet_until_s:
        return state, ()
    if any(r > state.settings.slow_over * state.slow_planned.get(k, 1.0) for k, r in state.slow_kinds.items()):
        planned_for = {name: graph.demand_rps for name, graph in running.plan.graphs.items()}
        state, issued = solve(
            state, running.wanted, planned_for, "slices are slower than profiled", may_fall_short=True
        )
        return replace(state, phase=Phase.SOLVING), issued
    changes: dict[str, float] = {}
    loads: list[str] = []
    for name, demand in state.demand.items():
        plan = running.plan.graphs[name]
        covers_rps = covered_rps(running.wanted.graphs[name], plan, state.counts, state.settings)
        change = demand.risen(state.settings, covered_rps=covers_rps)
        if change is not None:
            changes[name] = change
            receives = rate(demand.mean_rps(state.settings.rise_window_s))
            loads.append(f"{name} receives {receives}, planned {rate(plan.demand_rps)}, capacity {rate(covers_rps)}")
    if not changes.keys() - state.overloaded:
        # The only changes are further rises of graphs whose load already exceeds the cluster's capacity.
        return state, ()
    planned_for = {name: graph.demand_rps for name, graph in running.plan.graphs.items()}
    state = replace(state, asked=None)
    reason = f"measured load: {'; '.join(loads)}"
    state, issued = solve(state, running.wanted, {**planned_for, **changes}, reason, may_fall_short=True, first=True)
    return replace(state, phase=Phase.SOLVING), (a.Report("demand", f"{'; '.join(loads)}; planning again"), *issued)


def review(state: State) -> Outcome:
    """Begins a review of the running plan if one is due."""
    demand_rps = due(state)
    if demand_rps is None or state.running is None:
        return state, ()
    return solve(state, state.running.wanted, demand_rps, "review of the plan", may_fall_short=True, review=True)


def replan(state: State, running: Generation) -> Outcome:
    """Plans again for the present demand on other GPUs than before."""
    planned_rps = {name: graph.demand_rps for name, graph in running.plan.graphs.items()}
    demand_rps = {name: max(rps, running.wanted.demand_rps[name]) for name, rps in planned_rps.items()}
    # Planning is tried again after the cooldown until a plan on other GPUs serves.
    state = replace(state, replan_at_s=state.now_s + state.settings.cooldown_s, asked=None)
    state, outputs = solve(state, running.wanted, demand_rps, state.replan, may_fall_short=True)
    return replace(state, phase=Phase.SOLVING), outputs
