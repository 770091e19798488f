"""Sources of the profiles that a plan rests on, in words and as a document."""

from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any, get_args

from jigsaw_triton.cli.io.output import listed
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable, Source


def sources_document(plan: Plan, tables: Mapping[str, ProfileTable]) -> dict[str, Any]:
    """Returns the number of profiles in use by source, and the stated error of those that state one."""
    rows = _used(plan, tables)
    errors = [row.error for row in rows if row.error is not None]
    counts = Counter(row.source for row in rows)
    return {
        **{source: counts[source] for source in get_args(Source)},
        "error": {"median": median(errors), "largest": max(errors)} if errors else None,
    }


def sources_words(plan: Plan, tables: Mapping[str, ProfileTable]) -> Iterator[str]:
    """Yields a line about the sources of the profiles in use, unless all of them were measured."""
    found = sources_document(plan, tables)
    counts = {source: found[source] for source in get_args(Source) if found[source]}
    if not counts or set(counts) == {"measured"}:
        return
    error = found["error"]
    stated = f"; median of the stated errors {error['median']:.1%}, largest {error['largest']:.1%}" if error else ""
    parts = listed([f"{count} {source}" for source, count in counts.items()])
    yield f"profiles in use: {parts}{stated}"


def _used(plan: Plan, tables: Mapping[str, ProfileTable]) -> list[ProfileRow]:
    """Returns the rows of the configurations that the plan places, each once."""
    keys = {
        (
            model.graph,
            ProfileKey(gpu.model, model.task, model.variant, placed.placement.slice, model.instances, model.batch),
        )
        for gpu in plan.gpus
        for placed in gpu.layout
        for model in placed.models
    }
    found = (tables[graph].get(key) for graph, key in sorted(keys) if graph in tables)
    return [row for row in found if row is not None]
