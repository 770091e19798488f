"""The hierarchy of all errors that a user can see.

JigsawError                     exit code 1
├── InputError                  exit code 2: the user's input is wrong
│   └── SpecError               carries one diagnostic for each mistake in the input files
├── InfeasibleError             exit code 3: no plan meets the requirements; carries the reasons
│   ├── UnplacedError           the paper's greedy placement left slices without a place
│   └── OverloadedGatewayError  the gateway of a cell does not carry the cell
├── StateError                  exit code 4: the system is not in the state that the command needs
├── MissingDependencyError      exit code 1: the machine lacks a dependency; the hint says how to install it
├── ArtifactError               exit code 2: a download, a checksum or a cache folder is wrong
├── ServerError                 exit code 1: a tritonserver failed, refused a call or did not answer
└── MigError                    exit code 1: a MIG driver refused an operation
    ├── InstanceInUseError      a process still holds the MIG instance
    ├── PlacementError          the GPU's current layout does not allow the placement
    ├── InstanceNotFoundError   no MIG instance has this UUID
    └── MigTimeoutError         a call did not return in time; its change may still take effect
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


class JigsawError(Exception):
    """Base of all errors shown to users.

    Args:
        message: Description of what is wrong: one sentence without a final full stop.
        where: Location of the error: `file:line`, a worker's name or a path. Empty if there is none.
        hint: Advice on how to fix it. Empty if there is none.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Returns the constructor and state for pickle.

        Exception's own would call the class with `args`, which are not the arguments of each subclass.
        """
        return _again, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"; {self.hint}" if self.hint else ""
        return f"{place}{self.message}{remedy}"


def error_text(error: BaseException) -> str:
    """Returns the text of an error. One that is not of this project gets the name of its class, for its developers."""
    return str(error) if isinstance(error, JigsawError) else f"{type(error).__name__}: {error}"


def _again(kind: type[JigsawError], args: tuple[object, ...], attributes: Mapping[str, object]) -> JigsawError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class InputError(JigsawError):
    """The user's input is wrong."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake in an input file.

    Attributes:
        file: Path as the user gave it.
        line: Line number, from 1; 0 if the mistake belongs to no line, as with a missing file.
        message: Description of what is wrong.
        hint: Advice on how to correct it.
    """

    file: str
    line: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class SpecError(InputError):
    """All mistakes that were found in the user's files.

    Args:
        diagnostics: Mistakes, at least one, ordered by file and line.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(d) for d in self.diagnostics))


class InfeasibleError(JigsawError):
    """No plan meets the requirements.

    Args:
        reasons: Reasons, each a sentence in the terms of the user's files.
        hint: Change that would make a plan feasible.
        conflict: Minimal set of requirements, such as `traffic.latency_ms` or `A100-80GB.gpus`, that cannot be
            satisfied together: dropping any one of them makes the rest feasible. Empty if it was not computed.
        nearest: Requirement -> the nearest value that makes a plan feasible while all other requirements are kept;
            None if no value does.
        unsettled: Requirements for which the time limit left open whether they belong to the conflict, or what their
            nearest value is.
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
    """The paper's greedy placement found no place for some slices of a plan."""


class OverloadedProcessorError(InfeasibleError):
    """A plan's slices suffice, but the processors that they share do not."""


class OverloadedGatewayError(InfeasibleError):
    """The gateway of a cell does not carry the cell's share of the demand.

    Args:
        reasons: The cell and its load, as a sentence.
        hint: Change that would make a plan feasible.
        load: Load of the gateway, as a share of its limits; above 1.
    """

    def __init__(self, reasons: Sequence[str], *, hint: str = "", load: float) -> None:
        self.load = load
        super().__init__(reasons, hint=hint)


class StateError(JigsawError):
    """The system is not in the state that the command needs."""

    exit_code = 4


class MissingDependencyError(JigsawError):
    """The machine lacks a dependency; `hint` says how to install it."""


class ArtifactError(JigsawError):
    """A package could not be fetched, its checksum differs, or the cache cannot be written."""

    exit_code = 2


class ServerError(JigsawError):
    """A tritonserver failed, refused a call or did not answer."""


class RefusedError(ServerError):
    """A tritonserver refused a request that it could not serve in time. Another one may be served."""


class MigError(JigsawError):
    """A MIG driver refused an operation."""


class GpuLostError(MigError):
    """The GPU has fallen off the bus, or must be reset before it computes again."""


class InstanceInUseError(MigError):
    """A process still holds the MIG instance."""


class PlacementError(MigError):
    """The GPU's current layout does not allow the placement."""


class InstanceNotFoundError(MigError):
    """No MIG instance has this UUID."""


class MigTimeoutError(MigError):
    """A call to the driver did not return in time; its change may still take effect."""
