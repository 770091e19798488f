"""Processors that the slices of this machine share, in words."""

from collections.abc import Iterator

from jigsaw_triton.cli.io.output import figures, listed
from jigsaw_triton.planner.domain.processors import ProcessorLoad


def processors_words(load: ProcessorLoad | None) -> Iterator[str]:
    """Yields a line about the processors that slices share; nothing for a plan on GPUs."""
    if load is not None:
        carried = listed([f"{name} {figures(rps, 4)} requests/s" for name, rps in load.carried_rps.items()])
        where, busiest = ("of each node ", " on the busiest node") if len(load.busy_by_node) > 1 else ("", "")
        yield (
            f"the slices {where}share {load.processors:g} processors, of which the plan keeps {figures(load.busy)} "
            f"busy{busiest}; together they carry at most {carried}"
        )
