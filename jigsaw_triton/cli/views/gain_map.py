"""Shows graphs on the map of what spatial partitioning gains."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jigsaw_triton.cli.io.output import View
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.evaluation.ablation import PUBLISHED_GAIN, SpatialGain
from jigsaw_triton.evaluation.gain_map import Estimate
from jigsaw_triton.gpus.model import Board

_HEADER = ("graph", "launch share", "SLO", "batch", "as one model", "by task", "solved", "error")
_TASK_HEADER = ("task", "variant", "with S", "GPU time", "gain")


@dataclass(frozen=True, slots=True)
class OnMap:
    """A graph on the map.

    Attributes:
        estimate: Estimate.
        as_one_model: Gain of a model with the traits of the graph.
        solved: Gain as solved; None if the cluster can serve no demand without S.
    """

    estimate: Estimate
    as_one_model: float | None
    solved: SpatialGain | None

    @property
    def error(self) -> float | None:
        """Relative error of the estimate; None if nothing was solved."""
        return None if self.solved is None else self.estimate.gain / self.solved.gain - 1

    def to_json(self) -> dict[str, Any]:
        """Returns the graph as a JSON document."""
        return {
            "graph": self.estimate.graph,
            **asdict(self.estimate.traits),
            "as_one_model": self.as_one_model,
            "estimated": self.estimate.gain,
            "solved": None if self.solved is None else self.solved.gain,
            "proven": None if self.solved is None else self.solved.proven,
            "tasks": [asdict(task) for task in self.estimate.tasks],
        }


def document(shown: Sequence[OnMap], board: Board) -> dict[str, Any]:
    """Returns graphs on the map as a JSON document."""
    return {"gpu": board.name, "graphs": [one.to_json() for one in shown], "published": PUBLISHED_GAIN}


def view(shown: Sequence[OnMap], board: Board) -> Iterator[View]:
    """Yields what S gains on each task, and the gain of each graph as estimated and as solved."""
    for one in shown:
        rows = (
            (task.task, task.variant, task.variant_with_s, f"{task.weight:.0%}", f"{task.gain:.2f}")
            for task in one.estimate.tasks
        )
        yield Table.of(
            _TASK_HEADER, rows, title=f"{one.estimate.graph}: GPU time without S, and what S gains on each task"
        )
        yield ""
    yield Table.of(_HEADER, map(_row, shown), title=f"largest demand of A+S+T over that of A+T on {board.name}")
    yield f"published: {PUBLISHED_GAIN:g}, JigsawServe (arXiv 2603.08797), its own applications on 120 GPUs"
    if any(one.solved is not None and not one.solved.proven for one in shown):
        yield "~ not proven"


def _row(one: OnMap) -> tuple[str, ...]:
    traits = one.estimate.traits
    solved = "-" if one.solved is None else f"{one.solved.gain:.2f}" + ("" if one.solved.proven else "~")
    return (
        one.estimate.graph,
        f"{traits.launch_share:.2f}",
        f"{traits.tightness:.1f}",
        str(traits.largest_batch),
        "-" if one.as_one_model is None else f"{one.as_one_model:.2f}",
        f"{one.estimate.gain:.2f}",
        solved,
        "-" if one.error is None else f"{one.error:+.1%}",
    )
