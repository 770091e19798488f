"""A front under another name, to try it before clients see it."""

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import ModelFolder


def rehearsal(front: ModelFolder) -> ModelFolder:
    """A front under a name that no client uses: `<graph>.rehearsal`, which no graph can have."""
    name = f"{front.name}.rehearsal"
    config = cfg.of_folder(front)
    config.name = name
    return ModelFolder(name, {**front.files, "config.pbtxt": cfg.render(config)})
