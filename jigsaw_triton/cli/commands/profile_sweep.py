"""Measures the configurations of `jigsaw-triton profile`, and completes profiles.csv with fitted rows."""

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jigsaw_triton.api.files import shown_path
from jigsaw_triton.api.profiles import memory_rooms, model_digests, report_path, write_report
from jigsaw_triton.cli.commands.profile_gpu import GpuProfiling
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.profiling import Result, print_result, warn_of_doubts
from jigsaw_triton.errors import InputError, MissingDependencyError
from jigsaw_triton.evaluation.profiling.agenda import Agenda, default_points
from jigsaw_triton.evaluation.profiling.budget import Budget
from jigsaw_triton.evaluation.profiling.completion import can_fit, completed, outdated
from jigsaw_triton.evaluation.profiling.sweep import Outcome, Records
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.fit import LatencyFit
from jigsaw_triton.profiles.read import read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable

ALL = "all"
"""Number of points that stands for all configurations."""

_FAILED = 1


class ProfileSweep:
    """Measurement of configurations on one GPU of each model.

    Args:
        out: Output of the command.
        graph: Graph of the configurations.
        cluster: Cluster with the GPUs.
        gpus: GPU model -> GPU to measure on.
        keys: GPU model -> configurations.
        records: Files in which the outcome is kept.
    """

    def __init__(
        self,
        out: Output,
        graph: TaskGraph,
        cluster: Cluster,
        gpus: Mapping[str, Gpu],
        keys: Mapping[str, Sequence[ProfileKey]],
        records: Records,
    ) -> None:
        self._out = out
        self._graph = graph
        self._cluster = cluster
        self._gpus = gpus
        self._keys = keys
        self._every = [key for group in keys.values() for key in group]
        self._records = records
        self._digests = model_digests(records.sheet.table, graph)

    def run(self, points: int | str | None, budget: Budget, neighbours: int) -> int | None:
        """Measures, fits and prints the configurations. Returns the exit status.

        Args:
            points: Number of configurations of each variant to measure, or `ALL`; None for the default.
            budget: Time for the measurements.
            neighbours: Number of other slices beside which the best configurations are measured too.

        Raises:
            MissingDependencyError: A number of points is wanted, but scipy is not installed.
            InputError: A file cannot be written.
        """
        limit = _limit(self._out, points)
        old = self._outdated(self._records.sheet.table) & set(self._every)
        self._print_left_out(old)
        agendas = {name: self._agenda(group, limit, old) for name, group in self._keys.items()}
        due = {name: agenda for name, agenda in agendas.items() if neighbours or agenda.round()}
        machine = _machine(self._out)
        outcome = self._measure(due, budget, neighbours)
        fits = self._fit(finished=outcome.complete)
        warn_of_doubts(self._out, outcome.measured)
        return self._print_result(outcome, fits, machine)

    def _measure(self, due: Mapping[str, Agenda], budget: Budget, neighbours: int) -> Outcome:
        """Measures the agendas, by GPU model. When it is interrupted, what was measured is fitted."""
        records, outcome = self._records, Outcome()
        if due:
            records.sheet.require_writable()
            records.failures.remove(set(self._every) - set(records.failed))
        try:
            for name, agenda in due.items():
                run = GpuProfiling(self._out, self._graph, self._cluster, self._gpus[name], records, budget, outcome)
                asyncio.run(run.measure(agenda, self._keys[name], neighbours))
        except KeyboardInterrupt:
            path, count = shown_path(records.sheet.path), len(outcome.measured)
            self._out.note(f"interrupted; {path} has the {count} configurations that were measured")
            self._fit(finished=False)
            raise
        except InputError:
            self._print_unwritten(outcome)
            raise
        if records.again is not None and outcome.complete:
            records.again.finish(self._every)
        return outcome

    def _outdated(self, table: ProfileTable) -> frozenset[ProfileKey]:
        return outdated(table, processes=self._cluster.processes, digests=self._digests)

    def _agenda(self, keys: Sequence[ProfileKey], limit: int | str | None, old: Collection[ProfileKey]) -> Agenda:
        variants = {(key.task, key.variant) for key in keys}
        default = default_points(len(keys) // len(variants))
        points = default if limit is None else None if isinstance(limit, str) else limit
        records = self._records
        measured = {row.key: row.latency_p50_ms for row in records.known if row.key not in old}
        rows = records.sheet.table.rows() if records.again is not None else ()
        required = {row.key for row in rows if row.source == "measured"}
        return Agenda(keys, points, self._graph.slo.latency_ms, measured, records.failed, required)

    def _fit(self, *, finished: bool) -> Mapping[str, LatencyFit]:
        """Adds fitted rows to the file. Returns the fits; none without scipy.

        The outdated rows of the sweep stay until it is finished, so that an interrupted one loses nothing.
        """
        records = self._records
        records.sheet.refresh()
        before = records.sheet.table
        old = self._outdated(before)
        outdated_rows = {row.key: row for row in before.rows() if row.key in old and row.key in self._every}
        table = ProfileTable(row for row in before.rows() if row.key not in outdated_rows)
        fits: Mapping[str, LatencyFit] = {}
        if can_fit():
            with self._out.working("fitting the configurations that were not measured"):
                table, fits = completed(before, self._every, records.failures.reasons, _rooms(), old)
        if not finished:
            table = ProfileTable(({row.key: row for row in table.rows()} | outdated_rows).values())
        if table.rows() != before.rows():
            records.sheet.replace(table.rows())
        return fits

    def _print_left_out(self, old: Collection[ProfileKey]) -> None:
        """Prints how many rows count as not measured, and how many configurations are not measured again.

        Args:
            old: Configurations whose rows are outdated.
        """
        records = self._records
        if old:
            self._out.warn(
                f"{len(old)} rows of {shown_path(records.sheet.path)} are outdated and count as not measured: their "
                "instances were of another kind than those of the cluster, or their model has changed"
            )
        if records.again is not None and (done := records.again.done & set(self._every)):
            self._out.note(
                f"{len(done)} configurations were measured again before a run ended early and are left out; delete "
                f"{shown_path(records.again.path)} to measure them too"
            )

    def _print_unwritten(self, outcome: Outcome) -> None:
        """Prints the measured rows that the file does not have, because it could not be written."""
        path = self._records.sheet.path
        written = {row.key: row for row in read_profiles(path).rows()} if path.exists() else {}
        lost = [found.row for key, found in outcome.measured.items() if written.get(key) != found.row]
        if lost:
            self._out.warn("these rows are not in the file:")
            self._out.note(write_profiles(lost).rstrip())

    def _print_result(self, outcome: Outcome, fits: Mapping[str, LatencyFit], machine: Mapping[str, Any]) -> int | None:
        """Prints the result, and writes the report. Returns the exit status."""
        records = self._records
        failed = {key: records.failures.reasons[key] for key in self._every if key in records.failures.reasons}
        result = Result(
            file=records.sheet.path,
            report=self._report(),
            failures_file=records.failures.path,
            configurations=len(self._every),
            rows=[row for key in self._every if (row := records.sheet.table.get(key)) is not None],
            failed=failed,
            outcome=outcome,
            fits=fits,
            machine=machine,
            again=records.again is not None,
        )
        print_result(self._out, result)
        return _FAILED if failed else None

    def _report(self) -> Path | None:
        """Writes the report beside the profiles. Returns its path; None if it cannot be written."""
        sheet = self._records.sheet
        path = report_path(sheet.path)
        try:
            with self._out.working("writing the report"):
                write_report(self._graph, sheet.table, path, profiles=sheet.path)
        except InputError as error:
            self._out.warn(f"there is no report: {error.message}")
            return None
        return path


def _limit(out: Output, wanted: int | str | None) -> int | str | None:
    """Returns the wanted number of points. Without scipy, which chooses the points and fits the others, it is `ALL`.

    Raises:
        MissingDependencyError: A number is wanted, but scipy is not installed.
    """
    if can_fit() or wanted == ALL:
        return wanted
    hint = "pip install 'jigsaw-triton[fit]'"
    if wanted is not None:
        raise MissingDependencyError(f"scipy is needed for --points {wanted}, but not installed", hint=hint)
    out.note(f"scipy is not installed, so all configurations are measured: none can be fitted ({hint})")
    return ALL


def _rooms() -> dict[tuple[str, str], float]:
    return {(gpu, kind): room for gpu, kinds in memory_rooms().items() for kind, room in kinds.items()}


def _machine(out: Output) -> dict[str, Any]:
    """Returns cores and load, which the figures depend on. Warns if other programs keep the machine busy."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if load > cores / 2:
        out.warn(
            f"the machine is busy (load average {load:.1f} on {cores} cores): expect worse figures than on an idle one"
        )
    return {"cores": cores, "load_average": round(load, 2)}
