"""`jigsaw-triton plan`: chooses variants, slices and GPUs for a demand."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.controller import surveyed_with_foreign
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import Mistakes, load_plan, load_plan_or_partition
from jigsaw_triton.api.machine import Driver, surveyed, uncut_gpus
from jigsaw_triton.api.planning import divide, make_diagnosed_plan
from jigsaw_triton.api.planning import explain as explain_plan
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.wanted import make_problem, read_wanted
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.baselines import baseline
from jigsaw_triton.cli.inputs.cells import cells
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.cli.io.output import Output, View, write_file
from jigsaw_triton.cli.views.cells import alternatives_view, cell_strips, partition_view
from jigsaw_triton.cli.views.explanation import explanation_view
from jigsaw_triton.cli.views.plan import errors_of_products, plan_view
from jigsaw_triton.cli.views.processors import processors_words
from jigsaw_triton.cli.views.profiles import sources_document, sources_words
from jigsaw_triton.cli.views.transition import totals_document, totals_words, transition_view
from jigsaw_triton.console.reports.plan import plan_page
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.board import draw_svg
from jigsaw_triton.planner.cells.model import Partition, partition_to_text
from jigsaw_triton.planner.cells.partition import Alternative
from jigsaw_triton.planner.domain.picture import svg
from jigsaw_triton.planner.domain.plan import Plan, plan_to_text
from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Objective, Options, Problem, StandbyMode
from jigsaw_triton.planner.domain.processors import processor_load
from jigsaw_triton.planner.transition.transition import check_room, transition

Section = tuple[dict[str, Any], list[View]]
"""A part of the result: entries of the document for `-o json`, and what people see."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A plan of one pool, with the input of the planner.

    Attributes:
        plan: The plan.
        wanted: Graphs, demand and cluster.
        problem: Problem that the plan solves.
        options: Options of the planner.
        before: Running plan, or running plans of cells; None if there is none.
        partition: The plan as the only cell, if the cluster was to be divided into cells; None otherwise.
        alternatives: Other numbers of cells, if they were asked for.
    """

    plan: Plan
    wanted: Wanted
    problem: Problem
    options: Options
    before: Plan | Partition | None
    partition: Partition | None
    alternatives: tuple[Alternative, ...]


@options.command(
    "plan",
    forms=("table", "json", "svg", "html"),
    examples=(
        "plan traffic/ --gpus 4xA100-80GB --demand 120",
        "plan traffic/ faces/ --cluster cluster.yaml --demand traffic=120,faces=30 -O plan.json",
        "plan traffic/ --gpus 4xA100-80GB --demand 120 -o svg > plan.svg",
        "plan traffic/ faces/ --gpus 1xA100-80GB --demand traffic=1,faces=1 --share",
        "plan traffic/ --gpus 4xA100-80GB --demand 120 --explain",
        "plan traffic/ --cluster cluster.yaml --demand 5000 --cells auto",
        "plan traffic/ --gpus 4xA100-80GB --demand 150 --diff",
        "plan traffic/ --gpus 4xA100-80GB --demand 150 --from plan.json --diff",
        "plan traffic/ --gpus 4xA100-80GB --demand 150 --from plan.json --change-price 0.5",
    ),
)
@options.graphs()
@options.cluster()
@cells()
@options.demand()
@options.objective()
@options.share()
@baseline()
@options.time_limit()
@options.gap()
@options.option(
    "--explain", is_flag=True, help="Explain what each requirement costs, and what the next best choices would cost."
)
@options.option("--diff", is_flag=True, help="Show the steps from the running plan to this one.")
@options.option(
    "--from",
    "running",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Running plan: among equally good plans, choose the one that keeps most of it.  [default: with --diff, the "
    "deployment's]",
)
@options.change_price()
@options.standby()
@options.state()
@options.out_file("Write the plan to this file as JSON, for `compile`.")
def command(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    cells: int | None,
    demand: tuple[str, ...],
    objective: Objective,
    share: bool,
    features: str,
    formulation: Formulation,
    latency_model: LatencyModel,
    time_limit: float,
    gap: float,
    explain: bool,
    diff: bool,
    running: Path | None,
    change_price: float,
    standby: StandbyMode,
    state: Path | None,
    out_path: Path | None,
) -> None:
    """Choose variants, slices and GPUs for a demand.

    The plan uses the fewest compute slices that meet the latency and accuracy of each graph at the demand, then the
    fewest GPUs, then has the highest accuracy. With --objective accuracy it has the highest accuracy that the GPUs
    carry, then the fewest slices. On GPUs of several models, slices and GPUs count by their cost. If there is no plan,
    the command prints the reasons and exits with 3. --explain adds what each requirement costs, and what the next best
    of each choice would cost. --diff adds the steps from the running plan to this one, and the capacity meanwhile. With
    --change-price a running instance is only changed if the change saves more slices than its price. --cells divides
    the nodes of a cluster into cells, each with a gateway and a plan of its own; then --explain adds what other numbers
    of cells would cost.
    """
    planner_options = Options(
        time_limit_s=time_limit,
        gap=gap,
        features=features,
        formulation=formulation,
        latency_model=latency_model,
        share=share,
        change_price=change_price,
        objective=objective,
        standby=standby,
    )
    _check_flags(out.form, planner_options, explain=explain, diff=diff, running=running is not None, cells=cells)
    mistakes = Mistakes()
    wanted = read_wanted(
        graphs,
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        demand=parse_demand(demand, mistakes),
        to_serve=False,
        mistakes=mistakes,
        reporter=out,
        wording=COMMAND_LINE,
    )
    if cells is not None and gpus is not None:
        raise InputError(
            "--gpus is one machine, and cells need several", where="--cells", hint="list nodes in a --cluster"
        )
    before = None if running is None else load_plan(running) if cells is None else load_plan_or_partition(running)
    if diff and before is None:
        deployment = Deployment(state)
        before = deployment.plan()
        wanted = replace(wanted, cluster=surveyed_with_foreign(deployment.paths, wanted.cluster))
    for sentence in uncut_gpus(wanted.cluster if diff else surveyed(wanted.cluster)):
        out.warn(sentence)
    problem = make_problem(wanted, running=before if isinstance(before, Plan) else None)
    partition: Partition | None = None
    alternatives: tuple[Alternative, ...] = ()
    with out.working("planning") as report:
        if cells is None:
            plan = make_diagnosed_plan(problem, planner_options, report)
        else:
            partition, alternatives = divide(
                problem, planner_options, cells or None, running=before, explain=explain, progress=report
            )
            plan = partition.cells[0].plan
    if partition is not None and len(partition.cells) > 1:
        _print_partition(out, partition, alternatives, wanted, out_path)
        return
    made = _Made(plan, wanted, problem, planner_options, before, partition, alternatives)
    _print_plan(out, made, out_path, explain=explain, diff=diff)


def _check_flags(form: str, given: Options, *, explain: bool, diff: bool, running: bool, cells: int | None) -> None:
    """Checks that the flags do not exclude each other.

    Raises:
        UsageError: Two flags exclude each other.
    """
    if form in ("svg", "html") and (explain or diff):
        flag = "--explain" if explain else "--diff"
        raise click.UsageError(f"-o {form} draws only the plan; leave out {flag}.")
    if given.change_price and given.objective == "slices" and not (running or diff):
        raise click.UsageError("--change-price needs a running plan; add --from or --diff.")
    if given.change_price and explain:
        raise click.UsageError("--explain cannot be used with --change-price; leave one of them out.")
    if given.objective != "slices" and explain:
        raise click.UsageError("--explain compares slices; leave it or --objective accuracy out.")
    if cells is not None and (diff or given.change_price):
        flag = "--diff" if diff else "--change-price"
        raise click.UsageError(f"{flag} is for a plan of one pool; leave it or --cells out.")


def _print_plan(out: Output, made: _Made, out_path: Path | None, *, explain: bool, diff: bool) -> None:
    """Prints a plan of one pool, and writes it to a file if there is a path."""
    plan, wanted = made.plan, made.wanted
    if out_path is not None:
        write_file(out_path, plan_to_text(plan))
        out.note(f"wrote {out_path}")
    if out.form in ("svg", "html"):
        out.raw(svg(plan, wanted.cluster.gpus) if out.form == "svg" else plan_page(plan, wanted.graphs, wanted.cluster))
        return
    sections = [_plan_section(made, out.width)]
    if made.partition is not None:
        use = made.partition.cells[0].gateway.described(wanted.cluster.gateway_limits)
        sections.append(({}, [f"one cell: its gateway is asked for {use}"]))
    if explain:
        with out.working("comparing with other plans"):
            sections.append(_explanation_section(made))
    if made.partition is not None and made.alternatives:
        sections.append(_alternatives_section(made.partition, made.alternatives))
    if diff:
        sections.append(_transition_section(made))
    _print_sections(out, sections)


def _plan_section(made: _Made, width: int) -> Section:
    plan, wanted = made.plan, made.wanted
    document, view = plan.to_json(), [*plan_view(plan, dict(wanted.graphs), wanted.cluster, width=width)]
    measured = {name: errors_of_products(plan, graph) for name, graph in wanted.graphs.items() if graph.combinations}
    if measured:
        document["accuracies"] = {
            name: [asdict(error) | {"error_points": error.points} for error in errors]
            for name, errors in measured.items()
        }
    view += sources_words(plan, wanted.profiles)
    view += processors_words(processor_load(plan, made.problem))
    return document, view


def _explanation_section(made: _Made) -> Section:
    explanation = explain_plan(made.plan, made.problem, options=made.options)
    document = explanation.to_json() | {"profiles": sources_document(made.plan, made.wanted.profiles)}
    return {"explanation": document}, ["", *explanation_view(explanation)]


def _alternatives_section(partition: Partition, alternatives: Sequence[Alternative]) -> Section:
    document = {"alternatives": [asdict(alternative) for alternative in alternatives]}
    return document, ["", *alternatives_view(partition, alternatives)]


def _transition_section(made: _Made) -> Section:
    """Returns the way to a plan from the one that runs.

    Raises:
        InputError: A GPU cannot hold the instances of a plan beside those of others.
    """
    check_room(made.problem, made.plan)
    steps = transition(made.problem, made.plan, made.options)
    ran = made.before if isinstance(made.before, Plan) else None
    cost = made.problem.cost_of(ran.gpus) if ran is not None else None
    document = {"transition": steps.to_json() | totals_document(ran, cost)}
    return document, [*transition_view(steps, made.plan), *totals_words(ran, cost, made.plan)]


def _print_sections(out: Output, sections: Sequence[Section]) -> None:
    document = {key: value for part, _ in sections for key, value in part.items()}
    out.result(document, *(view for _, views in sections for view in views))


def _print_partition(
    out: Output,
    partition: Partition,
    alternatives: tuple[Alternative, ...],
    wanted: Wanted,
    out_path: Path | None,
) -> None:
    """Prints a partition into several cells, and writes it to a file if there is a path.

    Raises:
        InputError: The partition was asked for as HTML, which shows one plan.
    """
    if out.form == "html":
        hint = "print them with -o svg, -o table or -o json"
        raise InputError(f"-o html shows one plan, not {len(partition.cells)} cells", where="--cells", hint=hint)
    if out_path is not None:
        write_file(out_path, partition_to_text(partition))
        out.note(f"wrote {out_path}")
    if out.form == "svg":
        out.raw(draw_svg(cell_strips(partition, wanted.cluster)))
        return
    view = partition_view(partition, dict(wanted.graphs), wanted.cluster, width=out.width)
    sources = sources_words(replace(partition.cells[0].plan, gpus=partition.gpus), wanted.profiles)
    sections: list[Section] = [(partition.to_json(), [*view, *sources])]
    if alternatives:
        sections.append(_alternatives_section(partition, alternatives))
    _print_sections(out, sections)
