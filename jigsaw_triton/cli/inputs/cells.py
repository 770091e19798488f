"""The number of cells on the command line."""

from typing import Any

import click

from jigsaw_triton.cli.inputs.options import Decorator, option


class CellCount(click.ParamType[int]):
    """A number of cells; `auto` is 0."""

    name = "cells"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the number.

        Raises:
            click.BadParameter: The value is not a number of cells.
        """
        if value == "auto":
            return 0
        try:
            count = int(value)
        except ValueError:
            count = -1
        if count < (0 if isinstance(value, int) else 1):
            self.fail(f"{value!r} is not a number of cells; give auto or a number from 1", param, ctx)
        return count


def cells() -> Decorator[Any]:
    """Adds --cells: the number of cells, 0 for the planner's choice; None for a plan without cells."""
    return option(
        "--cells",
        metavar="auto|N",
        type=CellCount(),
        help="Divide the nodes of cluster.yaml into this number of cells, each with a gateway of its own; auto chooses "
        "the fewest whose gateways carry the demand.  [default: one pool, with one gateway]",
    )
