"""A mixed-integer linear program as a value: what the model builders make and the solvers take.

PuLP's own problems are keyed by the addresses of their variables, so they survive no pickle to another process; these
do, and making one needs no solver library.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

Terms = tuple[tuple[int, float], ...]
"""Column -> coefficient, each column once."""


@dataclass(frozen=True, slots=True)
class Column:
    """A variable, at least `lower` and at most `upper` (None: unbounded above)."""

    lower: float
    upper: float | None
    integer: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A constraint: `lower` <= sum of terms <= `upper`, None where there is no such bound."""

    terms: Terms
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised.

    Attributes:
        terms: At least one.
        gap: Absolute distance from the bound at which a solution counts as optimal.
        relative_gap: The same relative to the value; either suffices.
        integral: Whether its value is a whole number in every solution; then any `gap` below 1 proves the optimum.
    """

    terms: Terms
    gap: float
    relative_gap: float
    integral: bool


@dataclass(frozen=True, slots=True)
class Program:
    """Columns, rows, and objectives in order of rank: each is optimised among the optima of those before."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    objectives: tuple[Objective, ...]


@dataclass(slots=True)
class Draft:
    """A program in the making."""

    columns: list[Column] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    objectives: list[Objective] = field(default_factory=list)

    def real(self, upper: float | None = None) -> int:
        """A new variable from 0 to `upper`."""
        self.columns.append(Column(0.0, upper, False))
        return len(self.columns) - 1

    def integer(self, upper: float | None = None) -> int:
        """A new whole-numbered variable from 0 to `upper`."""
        self.columns.append(Column(0.0, upper, True))
        return len(self.columns) - 1

    def at_most(self, upper: float, terms: Iterable[tuple[int, float]]) -> None:
        """Constrains the sum of terms from above."""
        self.rows.append(Row(_merged(terms), None, upper))

    def at_least(self, lower: float, terms: Iterable[tuple[int, float]]) -> None:
        """Constrains the sum of terms from below."""
        self.rows.append(Row(_merged(terms), lower, None))

    def equal(self, value: float, terms: Iterable[tuple[int, float]]) -> None:
        """Fixes the sum of terms."""
        self.rows.append(Row(_merged(terms), value, value))

    def minimise_count(self, terms: Iterable[tuple[int, float]]) -> None:
        """Adds an objective: a sum of whole-numbered variables with whole coefficients."""
        self.objectives.append(Objective(_merged(terms), gap=0.99, relative_gap=0.0, integral=True))

    def minimise(self, terms: Iterable[tuple[int, float]], *, gap: float, relative_gap: float = 0.0) -> None:
        """Adds an objective that is met to a gap, absolute or relative."""
        self.objectives.append(Objective(_merged(terms), gap, relative_gap, integral=False))

    def program(self) -> Program:
        """The finished program."""
        return Program(tuple(self.columns), tuple(self.rows), tuple(self.objectives))


def _merged(terms: Iterable[tuple[int, float]]) -> Terms:
    merged: dict[int, float] = {}
    for column, coefficient in terms:
        merged[column] = merged.get(column, 0.0) + coefficient
    return tuple(merged.items())
