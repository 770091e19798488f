"""A mixed-integer linear program as a value: the model builders make it, and the solvers take it.

PuLP identifies variables by their memory addresses, so its problems cannot be pickled and sent to another process.
These programs can, and building one needs no solver library.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

SolverName = Literal["highs", "cbc"]
"""Name of a solver."""

FEASIBILITY_TOLERANCE = 1e-5
"""Largest violation of a row or of integrality in an accepted solution; relative to the row's terms if they exceed 1.

Solvers keep both to about 1e-6; this allows ten times as much.
"""

BOUND_ERROR = 1e-6
"""Error of a solver's lower bound, subtracted before the bound of an integral objective is rounded up. The order of the
solvers' own tolerances."""

Terms = tuple[tuple[int, float], ...]
"""(column, coefficient) pairs, each column once."""


@dataclass(frozen=True, slots=True)
class Column:
    """A variable with bounds `lower` and `upper`; an `upper` of None means unbounded."""

    lower: float
    upper: float | None
    integer: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A constraint: `lower` <= sum of terms <= `upper`; a bound of None means there is none."""

    terms: Terms
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Objective:
    """A linear objective to minimise.

    Attributes:
        terms: Coefficients, at least one.
        gap: Absolute distance between value and lower bound at which a solution counts as optimal.
        relative_gap: Distance relative to the value; meeting either gap suffices.
        integral: True if the value is an integer in every solution. Then any `gap` below 1 proves the optimum.
        cutoff: Largest useful value. If the optimum is greater, the later objectives are skipped.
        lower_bound: Value that no solution is below, as known before solving.
        node_limit: Nodes of the search tree after which the incumbent is taken; None for no limit. It bounds the effort
            on minor objectives. Counting nodes, not seconds, makes the same program end in the same way every time.
    """

    terms: Terms
    gap: float
    relative_gap: float
    integral: bool
    cutoff: float = math.inf
    lower_bound: float = -math.inf
    node_limit: int | None = None

    def within_cutoff(self, value: float) -> bool:
        """Returns True if the value is useful, so that the later objectives are worth solving."""
        return value <= self.cutoff + FEASIBILITY_TOLERANCE

    def slack(self, value: float) -> float:
        """Returns by how much the later objectives may exceed the value that this one reached."""
        return 0.5 if self.integral else max(self.gap, self.relative_gap * abs(value))


@dataclass(frozen=True, slots=True)
class Program:
    """Columns, rows, and objectives in lexicographic order: each is minimised among the optima of those before it.

    `start` is a warm start: values of some columns that together may make a good solution. Solvers without support for
    warm starts ignore it.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    objectives: tuple[Objective, ...]
    start: Terms = ()

    def violation(self, values: Sequence[float]) -> str | None:
        """Describes the first bound, integrality or row that these values violate; None if they are feasible.

        Args:
            values: Value of each column.
        """
        if len(values) != len(self.columns):
            return f"{len(values)} values for {len(self.columns)} columns"
        for i, (column, value) in enumerate(zip(self.columns, values, strict=True)):
            if _outside(value, column.lower, column.upper, abs(value)):
                return f"column {i} is {value}, not within {column.lower} and {column.upper}"
            if column.integer and abs(value - round(value)) > FEASIBILITY_TOLERANCE:
                return f"column {i} is {value}, not an integer"
        for i, row in enumerate(self.rows):
            terms = [coefficient * values[column] for column, coefficient in row.terms]
            if _outside(sum(terms), row.lower, row.upper, sum(map(abs, terms))):
                return f"row {i} is {sum(terms)}, not within {row.lower} and {row.upper}"
        return None


@dataclass(slots=True)
class Draft:
    """A program under construction."""

    columns: list[Column] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    objectives: list[Objective] = field(default_factory=list)

    def real(self, upper: float | None = None) -> int:
        """Adds a continuous variable from 0 to `upper` and returns its column."""
        self.columns.append(Column(0.0, upper, False))
        return len(self.columns) - 1

    def integer(self, upper: float | None = None) -> int:
        """Adds an integer variable from 0 to `upper` and returns its column."""
        self.columns.append(Column(0.0, upper, True))
        return len(self.columns) - 1

    def at_most(self, upper: float, terms: Iterable[tuple[int, float]]) -> None:
        """Adds the constraint sum of terms <= `upper`."""
        self.rows.append(Row(_merged(terms), None, upper))

    def at_least(self, lower: float, terms: Iterable[tuple[int, float]]) -> None:
        """Adds the constraint sum of terms >= `lower`."""
        self.rows.append(Row(_merged(terms), lower, None))

    def equal(self, value: float, terms: Iterable[tuple[int, float]]) -> None:
        """Adds the constraint sum of terms = `value`."""
        self.rows.append(Row(_merged(terms), value, value))

    def minimise_count(
        self,
        terms: Iterable[tuple[int, float]],
        *,
        gap: float = 0.0,
        relative_gap: float = 0.0,
        cutoff: float = math.inf,
        lower_bound: float = -math.inf,
        node_limit: int | None = None,
    ) -> None:
        """Adds an objective with integer variables and coefficients, solved to a gap below 1 or to `gap`."""
        self.objectives.append(
            Objective(
                _merged(terms),
                max(0.99, gap),
                relative_gap,
                integral=True,
                cutoff=cutoff,
                lower_bound=lower_bound,
                node_limit=node_limit,
            )
        )

    def minimise(
        self,
        terms: Iterable[tuple[int, float]],
        *,
        gap: float,
        relative_gap: float = 0.0,
        node_limit: int | None = None,
    ) -> None:
        """Adds an objective that is solved to an absolute or a relative gap; see `Objective`."""
        self.objectives.append(Objective(_merged(terms), gap, relative_gap, integral=False, node_limit=node_limit))

    def program(self) -> Program:
        """Returns the finished program."""
        return Program(tuple(self.columns), tuple(self.rows), tuple(self.objectives))


def _outside(value: float, lower: float | None, upper: float | None, size: float) -> bool:
    tolerance = FEASIBILITY_TOLERANCE * max(1.0, size)
    # Written so that NaN counts as outside.
    return not ((lower is None or value >= lower - tolerance) and (upper is None or value <= upper + tolerance))


def _merged(terms: Iterable[tuple[int, float]]) -> Terms:
    merged: dict[int, float] = {}
    for column, coefficient in terms:
        merged[column] = merged.get(column, 0.0) + coefficient
    return tuple(merged.items())
