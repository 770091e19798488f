"""Reads the inputs and outputs in the config.pbtxt of a Triton model repository."""

from pathlib import Path

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.model_config import ModelConfig, ModelInput, ModelOutput
from jigsaw_triton.errors import InputError
from jigsaw_triton.models.interface import Interface, ModelTensor
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES


def parse_config(path: Path) -> ModelConfig:
    """Returns the content of a config.pbtxt.

    Raises:
        InputError: The file cannot be read, or is no configuration.
    """
    return cfg.parse(load_text(path, limit_bytes=LIMIT_BYTES), where=str(path))


def interface_of(config: ModelConfig, where: str) -> Interface | None:
    """Returns the inputs and outputs in a configuration; None if it leaves them to the model's file.

    Raises:
        InputError: A tensor has a reshape that graph.yaml cannot declare.
    """
    if not (config.input and config.output):
        return None
    batched = config.max_batch_size > 0
    inputs, outputs = (
        {tensor.name: _tensor(tensor, where, batched=batched) for tensor in tensors}
        for tensors in (config.input, config.output)
    )
    return Interface(inputs, outputs, frozenset(tensor.name for tensor in config.input if tensor.optional))


def read_config(path: Path) -> Interface | None:
    """Reads the config.pbtxt of a model that is served unchanged.

    Raises:
        InputError: The file cannot be read, or the model cannot be a variant.
    """
    config, where = parse_config(path), str(path)
    if not cfg.backend_of(config):
        raise InputError("the configuration has no backend", where=where, hint='write backend: "python", for example')
    if config.max_batch_size < 1:
        hint = "write max_batch_size: 8, for example; the plan chooses the size"
        raise InputError("the model takes no batches", where=where, hint=hint)
    if config.HasField("sequence_batching") or config.HasField("ensemble_scheduling"):
        raise InputError("sequences and ensembles cannot be variants", where=where, hint="use tasks of the graph")
    if config.model_transaction_policy.decoupled:
        raise InputError("decoupled models cannot be variants", where=where, hint="return one response to a request")
    return interface_of(config, where)


def _tensor(tensor: ModelInput | ModelOutput, where: str, *, batched: bool) -> ModelTensor:
    dims = tuple(tensor.dims)
    if tensor.HasField("reshape"):
        # Triton sees the shape on the wire; a model that gets [1] as [] declares `shape: []` here.
        if tensor.reshape.shape or dims != (1,):
            hint = "only the reshape of [1] to [] is supported; reshape in the model"
            raise InputError(f"the reshape of {tensor.name} is not supported", where=where, hint=hint)
        dims = ()
    return ModelTensor(cfg.data_type_name(tensor.data_type), (-1, *dims) if batched else dims)
