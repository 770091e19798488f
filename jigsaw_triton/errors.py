"""Every error that a user may see, as one tree.

JigsawError                     exit code 1
├── InputError                  exit code 2: what the user wrote or asked for
│   └── SpecError               carries one diagnostic per mistake found in the input files
├── InfeasibleError             exit code 3: no plan meets the requirements; carries the reasons
│   └── UnplacedError           the paper's greedy placement did not find a place for all
├── StateError                  exit code 4: the system is not in the state the command needs
├── MissingDependencyError      exit code 1: the machine lacks something; the hint brings it
├── ArtifactError               exit code 2: a download, a checksum or a cache folder is not right
├── ServerError                 exit code 1: a tritonserver did not do what was asked of it
└── MigError                    exit code 1: a MIG driver refused
    ├── InstanceInUseError      a process still holds the MIG instance
    ├── PlacementError          the placement is not possible on the GPU as it stands
    ├── InstanceNotFoundError   no MIG instance of this UUID
    └── MigTimeoutError         a call did not return; what it was to change may still happen
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


class JigsawError(Exception):
    """Base of all errors shown to users.

    Args:
        message: What is wrong, in one sentence without a final full stop.
        where: The place: `file:line`, a worker's name, a path. Empty where there is none.
        hint: What to do about it. Empty where nothing sensible can be said.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"; {self.hint}" if self.hint else ""
        return f"{place}{self.message}{remedy}"


class InputError(JigsawError):
    """The user's input is wrong."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake in an input file.

    Attributes:
        file: Path as the user gave it.
        line: 1-based; 0 where the mistake belongs to no line (a missing file).
        message: What is wrong.
        hint: What would be right.
    """

    file: str
    line: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class SpecError(InputError):
    """Mistakes in the files a user wrote, all of them at once.

    Args:
        diagnostics: At least one, in the order of file and line.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(d) for d in self.diagnostics))


class InfeasibleError(JigsawError):
    """No plan meets the requirements.

    Args:
        reasons: Each a sentence in the user's words.
        hint: What would make it feasible.
        conflict: Requirements, such as `traffic.latency_ms` or `A100-80GB.gpus`, that cannot be met together, while any
            of them left out lets the others be met. Empty where that was not looked into.
        nearest: Every requirement -> the nearest figure with which, all others kept, there is a plan; None where no
            figure would do.
        unsettled: Requirements of which the time limit left the answer open.
    """

    exit_code = 3

    def __init__(
        self,
        reasons: Sequence[str],
        *,
        hint: str = "",
        conflict: Sequence[str] = (),
        nearest: Mapping[str, float | None] = MappingProxyType({}),
        unsettled: Sequence[str] = (),
    ) -> None:
        self.reasons = tuple(reasons)
        self.conflict = tuple(conflict)
        self.nearest = dict(nearest)
        self.unsettled = tuple(unsettled)
        super().__init__("no plan is feasible: " + "; ".join(self.reasons), hint=hint)


class UnplacedError(InfeasibleError):
    """A plan in the paper's formulation has slices that its greedy placement found no place for."""


class StateError(JigsawError):
    """The system is not in the state that the command needs."""

    exit_code = 4


class MissingDependencyError(JigsawError):
    """The machine lacks something; `hint` is the command that brings it."""


class ArtifactError(JigsawError):
    """A package could not be fetched, its checksum differs, or the cache cannot be written."""

    exit_code = 2


class ServerError(JigsawError):
    """A tritonserver failed, refused or did not answer."""


class MigError(JigsawError):
    """A MIG driver refused."""


class InstanceInUseError(MigError):
    """A process still holds the MIG instance."""


class PlacementError(MigError):
    """The placement is not possible on the GPU as it stands."""


class InstanceNotFoundError(MigError):
    """No MIG instance of this UUID."""


class MigTimeoutError(MigError):
    """A call to the driver did not return; what it was to change may still happen."""
