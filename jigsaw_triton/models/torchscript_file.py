"""Checks that a file is a TorchScript model, without loading it and without the package torch."""

import zipfile
from pathlib import Path

from jigsaw_triton.errors import InputError

_CODE = "/code/"
_SAVE = "save the model with torch.jit.script(model).save(PATH) or torch.jit.trace(model, example).save(PATH)"


def read_torchscript(path: Path) -> None:
    """Checks that the file is an archive with the code of a model.

    Raises:
        InputError: The file cannot be read, or has no code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except OSError as error:
        hint = "check the path and its permissions"
        raise InputError(f"the model cannot be read ({error})", where=str(path), hint=hint) from error
    except zipfile.BadZipFile as error:
        raise InputError("this is not a TorchScript model", where=str(path), hint=_SAVE) from error
    if not any(_CODE in name for name in names):
        message = "this is not a TorchScript model: it has no code, as if torch.save had written it"
        raise InputError(message, where=str(path), hint=_SAVE)
