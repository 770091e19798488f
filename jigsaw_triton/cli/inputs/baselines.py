"""Options with which commands plan as other systems do, for comparison."""

from typing import Any

import click

from jigsaw_triton.cli.inputs.options import Decorator, option, together
from jigsaw_triton.planner.domain.features import FEATURES, canonical
from jigsaw_triton.planner.domain.problem import FORMULATIONS, LATENCY_MODEL_OF, LATENCY_MODELS, LatencyModel


def features(letters: str) -> str:
    """Returns features that the user has written, in canonical form.

    Raises:
        InputError: A letter stands for no feature.
    """
    return "" if letters.lower() == "none" else canonical(letters.upper())


def baseline() -> Decorator[Any]:
    """Adds --features, --formulation and --latency-model."""
    return together(
        option(
            "--features",
            metavar="LETTERS",
            default=FEATURES,
            show_default=True,
            callback=lambda _ctx, _param, letters: features(letters),
            help="Features: A accuracy scaling, M MIG slices, P several instances in a slice, S both of them, "
            "T task-graph-informed budgeting; or none.",
        ),
        option(
            "--formulation",
            type=click.Choice(FORMULATIONS),
            default=FORMULATIONS[0],
            show_default=True,
            is_eager=True,  # The default of --latency-model depends on it.
            help="exact optimises over MIG layouts; paper uses ideal packing and greedy placement.",
        ),
        option(
            "--latency-model",
            type=click.Choice(LATENCY_MODELS),
            callback=_default_latency_model,
            help="Latency model: a queueing estimate at the SLO's percentile, or 2 x p95.  "
            "[default: queue; 2p95 in the paper's formulation]",
        ),
    )


def _default_latency_model(ctx: click.Context, _param: click.Parameter, given: LatencyModel | None) -> LatencyModel:
    return given or LATENCY_MODEL_OF[ctx.params.get("formulation", FORMULATIONS[0])]
