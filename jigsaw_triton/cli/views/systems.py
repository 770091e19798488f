"""Shows systems that served the same load beside the figures that the paper's authors report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jigsaw_triton.cli.io.output import View
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.evaluation.replay import PUBLISHED, Contender

_HEADER = ("system", "slices", "of all", "violations", "accuracy")
_PUBLISHED_HEADER = ("published slices", "violations")


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a system that serves.

    Attributes:
        mean_slices: Mean compute slices.
        violation_share: Share of the requests that were not answered on time.
        accuracy: Mean accuracy.
        columns: Texts in the further columns of the table.
        document: Further figures for JSON.
    """

    mean_slices: float
    violation_share: float
    accuracy: float
    columns: tuple[str, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """A system.

    Attributes:
        contender: System.
        figures: Figures of the system; None if it can serve no demand.
        reason: Reason why it can serve none.
    """

    contender: Contender
    figures: Figures | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the system as a JSON document."""
        document: dict[str, Any] = {
            "formulation": self.contender.formulation,
            "features": self.contender.features,
            "reason": self.reason,
        }
        if self.figures is not None:
            document |= {
                "violations": self.figures.violation_share,
                "mean_slices": self.figures.mean_slices,
                "accuracy": self.figures.accuracy,
                **self.figures.document,
            }
        return document


def document(shown: Sequence[Shown], total: int, scale: float) -> dict[str, Any]:
    """Returns systems as a JSON document.

    Args:
        shown: Systems.
        total: Compute slices of the cluster.
        scale: Factor of the trace.
    """
    return {
        "scale": scale,
        "slices_total": total,
        "systems": [one.to_json() for one in shown],
        "published": {
            subset: {"slices": figures.slices, "violations": figures.violations}
            for subset, figures in PUBLISHED.items()
        },
    }


def view(
    shown: Sequence[Shown], total: int, *, title: str, columns: tuple[str, ...] = (), notes: Sequence[str] = ()
) -> Iterator[View]:
    """Yields a table of systems, and the reasons of those that serve nothing.

    Args:
        shown: Systems.
        total: Compute slices of the cluster.
        title: Title of the table.
        columns: Headers of the further columns.
        notes: Sentences below the table.
    """
    header = (*_HEADER, *columns, *_PUBLISHED_HEADER)
    yield Table.of(header, (_row(one, total, len(columns)) for one in shown), title=title)
    yield from (f"{one.contender}: {one.reason}" for one in shown if one.figures is None)
    yield from notes
    yield "published: JigsawServe (arXiv 2603.08797), its own applications on four H100, steady trials"


def _row(one: Shown, total: int, columns: int) -> tuple[str, ...]:
    found = one.figures
    if found is None:
        return (str(one.contender), *["-"] * (len(_HEADER) - 1 + columns), *_published(one.contender))
    return (
        str(one.contender),
        f"{found.mean_slices:.2f}",
        f"{found.mean_slices / total:.1%}",
        f"{found.violation_share:.3%}",
        f"{found.accuracy:.3f}",
        *found.columns,
        *_published(one.contender),
    )


def _published(contender: Contender) -> tuple[str, str]:
    """Returns what the paper's authors report of a system: its slices and its violations."""
    found = PUBLISHED.get(contender.features) if contender.formulation == "paper" else None
    return (found.slices or "-", found.violations) if found is not None else ("-", "-")
