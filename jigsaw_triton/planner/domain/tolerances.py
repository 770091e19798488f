"""Numeric tolerances that several parts of the planner share. The validator has its own, on purpose."""

TOLERANCE = 1e-5
"""Relative amount by which a solution may miss a limit, from the tolerances of solvers and sums of floats.

A solver keeps each row to about 1e-6; a limit that several rows share may be missed by a few times that.
"""

ROUNDING = 1e-6
"""Part of a bin, a slice or a unit of cost that may be missing to a whole one, relative error of an accuracy or of a
processor load, and difference of equal routing shares, all from rounding in a chain of operations. A convention."""

FLOAT_ERROR = 1e-9
"""Error of a short sum of floats, relative or of values from 1 to a few thousand. A convention: far above the precision
of floats, far below `ROUNDING`."""
