"""Types of tensors, and references to them."""

from dataclasses import dataclass

GRAPH_INPUTS = "inputs"
"""Name that stands for the graph itself in references to its inputs: `inputs.FRAME`."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Type of a tensor for one request (or one row), without a batch dimension.

    Attributes:
        dtype: Triton data type: `UINT8`, `FP32`, `BYTES`, ...
        shape: Dimensions; -1 for one that varies.
    """

    dtype: str
    shape: tuple[int, ...]

    def rows(self) -> "TensorType":
        """Returns the type of a tensor that has any number of these as rows."""
        return TensorType(self.dtype, (-1, *self.shape))

    def row(self) -> "TensorType":
        """Returns the type of one row of this tensor."""
        return TensorType(self.dtype, self.shape[1:])


COUNT = TensorType("INT64", (1,))
"""Type of an output that counts the rows that one call produced."""


@dataclass(frozen=True, slots=True)
class TensorRef:
    """Reference to a tensor: `task.OUTPUT`, or `inputs.NAME` for an input of the graph."""

    task: str
    name: str

    def __str__(self) -> str:
        return f"{self.task}.{self.name}"

    @property
    def is_graph_input(self) -> bool:
        """True if the tensor is an input of the graph."""
        return self.task == GRAPH_INPUTS
