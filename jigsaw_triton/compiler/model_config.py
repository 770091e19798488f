"""Triton's protobuf classes of config.pbtxt, without the gRPC client whose package has them.

Importing that package takes as long as most commands take in all, because it imports grpc.
"""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

_MODULE = "tritonclient.grpc.model_config_pb2"


def _import_alone() -> None:
    """Imports the module before its package, which then uses the same one."""
    client = find_spec("tritonclient")
    if _MODULE in sys.modules or client is None or not client.submodule_search_locations:
        return
    spec = spec_from_file_location(_MODULE, Path(client.submodule_search_locations[0], "grpc", "model_config_pb2.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[_MODULE] = module


_import_alone()

from tritonclient.grpc.model_config_pb2 import (  # noqa: E402 - its package must come after it
    DataType,
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
)

__all__ = ["DataType", "ModelConfig", "ModelInput", "ModelInstanceGroup", "ModelOutput"]
