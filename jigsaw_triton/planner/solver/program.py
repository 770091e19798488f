"""A mixed-integer linear program as a value: what the model builders make and the solvers take.

PuLP's own problems are keyed by the addresses of their variables, so they survive no pickle to another process; these
do, and making one needs no solver library.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

SolverName = Literal["highs", "cbc"]
"""Who solves it."""

EXACT = 1e-5
"""Solvers keep rows to about 1e-6, and whole numbers, too."""

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
        enough: A greater value than this is of no use: the objectives after this one are not looked at then.
        least: That no solution has less of, as is known beforehand.
        nodes: Of a solver's search tree, after which the best found by then is taken; None for as many as it takes. For
            objectives that are not worth much time; counted in nodes, so that the same program ends in the same way.
    """

    terms: Terms
    gap: float
    relative_gap: float
    integral: bool
    enough: float = math.inf
    least: float = -math.inf
    nodes: int | None = None

    def suffices(self, value: float) -> bool:
        """Whether the objectives after this one are worth looking at."""
        return value <= self.enough + EXACT

    def room(self, value: float) -> float:
        """How much greater than its optimum the value may be in what the objectives after this one choose from."""
        return 0.5 if self.integral else max(self.gap, self.relative_gap * abs(value))


@dataclass(frozen=True, slots=True)
class Program:
    """Columns, rows, and objectives in order of rank: each is optimised among the optima of those before.

    `start` has values of some columns, which together may make a good solution: for solvers that know how to begin.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    objectives: tuple[Objective, ...]
    start: Terms = ()

    def why_not(self, values: Sequence[float]) -> str | None:
        """Why these values, by column, are no solution; None where they are one, within what solvers call exact."""
        if len(values) != len(self.columns):
            return f"{len(values)} values for {len(self.columns)} columns"
        for i, (column, value) in enumerate(zip(self.columns, values, strict=True)):
            if _outside(value, column.lower, column.upper, abs(value)):
                return f"column {i} is {value}, not within {column.lower} and {column.upper}"
            if column.integer and abs(value - round(value)) > EXACT:
                return f"column {i} is {value}, not a whole number"
        for i, row in enumerate(self.rows):
            terms = [coefficient * values[column] for column, coefficient in row.terms]
            if _outside(sum(terms), row.lower, row.upper, sum(map(abs, terms))):
                return f"row {i} comes to {sum(terms)}, not within {row.lower} and {row.upper}"
        return None


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

    def minimise_count(
        self,
        terms: Iterable[tuple[int, float]],
        *,
        relative_gap: float = 0.0,
        enough: float = math.inf,
        least: float = -math.inf,
        nodes: int | None = None,
    ) -> None:
        """Adds an objective: a sum of whole-numbered variables with whole coefficients; see `Objective`."""
        self.objectives.append(
            Objective(_merged(terms), 0.99, relative_gap, integral=True, enough=enough, least=least, nodes=nodes)
        )

    def minimise(
        self, terms: Iterable[tuple[int, float]], *, gap: float, relative_gap: float = 0.0, nodes: int | None = None
    ) -> None:
        """Adds an objective that is met to a gap, absolute or relative; see `Objective`."""
        self.objectives.append(Objective(_merged(terms), gap, relative_gap, integral=False, nodes=nodes))

    def program(self) -> Program:
        """The finished program."""
        return Program(tuple(self.columns), tuple(self.rows), tuple(self.objectives))


def _outside(value: float, lower: float | None, upper: float | None, size: float) -> bool:
    room = EXACT * max(1.0, size)
    # NaN is outside of everything.
    return not ((lower is None or value >= lower - room) and (upper is None or value <= upper + room))


def _merged(terms: Iterable[tuple[int, float]]) -> Terms:
    merged: dict[int, float] = {}
    for column, coefficient in terms:
        merged[column] = merged.get(column, 0.0) + coefficient
    return tuple(merged.items())
