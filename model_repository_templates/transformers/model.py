# Model of a worker that runs a variant inside the python backend.
from jigsaw_triton.runtime.variant import TritonPythonModel

__all__ = ["TritonPythonModel"]
