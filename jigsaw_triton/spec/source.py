"""Where things stand in a user's file, and the collecting of its mistakes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jigsaw_triton.errors import Diagnostic, SpecError

Path = tuple[str | int, ...]
"""Keys and list indices from the top of a document: `("spec", "tasks", "detect", "variants", 0)`."""


def dotted(path: Path) -> str:
    """A path as users write it: `spec.tasks.detect.variants[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the document"


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Lines of a document's entries.

    Attributes:
        file: As the user gave it.
        lines: Path of every entry in the file -> 1-based line of its key (of the item itself in a list).
    """

    file: str
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Line of the entry, or of the nearest entry around it that has one; 0 where the file has no lines."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 0

    def __contains__(self, path: object) -> bool:
        return path in self.lines

    def diagnostic(self, path: Path, message: str, hint: str = "") -> Diagnostic:
        """A mistake at this entry."""
        return Diagnostic(self.file, self.line(path), message, hint)


class Report:
    """The mistakes of one file, collected so that the user sees all of them at once.

    Args:
        source: Of the file.
        problems: Found earlier.
    """

    def __init__(self, source: SourceMap, problems: Iterable[Diagnostic] = ()) -> None:
        self._source = source
        self._problems = list(problems)

    def add(self, path: Path, message: str, hint: str = "") -> None:
        """Notes a mistake."""
        self._problems.append(self._source.diagnostic(path, message, hint))

    @property
    def problems(self) -> tuple[Diagnostic, ...]:
        """What was noted, by line, each once."""
        return tuple(sorted(dict.fromkeys(self._problems), key=lambda d: d.line))

    def raise_if_any(self) -> None:
        """Ends the reading of the file where anything is wrong with it.

        Raises:
            SpecError: Something was noted.
        """
        if self._problems:
            raise SpecError(self.problems)
