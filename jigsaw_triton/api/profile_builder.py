"""Building profiles in Python. They pass the same checks as files and raise the same errors."""

from dataclasses import replace
from typing import Literal, Self

from jigsaw_triton.api.call_sites import position
from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.profiles.read import parse_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable


class ProfileBuilder:
    """Builds profiles, with the same checks as a profiles.csv. Mistakes have the file and line of the call.

    Args:
        gpu: GPU model of the rows, such as `A100-80GB`.

    Examples:
        >>> import jigsaw_triton as jt
        >>> table = (
        ...     jt.ProfileBuilder("A100-80GB")
        ...     .row("classify", "b0", "1g", batch=8, latency_ms=(9.0, 9.5, 11.0), throughput_rps=820, memory_mib=900)
        ...     .row("classify", "b0", "2g", batch=8, latency_ms=(5.1, 5.4, 6.0), throughput_rps=1480, memory_mib=900)
        ...     .build()
        ... )
        >>> len(table)
        2
    """

    def __init__(self, gpu: str) -> None:
        self._gpu = gpu
        self._rows: dict[ProfileKey, tuple[ProfileRow, str, int]] = {}
        self._problems: list[Diagnostic] = []

    def on(self, gpu: str) -> Self:
        """Sets the GPU model of the rows that follow."""
        self._gpu = gpu
        return self

    def row(
        self,
        task: str,
        variant: str,
        slice: str,
        *,
        batch: int,
        latency_ms: tuple[float, float, float],
        throughput_rps: float,
        memory_mib: float,
        instances: int = 1,
        source: Literal["measured", "fitted", "assumed"] = "assumed",
    ) -> Self:
        """Adds a configuration of a variant.

        Args:
            task: Name of the task.
            variant: Name of the variant.
            slice: Kind of MIG instance: `1g`, `1gx2`, `2g`, `3g`, `4g` or `7g`.
            batch: Size of the batches.
            latency_ms: Latency of one batch while all instances are busy, in milliseconds: p50, p95 and p99.
            throughput_rps: Items a second of all instances together.
            memory_mib: Memory of all instances together, in MiB.
            instances: Triton instance count of the model in the slice.
            source: Origin of the figures.
        """
        key = ProfileKey(self._gpu, task, variant, slice, instances, batch)
        file, line = position()
        if key in self._rows:
            hint = f"the first is on line {self._rows[key][2]}"
            self._problems.append(Diagnostic(file, line, "this configuration is repeated", hint))
        else:
            row = ProfileRow(key, *latency_ms, throughput_rps, memory_mib, source)
            self._rows[key] = row, file, line
        return self

    def build(self) -> ProfileTable:
        """Checks the rows and returns the table.

        Raises:
            SpecError: There are mistakes; the error has a diagnostic for each, with file and line of the call.
        """
        problems = [*self._problems]
        for row, file, line in self._rows.values():
            try:
                parse_profiles(write_profiles([row]), file)
            except SpecError as error:
                problems += [replace(diagnostic, line=line) for diagnostic in error.diagnostics]
        if problems:
            raise SpecError(problems)
        return ProfileTable(row for row, _, _ in self._rows.values())
