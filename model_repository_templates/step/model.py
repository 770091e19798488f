# The worker's model that runs a python step.
from jigsaw_triton.runtime.step_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
