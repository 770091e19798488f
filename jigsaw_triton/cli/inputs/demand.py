"""The demand on the command line."""

import math
from collections.abc import Sequence

from jigsaw_triton.api.files import ONLY_GRAPH, Mistakes
from jigsaw_triton.errors import InputError

FLAG = "--demand"


def parse_demand(texts: Sequence[str], mistakes: Mistakes) -> dict[str, float]:
    """Reads the values of --demand.

    Args:
        texts: `RPS` for the only graph, or `NAME=RPS`, several of them separated by commas.
        mistakes: Collection of mistakes.

    Returns:
        Requests a second by graph; `ONLY_GRAPH` is the only graph.
    """
    demand: dict[str, float] = {}
    for item in (item.strip() for text in texts for item in text.split(",")):
        with mistakes:
            name, _, text = item.rpartition("=")
            try:
                rps = float(text)
            except ValueError:
                rps = math.nan
            if math.isnan(rps):
                hint = "write a number, such as 12 or 0.5"
                raise InputError(f"'{text}' is not a number of requests a second", where=FLAG, hint=hint)
            name = name or ONLY_GRAPH
            if name in demand:
                raise InputError(f"{f'the graph {name}' if name else 'it'} is given twice", where=FLAG, hint="keep one")
            demand[name] = rps
    return demand
