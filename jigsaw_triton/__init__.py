"""Serve compound AI systems on partitioned GPUs.

`jigsaw_triton.runtime` imports this module inside every tritonserver process, so it must not import anything itself.
"""

__version__ = "0.1.0"
