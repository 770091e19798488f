"""Options that all commands share which deploy something, or simulate a deployment."""

from typing import Any

import click

from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.cli.inputs.baselines import baseline
from jigsaw_triton.cli.inputs.options import Decorator, option, together
from jigsaw_triton.console.options import parse_listen
from jigsaw_triton.logs import LOG_FORMATS


class ListenOn(click.ParamType[str]):
    """A port, or an address and a port."""

    name = "listen"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text.

        Raises:
            click.BadParameter: The text is neither.
        """
        try:
            return str(parse_listen(value))
        except ValueError as error:
            self.fail(f"{error}; give 8004 or 0.0.0.0:8004, for example", param, ctx)


def planning() -> Decorator[Any]:
    """Adds the options of the plans that follow the load: what is best, what a change costs, and the forecast."""
    return together(
        options.objective(),
        options.share(),
        options.change_price(),
        options.standby(),
        options.period(),
        options.forecast(),
        baseline(),
    )


def deterministic() -> Decorator[Any]:
    """Adds --deterministic: emulated models draw nothing."""
    return option(
        "--deterministic",
        is_flag=True,
        help="Let emulated models take the profiled median time, and yield even numbers of rows, instead of "
        "random ones.",
    )


def observing(metrics_help: str) -> Decorator[Any]:
    """Adds the options by which other programs observe a deployment: metrics, log and traces.

    Args:
        metrics_help: Help of `--controller-metrics`.
    """
    return together(
        option("--controller-metrics", metavar="[ADDRESS:]PORT", type=ListenOn(), help=metrics_help),
        option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            help="Write the lines of the controller's log in this form.  [default: text]",
        ),
        option(
            "--otlp",
            metavar="ENDPOINT",
            help="Export traces to this OTLP receiver: http://localhost:4318 or grpc://localhost:4317; none to stop.",
        ),
        option(
            "--otlp-sample",
            metavar="SHARE",
            type=option_types.Share(bounds=True),
            help="Export the traces of this share of the requests, if their clients send no traceparent.  [default: "
            "0.01]",
        ),
    )


def yes() -> Decorator[Any]:
    """Adds --yes: nobody is asked."""
    return option(
        "--yes",
        is_flag=True,
        help="Do not ask before a change during which requests will be refused, or for which graphs shed load.",
    )
