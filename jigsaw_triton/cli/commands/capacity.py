"""`jigsaw-triton capacity`: finds the largest demand that a cluster can serve."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import EQUAL_RPS
from jigsaw_triton.api.planning import capacity as find_capacity
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.wanted import make_problem, read_wanted
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.baselines import baseline
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.cli.io.output import Output, figures, listed, write_file
from jigsaw_triton.cli.views.plan import plan_view
from jigsaw_triton.cli.views.processors import processors_words
from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.domain.picture import svg
from jigsaw_triton.planner.domain.plan import Plan, plan_to_text
from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Options
from jigsaw_triton.planner.domain.processors import processor_load
from jigsaw_triton.planner.search.solve import LargestDemand
from jigsaw_triton.spec.words import nearest


@options.command(
    "capacity",
    forms=("table", "json", "svg"),
    examples=(
        "capacity traffic/ --gpus 4xA100-80GB",
        "capacity traffic/ faces/ --cluster cluster.yaml --demand traffic=4,faces=1",
        "capacity traffic/ faces/ --cluster cluster.yaml --demand faces=30 --scale traffic",
    ),
)
@options.graphs()
@options.cluster()
@options.demand(required=False)
@options.option("--scale", metavar="NAME", help="Let only the demand of this graph grow.  [default: all]")
@options.share()
@baseline()
@options.time_limit()
@options.out_file("Write the plan to this file as JSON, for `compile`.")
def command(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    demand: tuple[str, ...],
    scale: str | None,
    share: bool,
    features: str,
    formulation: Formulation,
    latency_model: LatencyModel,
    time_limit: float,
    out_path: Path | None,
) -> None:
    """Find the largest demand that a cluster can serve, and its plan.

    The demands of all graphs grow together, in the proportion of --demand or equally. With --scale the demand of one
    graph grows, and the others stay as they are. If no demand can be served, the command prints the reasons and exits
    with 3.
    """
    mistakes = Mistakes()
    wanted = read_wanted(
        graphs,
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        demand=parse_demand(demand, mistakes),
        default_rps=EQUAL_RPS,
        to_serve=False,
        mistakes=mistakes,
        reporter=out,
        wording=COMMAND_LINE,
    )
    _check_demand(demand, scale, tuple(wanted.graphs))
    growing = tuple(wanted.graphs) if scale is None else (scale,)
    planner_options = Options(
        time_limit_s=time_limit, features=features, formulation=formulation, latency_model=latency_model, share=share
    )
    with out.working("planning"):
        problem = make_problem(wanted)
        found = find_capacity(problem, scale=growing, options=planner_options)
    plan = found.plan
    if out_path is not None:
        write_file(out_path, plan_to_text(plan))
        out.note(f"wrote {out_path}")
    if out.form == "svg":
        out.raw(svg(plan, wanted.cluster.gpus))
    else:
        view = plan_view(plan, dict(wanted.graphs), wanted.cluster, width=out.width)
        data = plan.to_json() | {"largest_rps": dict(found.rps)}
        words = processors_words(processor_load(plan, problem))
        out.result(data, _largest(plan, growing, found.ideal), *view, *words)


def _check_demand(texts: Sequence[str], scale: str | None, names: Sequence[str]) -> None:
    """Checks that each graph has a demand if any has one.

    Raises:
        InputError: A graph has no demand, or the graph of --scale is unknown.
    """
    if scale is not None and scale not in names:
        raise InputError(f"there is no graph '{scale}'", where="--scale", hint=nearest(scale, names, "graphs"))
    given = {item.partition("=")[0].strip() for text in texts for item in text.split(",")}
    missing = [name for name in names if name not in given | {scale}]
    if len(names) > 1 and (texts or scale is not None) and missing:
        raise InputError(
            f"{listed(missing)} {'have' if len(missing) > 1 else 'has'} no demand",
            where="--demand",
            hint=f"add --demand {','.join(f'{name}=RPS' for name in missing)}",
        )


def _largest(plan: Plan, growing: Collection[str], ideal: LargestDemand | None) -> str:
    placed = {name: plan.graphs[name].demand_rps for name in plan.graphs if name in growing}
    if ideal is None:
        return f"at most {_demands(placed)}\n"
    packed = {name: ideal.rps[name] for name in placed}
    return f"at most {_demands(packed)} by ideal packing, {_demands(placed)} after placement\n"


def _demands(rps: Mapping[str, float]) -> str:
    return listed([f"{name} {figures(value, 4)} requests/s" for name, value in rps.items()])
