# The gateway's model that calls a graph's one-task fronts step by step.
from jigsaw_triton.runtime.pipeline import TritonPythonModel

__all__ = ["TritonPythonModel"]
