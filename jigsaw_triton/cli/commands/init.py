"""`jigsaw-triton init`: creates an application, from a ready one or from scratch."""

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.files import Mistakes, load_graph, read_graphs
from jigsaw_triton.api.profile_files import PROFILES_FILE
from jigsaw_triton.applications import load_sources
from jigsaw_triton.cli.commands.fetch import fetch_files
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.errors import InputError, JigsawError
from jigsaw_triton.graph.draw import slo_words
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.spec.words import nearest

SKELETON = Path(__file__).resolve().parent / "skeleton"
_NOT_COPIED = ("__pycache__", ".gitignore")


@options.command("init", examples=("init --list", "init myreader/ --from docread", "init hello/"))
@click.argument("folder", metavar="DIR", required=False, type=click.Path(path_type=Path))
@options.option(
    "--from", "origin", metavar="APP", help="Ready application to copy.  [default: write a small commented graph]"
)
@options.option("--list", "listing", is_flag=True, help="List the ready applications.")
def command(out: Output, folder: Path | None, origin: str | None, listing: bool) -> None:
    """Create an application in DIR.

    With --from, copy a ready application and fetch its model files. Otherwise write a small commented graph, a model
    and profiles. DIR must be new, empty, or hold the same application; run the command again to fetch missing files.
    """
    if listing:
        out.result(*_ready_applications())
        return
    if folder is None:
        raise click.UsageError("Missing argument 'DIR'.")
    source = SKELETON if origin is None else _application(origin)
    new = _place(source, folder)
    if not new:
        out.note(f"{folder} exists already; its files are not overwritten")
    fetched = fetch_files(out, folder)
    commands = _next_commands(folder)
    data = {
        "folder": str(folder),
        "application": origin,
        "created": new,
        "fetched": [str(path) for path in fetched],
        "next": commands,
    }
    out.result(data, f"{folder} is ready. Next:", *(f"  {line}" for line in commands))


def _applications() -> list[Path]:
    return sorted(path.parent for path in applications_dir().glob("*/graph.yaml"))


def _application(name: str) -> Path:
    known = {path.name: path for path in _applications()}
    if name not in known:
        hint = nearest(name, known, "ready applications")
        raise InputError(f"there is no ready application '{name}'", where="--from", hint=hint)
    return known[name]


def _ready_applications() -> tuple[dict[str, Any], Table]:
    folders = _applications()
    mistakes = Mistakes()
    graphs = read_graphs(folders, mistakes)
    mistakes.raise_if_any()
    named = dict(zip((folder.name for folder in folders), graphs.values(), strict=True))
    data = {
        "applications": [
            {"name": name, "tasks": list(graph.tasks), "promises": slo_words(graph)} for name, graph in named.items()
        ]
    }
    rows = ((name, ", ".join(graph.tasks), slo_words(graph)) for name, graph in named.items())
    return data, Table.of(("application", "tasks", "SLO"), rows)


def _place(source: Path, folder: Path) -> bool:
    """Copies an application, without the files that `fetch` brings.

    Returns:
        False if the folder has the application already.

    Raises:
        InputError: The folder has other files in it or cannot be written. It is left as it was.
    """
    existed = folder.exists()
    if existed and not folder.is_dir():
        raise InputError("this is not a folder", where=str(folder), hint="choose a new or an empty folder")
    if existed and any(folder.iterdir()):
        if _same(source, folder):
            return False
        raise InputError("the folder is not empty", where=str(folder), hint="choose a new or an empty folder")
    try:
        shutil.copytree(source, folder, ignore=_ignoring(source, _fetched_files(source)), dirs_exist_ok=True)
    except OSError as error:
        # copytree collects the errors of all files into one error of its own, which has no strerror.
        _clear(folder, keep=existed)
        reason = error.strerror or "its disk may be full"
        raise InputError(
            f"the folder cannot be written ({reason})", where=str(folder), hint="choose another path"
        ) from error
    except BaseException:
        _clear(folder, keep=existed)
        raise
    return True


def _same(source: Path, folder: Path) -> bool:
    try:
        return load_graph(folder).name == load_graph(source).name
    except JigsawError:
        return False


def _fetched_files(source: Path) -> frozenset[Path]:
    sources = load_sources(source)
    built = sources.build.files.values() if sources.build is not None else ()
    return frozenset((*sources.pinned, *built))


def _ignoring(source: Path, fetched: Collection[Path]) -> Callable[[str, list[str]], list[str]]:
    def ignored(folder: str, names: Sequence[str]) -> list[str]:
        resolved = source.resolve() / Path(folder).relative_to(source)
        return [name for name in names if name in _NOT_COPIED or resolved / name in fetched]

    return ignored


def _clear(folder: Path, *, keep: bool) -> None:
    """Removes everything in the folder, and the folder itself unless `keep` is True."""
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def _next_commands(folder: Path) -> list[str]:
    """Returns commands to try next, with a GPU model that the application has profiles of."""
    commands = [f"jigsaw-triton validate {folder}", f"jigsaw-triton show {folder}"]
    file = folder / PROFILES_FILE
    boards = {row.key.gpu for row in read_profiles(file).rows()} if file.exists() else set()
    if boards:
        board = "cpu" if "cpu" in boards else min(boards)
        commands += [
            f"jigsaw-triton plan {folder} --gpus 2x{board} --demand 1",
            f"jigsaw-triton deploy {folder} --gpus 2x{board} --demand 1 --detach",
        ]
    return commands
