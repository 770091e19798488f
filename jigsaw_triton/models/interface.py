"""Inputs and outputs of a model, as its file declares them or as a run shows them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """An input or output of a model.

    Attributes:
        dtype: Triton data type; None if Triton cannot carry it, as with sequences and maps.
        shape: Dimensions, of which the first is the batch; -1 for one that varies. None if they are not known.
    """

    dtype: str | None
    shape: tuple[int, ...] | None

    @property
    def item(self) -> tuple[int, ...] | None:
        """Dimensions of one item; None if they are not known, or if there is no batch dimension."""
        return self.shape[1:] if self.shape else None


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of a model.

    Attributes:
        inputs: Inputs by name.
        outputs: Outputs by name.
        optional: Names of inputs that have a default.
        files: Names of further files that hold weights, beside the model.
    """

    inputs: Mapping[str, ModelTensor]
    outputs: Mapping[str, ModelTensor]
    optional: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
