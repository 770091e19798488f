"""Rehearsals: fronts under another name, with which the controller probes them before clients see them."""

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import ModelFolder


def rehearsal(front: ModelFolder) -> ModelFolder:
    """Returns a copy of a front under the name `<graph>.rehearsal`, which no graph can have."""
    name = f"{front.name}.rehearsal"
    config = cfg.of_folder(front)
    config.name = name
    return ModelFolder(name, {**front.files, "config.pbtxt": cfg.render(config)})
