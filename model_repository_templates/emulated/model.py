# Model of a worker that runs a variant inside the Python backend.
from jigsaw_triton.runtime.variant import TritonPythonModel

__all__ = ["TritonPythonModel"]
