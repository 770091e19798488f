# The gateway's model that does a task by sending its batches to workers.
from jigsaw_triton.runtime.dispatcher import TritonPythonModel

__all__ = ["TritonPythonModel"]
