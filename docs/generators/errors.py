"""The page of all error messages."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from posixpath import relpath

from docs.generators.markdown import code, plain, table
from docs.generators.messages import Message, find_messages
from docs.generators.sources import ANY, read_package
from jigsaw_triton import errors

ROOT = Path(__file__).resolve().parents[2]
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"

SUBJECTS = {
    "Command lines": ("cli",),
    "All files": ("spec", "api.files", "api.file_changes"),
    "graph.yaml": ("graph", "spec.step_file", "api.graph_builder", "api.graph_changes"),
    "cluster.yaml and GPUs": ("gpus.cluster", "gpus.catalog", "gpus.arrangement", "spec.load", "spec.mig_layouts"),
    "Applications and packages": ("applications", "packages", "resources"),
    "Models": ("models", "api.adding", "api.variants", "api.checking"),
    "Profiles": ("profiles", "api.profiles", "api.profile_files", "api.profile_builder", "evaluation.profiling"),
    "Accuracies": ("evaluation.accuracy", "api.accuracies"),
    "Plans": ("planner", "api.planning", "api.wanted"),
    "Compiled repositories": ("compiler",),
    "Simulations and comparisons": ("evaluation", "api.rehearsing", "api.replaying", "api.simulating"),
    "Deployments": ("api", "controller"),
    "Servers": ("servers",),
    "MIG": ("gpus",),
    "Several machines": ("agent", "controller.fleet", "servers.certificates", "servers.engines", "api.takeover"),
    "Cells and fronts": ("front", "api.cells", "api.cell_files", "api.fronts"),
    "Web console and reports": ("console", "api.console", "api.reports", "api.setup_document"),
    "Exported files": ("export", "api.exporting", "api.export_input"),
}
"""Heading -> the modules whose messages are below it. The longest name that a module begins with decides."""

_CELL = re.compile(r"(`+) ?(.+?) ?\1")

_LINK = re.compile(r"\]\((?!\w+:)([^)]+)\)")

_NAMED = "see the hint of the error"


@cache
def messages() -> tuple[Message, ...]:
    """Returns the messages of all errors in the code."""
    return tuple(find_messages(read_package(ROOT / "jigsaw_triton")))


def explained() -> dict[str, str]:
    """Returns the messages that the page on troubleshooting explains, and what it says to do about each."""
    rows = re.findall(r"^\| (.+?) \| (.+) \| (.+?) \|$", TROUBLESHOOTING.read_text(encoding="utf-8"), re.MULTILINE)
    return {words(found[1]): _moved(remedy) for cell, _, remedy in rows for found in _CELL.findall(cell)}


def _moved(text: str) -> str:
    """Returns a text of the page on troubleshooting with its links as they are on the page of messages."""
    return _LINK.sub(lambda link: f"]({relpath(link[1], 'reference')})", text)


def words(message: str) -> str:
    """Returns a message in the form in which messages are compared."""
    return " ".join(message.replace("`", "").split())


def subject(module: str) -> str:
    """Returns the heading of a module's messages.

    Args:
        module: Name of the module below the package.

    Raises:
        LookupError: `SUBJECTS` has no heading for the module.
    """
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        for heading, names in SUBJECTS.items():
            if ".".join(parts[:size]) in names:
                return heading
    raise LookupError(f"SUBJECTS in {__file__} has no heading for the messages of {module}")


def all_messages() -> str:
    """Returns a section for each subject, with a heading for each of its messages and what to do about it below.

    As headings, the messages are titles for the search of the site.
    """
    known = explained()
    found: dict[str, dict[str, list[str]]] = {heading: {} for heading in SUBJECTS}
    for message in messages():
        advice = [plain(hint) for hint in _telling(message.hints)]
        if not message.hints:
            advice = [known.get(words(message.text), "")]
        found[subject(message.module)].setdefault(message.text, []).extend(advice)
    return "\n".join(f"## {heading}\n\n{_section(entries)}" for heading, entries in found.items() if entries)


def _section(entries: Mapping[str, list[str]]) -> str:
    return "\n".join(f"###### {code(text)}\n\n{_together(advice)}\n" for text, advice in entries.items())


def _telling(hints: Iterable[str]) -> list[str]:
    """Returns the hints that say something, and of these the ones that begin with words, if there are any."""
    worded = [hint for hint in hints if re.search("[A-Za-z]{2}", hint)]
    return [hint for hint in worded if not hint.startswith((ANY, ";"))] or worded


def _together(advice: list[str]) -> str:
    return "; or ".join(dict.fromkeys(one for one in advice if one)) or _NAMED


def classes() -> str:
    """Returns a table of the errors that the library raises, with the exit codes of commands."""
    return table(("error", "exit code", "meaning"), _classes(errors.JigsawError, 0))


def _classes(kind: type[errors.JigsawError], depth: int) -> Iterator[tuple[str, str, str]]:
    meaning = (kind.__doc__ or "").splitlines()[0]
    yield "&emsp;" * depth + code(kind.__name__), str(kind.exit_code), plain(meaning)
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _classes(child, depth + 1)
