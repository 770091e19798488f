"""Locations of the data files that ship with the package: model templates and ready applications."""

from pathlib import Path

from jigsaw_triton.errors import JigsawError

_PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    """Returns the folder of the model templates, which has one subfolder for each template.

    Raises:
        JigsawError: The installation is incomplete.
    """
    return _find("model_repository_templates")


def applications_dir() -> Path:
    """Returns the folder of the ready applications, which has one subfolder for each application.

    Raises:
        JigsawError: The installation is incomplete.
    """
    return _find("ensembles")


def _find(name: str) -> Path:
    # A wheel contains the folder inside the package; a checkout has it beside the package.
    for folder in (_PACKAGE / "_share" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise JigsawError(
        f"the folder {name} is missing from this installation",
        where=str(_PACKAGE),
        hint="reinstall the package: pip install --force-reinstall jigsaw-triton",
    )
