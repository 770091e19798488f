"""Templates of Triton models: what a folder of `model_repository_templates` holds, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError

CONFIG_FILE = "config.pbtxt"
NATIVE_CONFIG_FILE = "config.native.pbtxt"
MODEL_FILE = "model.py"


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of model.

    Attributes:
        name: Name of its folder, as a variant's `template` gives it.
        config_text: The config.pbtxt that the compiler completes.
        native_config_text: config.pbtxt for servers that have the backend named there; None where it has none.
        model_py: Code for the python backend; None where the backend needs none.
    """

    name: str
    config_text: str
    native_config_text: str | None = None
    model_py: bytes | None = None


def load_templates(folder: Path) -> Mapping[str, Template]:
    """Reads every template of a folder.

    Args:
        folder: One folder a template, each with config.pbtxt and, where it has them, config.native.pbtxt and model.py.

    Returns:
        By name, sorted.

    Raises:
        InputError: The folder is not there, cannot be read, or one of the templates has no config.pbtxt.
    """
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
        return {path.name: _load(path) for path in folders}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the templates cannot be read ({error})",
            where=str(folder),
            hint="point to a folder with one folder a template, each with its config.pbtxt",
        ) from error


def _load(folder: Path) -> Template:
    config, native, model = (folder / name for name in (CONFIG_FILE, NATIVE_CONFIG_FILE, MODEL_FILE))
    return Template(
        name=folder.name,
        config_text=config.read_text(encoding="utf-8"),
        native_config_text=native.read_text(encoding="utf-8") if native.exists() else None,
        model_py=model.read_bytes() if model.exists() else None,
    )


def template(templates: Mapping[str, Template], name: str, *, where: str) -> Template:
    """The template of this name.

    Args:
        templates: All there are.
        name: Asked for.
        where: Who asks, for the message.

    Raises:
        InputError: There is none of this name.
    """
    if name not in templates:
        raise InputError(
            f"there is no template {name!r}",
            where=where,
            hint=f"known templates: {', '.join(sorted(templates)) or 'none'}",
        )
    return templates[name]
