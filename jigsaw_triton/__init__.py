"""Serve compound AI systems on partitioned GPUs.

This module is imported inside every tritonserver process (by `jigsaw_triton.runtime`): it stays empty of imports.
"""

__version__ = "0.1.0"
