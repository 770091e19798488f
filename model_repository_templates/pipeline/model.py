# Model of the gateway that executes a graph by calling the front of each task.
from jigsaw_triton.runtime.pipeline import TritonPythonModel

__all__ = ["TritonPythonModel"]
