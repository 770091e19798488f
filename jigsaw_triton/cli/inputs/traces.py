"""Options of the commands that play a trace: arrivals over time, for one graph or several."""

from typing import Any

import click

from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.errors import InputError


def trace() -> options.Decorator[Any]:
    """Adds --trace: CSV files with arrivals."""
    return options.option(
        "--trace",
        "traces",
        metavar="CSV|NAME=CSV",
        multiple=True,
        required=True,
        help="Arrivals over time; with several graphs NAME=CSV, repeated, or one file that they share equally.",
    )


def scale(**attributes: Any) -> options.Decorator[Any]:
    """Adds --scale: a factor of all rates, by default 1.

    Args:
        attributes: Attributes of the option that differ.
    """
    usual = {"default": 1.0, "show_default": True, "help": "Multiply all rates of the trace by this factor."}
    return options.option(
        "--scale", metavar="FACTOR", type=option_types.Number(min=0, min_open=True), **{**usual, **attributes}
    )


def peak(default: float) -> options.Decorator[Any]:
    """Adds --peak: the share of the cluster's capacity that the highest rate of the trace needs.

    Args:
        default: Default of the option.
    """
    return options.option(
        "--peak",
        metavar="SHARE",
        type=option_types.Number(min=0, min_open=True),
        default=default,
        show_default=True,
        help="Scale the trace so that its highest rate needs this share of the cluster's capacity.",
    )


def seed() -> options.Decorator[Any]:
    """Adds --seed: the seed of the random arrivals."""
    return options.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the random arrivals."
    )


def parse_traces(given: tuple[str, ...]) -> str | dict[str, str]:
    """Returns the path of the only trace, or the paths by graph.

    Raises:
        InputError: A trace has no name, or two have the same.
    """
    named = dict(text.split("=", 1) for text in given if "=" in text)
    if not named and len(given) == 1:
        return given[0]
    if len(named) != len(given):
        raise InputError(
            "each trace needs the name of its graph, once",
            where="--trace",
            hint="write --trace NAME=CSV for each graph, or give one file for all",
        )
    return named
