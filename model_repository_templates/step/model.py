# Model of a steps worker that runs a Python step.
from jigsaw_triton.runtime.step_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
