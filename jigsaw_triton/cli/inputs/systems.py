"""The option --system of commands that compare planners, and their progress."""

from collections.abc import Callable
from typing import Any

from jigsaw_triton.cli.inputs.baselines import features
from jigsaw_triton.cli.inputs.options import Decorator, option
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.ablation import PAPER_SUBSETS
from jigsaw_triton.evaluation.replay import OURS, Contender
from jigsaw_triton.planner.domain.problem import FORMULATIONS

_DEFAULT = (OURS, *(Contender("paper", subset) for subset in reversed(PAPER_SUBSETS)))


def system() -> Decorator[Any]:
    """Adds --system: the systems to compare."""
    return option(
        "--system",
        "systems",
        metavar="FORMULATION:FEATURES",
        multiple=True,
        help="Simulate this system: exact or paper, with features such as AST, or none.  "
        "[default: exact:AST, and paper with every subset of A, S and T]",
    )


def parse_systems(given: tuple[str, ...]) -> tuple[Contender, ...]:
    """Returns the systems that the user names, or the default ones.

    Raises:
        InputError: A text names no system.
    """
    return tuple(map(_contender, given)) or _DEFAULT


def _contender(text: str) -> Contender:
    name, _, letters = text.partition(":")
    for formulation in FORMULATIONS:
        if name == formulation and letters:
            return Contender(formulation, features(letters))
    raise InputError(
        f"{text!r} is no system",
        where="--system",
        hint="write exact or paper, a colon, and letters of features or none; for example paper:AS",
    )


class Parts:
    """Reports each tenth of what a system has to do, once.

    Args:
        report: Function that receives a line of progress.
    """

    def __init__(self, report: Callable[[str], object]) -> None:
        self._report = report
        self._shown: set[tuple[Contender, int]] = set()

    def __call__(self, contender: Contender, part: float) -> None:
        """Reports the share that is done, if it is another tenth."""
        step = (contender, int(10 * part))
        if step not in self._shown:
            self._shown.add(step)
            self._report(f"{contender}: {10 * step[1]}%")
