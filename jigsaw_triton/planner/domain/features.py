"""Features of the planner. With fewer of them it plans as other systems do, for comparison."""

from collections.abc import Mapping

from jigsaw_triton.errors import InputError

FEATURES = "AST"
"""All features in canonical form."""

LETTERS: Mapping[str, str] = {
    "A": "accuracy scaling",
    "M": "MIG slices",
    "P": "several instances of a model in a slice",
    "S": "spatial partitioning, short for M and P",
    "T": "task-graph-informed budgeting",
}
"""Letter -> feature."""

SUBSETS = tuple(a + s + t for s in ("", "M", "P", "S") for a in ("", "A") for t in ("", "T"))
"""All subsets of the features in canonical form."""


def canonical(letters: str) -> str:
    """Returns features in canonical form: in the order of the alphabet, and with S in place of M and P together.

    Raises:
        InputError: A letter stands for no feature.
    """
    if unknown := sorted(set(letters) - LETTERS.keys()):
        described = ", ".join(f"{letter} ({feature})" for letter, feature in LETTERS.items())
        raise InputError(f"features {letters!r}: {', '.join(unknown)} unknown", hint=f"use {described}, or none")
    return _contracted(_expanded(letters))


def has(features: str, letter: str) -> bool:
    """Returns True if the features include one. S includes M and P."""
    return letter in _expanded(features)


def includes(features: str, fewer: str) -> bool:
    """Returns True if the features include all of others. A plan with fewer features is also one with more."""
    return set(_expanded(fewer)) <= set(_expanded(features))


def named(features: str) -> str:
    """Returns features as people write them, such as A+S+T; `none` if there are none."""
    return "+".join(features) or "none"


def _expanded(letters: str) -> str:
    return letters.replace("S", "MP")


def _contracted(letters: str) -> str:
    return "".join(letter for letter in "AMPT" if letter in letters).replace("MP", "S")
