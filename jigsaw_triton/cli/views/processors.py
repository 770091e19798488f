"""Processors that the slices of this machine share, in words and as a document."""

from collections.abc import Iterator
from typing import Any

from jigsaw_triton.cli.io.output import figures, listed
from jigsaw_triton.planner.domain.processors import ProcessorLoad


def processors_document(load: ProcessorLoad | None) -> dict[str, Any]:
    """Returns the entry `processors` of a plan's document; nothing for a plan on GPUs."""
    if load is None:
        return {}
    return {
        "processors": {
            "available": load.processors,
            "busy": load.busy,
            "carried_rps": dict(load.carried_rps),
        }
    }


def processors_words(load: ProcessorLoad | None) -> Iterator[str]:
    """Yields a line about the processors that slices share; nothing for a plan on GPUs."""
    if load is not None:
        carried = listed([f"{name} {figures(rps, 4)} requests/s" for name, rps in load.carried_rps.items()])
        yield (
            f"the slices share {load.processors:g} processors, of which the plan keeps {figures(load.busy)} busy; "
            f"together they carry at most {carried}"
        )
