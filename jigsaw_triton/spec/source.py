"""Maps the entries of a user's file to their lines, and collects the mistakes in it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jigsaw_triton.errors import Diagnostic, SpecError

Path = tuple[str | int, ...]
"""Keys and list indices from the top of a document: `("spec", "tasks", "detect", "variants", 0)`."""


def dotted(path: Path) -> str:
    """Returns a path in dotted notation: `spec.tasks.detect.variants[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the document"


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Line numbers of a document's entries.

    Attributes:
        file: Path of the file as the user gave it.
        lines: Path of an entry -> line of its key, or of the item itself in a list, counted from 1.
    """

    file: str
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Returns the line of the entry, or of the innermost known entry around it; 0 if no line is known."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 0

    def __contains__(self, path: object) -> bool:
        return path in self.lines

    def diagnostic(self, path: Path, message: str, hint: str = "") -> Diagnostic:
        """Returns the diagnostic of a mistake in this entry."""
        return Diagnostic(self.file, self.line(path), message, hint)


class Report:
    """Collects the mistakes of one file, so that the user sees all of them at once.

    Args:
        source: Lines of the file.
        problems: Mistakes that were found earlier.
    """

    def __init__(self, source: SourceMap, problems: Iterable[Diagnostic] = ()) -> None:
        self._source = source
        self._problems = list(problems)

    def add(self, path: Path, message: str, hint: str = "") -> None:
        """Adds a mistake in the entry at `path`."""
        self._problems.append(self._source.diagnostic(path, message, hint))

    @property
    def problems(self) -> tuple[Diagnostic, ...]:
        """Mistakes in the order of their lines, without duplicates."""
        return tuple(sorted(dict.fromkeys(self._problems), key=lambda d: d.line))

    def raise_if_any(self) -> None:
        """Raises the collected mistakes as one error.

        Raises:
            SpecError: There is at least one mistake.
        """
        if self._problems:
            raise SpecError(self.problems)
