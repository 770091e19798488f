"""Templates of Triton models, as plain values read from `model_repository_templates`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError

CONFIG_FILE = "config.pbtxt"
NATIVE_CONFIG_FILE = "config.native.pbtxt"
MODEL_FILE = "model.py"


@dataclass(frozen=True, slots=True)
class Template:
    """A template, which defines a kind of model.

    Attributes:
        name: Name of the template and its folder, to which a variant's `template` refers.
        config_text: Text of the config.pbtxt that the compiler completes.
        native_config_text: Text of the config.pbtxt for servers that have the native backend; None if there is none.
        model_py: Code for the Python backend; None if the backend needs none.
    """

    name: str
    config_text: str
    native_config_text: str | None = None
    model_py: bytes | None = None


def load_templates(folder: Path) -> Mapping[str, Template]:
    """Reads all templates.

    Args:
        folder: Folder with one folder for each template, which has a config.pbtxt and optionally a config.native.pbtxt
            and a model.py.

    Returns:
        Templates, sorted by name.

    Raises:
        InputError: The folder is missing or cannot be read, or a template has no config.pbtxt.
    """
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
        return {path.name: _load(path) for path in folders}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the templates cannot be read ({error})",
            where=str(folder),
            hint="use a folder with one folder for each template, each with a config.pbtxt",
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
    """Returns the template with a name.

    Args:
        templates: Known templates, by name.
        name: Name of the template.
        where: Place that refers to the template, for the error message.

    Raises:
        InputError: There is no such template.
    """
    if name not in templates:
        raise InputError(
            f"there is no template {name!r}",
            where=where,
            hint=f"known templates: {', '.join(sorted(templates)) or 'none'}",
        )
    return templates[name]
