"""Deployments of the cells of a cluster, each with its own controller and gateway, together."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jigsaw_triton.api.cell_files import STATE
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.fronts import FrontFile
from jigsaw_triton.api.reporting import LOG, PYTHON, Reporter, Wording
from jigsaw_triton.api.request import Request
from jigsaw_triton.console.options import process_options
from jigsaw_triton.errors import InputError, JigsawError, SpecError, StateError
from jigsaw_triton.export.cells import CELL, CELLS, CLUSTER, FRONT
from jigsaw_triton.logs import LogFormat
from jigsaw_triton.spec import load as spec
from jigsaw_triton.spec.cluster_schema import ClusterSpec
from jigsaw_triton.spec.words import nearest

if TYPE_CHECKING:
    from jigsaw_triton.api.files import PathLike
    from jigsaw_triton.api.rollout import Rollout

    Check = Callable[[str, Rollout], None]


@dataclass(frozen=True, slots=True)
class CellFolder:
    """A cell on disk, and its deployment.

    Attributes:
        name: Name of the cell.
        folder: Folder of the cell.
        deployment: Deployment of the cell, running or not.
    """

    name: str
    folder: Path
    deployment: Deployment

    def request(self, **settings: Any) -> Request:
        """Reads the cell's files and returns the request to deploy it.

        Args:
            settings: Settings of the request.

        Raises:
            SpecError: A file has mistakes.
        """
        loaded = spec.load_cell(self.folder)
        if loaded.problems:
            raise SpecError(loaded.problems)
        entry = loaded.document.spec
        graphs = tuple(str((self.folder / path).absolute()) for path in entry.graphs.values())
        cluster = str((self.folder / CLUSTER).absolute())
        return Request(graphs=graphs, cluster=cluster, demand=dict(entry.demand), **settings)


class Cells:
    """Cells in a folder that `write_cells` has written, and their deployments.

    Args:
        folder: The folder.
        names: Names of the cells to deal with; none for all.
        log_format: See `Deployment`; for the controllers of all cells.
        controller_metrics: Port for the metrics of the first cell's controller, or address and port. Those of the other
            cells of the folder get the ports after it, in the order of their names.

    Raises:
        InputError: The folder has no cells, or none of a name, or an option is wrong.
    """

    def __init__(
        self,
        folder: "PathLike",
        names: Collection[str] = (),
        *,
        log_format: LogFormat | None = None,
        controller_metrics: str | int | None = None,
    ) -> None:
        self.folder = Path(folder)
        found = {path.parent.name: path.parent for path in sorted((self.folder / CELLS).glob(f"*/{CELL}"))}
        if not found:
            hint = "write them with `jigsaw-triton cells create`"
            raise InputError("there are no cells here", where=str(self.folder), hint=hint)
        for name in names:
            if name not in found:
                hint = nearest(name, found, "cells")
                raise InputError(f"there is no cell '{name}'", where=str(self.folder), hint=hint)
        listen = process_options(log_format, controller_metrics).metrics
        ports = [str(replace(listen, port=listen.port + n)) if listen else None for n in range(len(found))]
        self.cells = tuple(
            CellFolder(name, path, Deployment(path / STATE, log_format=log_format, controller_metrics=port))
            for (name, path), port in zip(found.items(), ports, strict=True)
            if not names or name in names
        )

    @property
    def front(self) -> FrontFile:
        """The front over all cells."""
        return FrontFile(self.folder / FRONT)

    def deploy(
        self, *, check: "Check | None" = None, reporter: Reporter = LOG, wording: Wording = PYTHON, **settings: Any
    ) -> None:
        """Deploys all cells, or updates those that run. Returns once all of them serve.

        All cells are planned before the first one starts, so that a mistake in one leaves all as they are.

        Args:
            check: Function that is called with the name and the rollout of each cell before the first one starts. An
                exception that it raises leaves all cells as they are.
            reporter: Recipient of notes and events with the name of their cell.
            wording: Form in which mistakes name an option.
            settings: Settings of `api.request.Request`, for all cells.

        Raises:
            InfeasibleError: A cell does not carry its demand.
            SpecError: There are mistakes in the files.
            JigsawError: A cell failed. The others go on.
        """
        self._check_machine()
        reporters = {cell.name: _Named(cell.name, reporter) for cell in self.cells}
        rollouts: dict[str, Rollout] = {}
        for cell in self.cells:
            own = reporters[cell.name]
            cell.deployment.adopt(reporter=own)
            with _blaming(cell.name):
                request = cell.request(**settings)
                rollouts[cell.name] = cell.deployment.prepare(request, reporter=own, wording=wording)
        if check is not None:
            for name, rollout in rollouts.items():
                with _blaming(name):
                    check(name, rollout)
        after = {}
        for cell in self.cells:
            rollout, own = rollouts[cell.name], reporters[cell.name]
            with _blaming(cell.name):
                cell.deployment.ensure_programs(rollout, own.note, own)
                after[cell.name] = cell.deployment.last_event()
                cell.deployment.roll_out(rollout, wait=False, reporter=own)
        failures: list[JigsawError] = []
        try:
            for cell in self.cells:
                own = reporters[cell.name]
                try:
                    with _blaming(cell.name):
                        cell.deployment.wait_settled(after[cell.name], own)
                except JigsawError as error:
                    if rollouts[cell.name].before is None:
                        cell.deployment.end_started(own)
                    failures.append(error)
        except KeyboardInterrupt:
            reporter.note(f"interrupted; the controllers go on: `jigsaw-triton cells status {self.folder}`")
            raise
        if failures:
            raise failures[0]

    def status(self) -> dict[str, Any]:
        """Returns the status of each cell, None for those that are not deployed, and of the front if it runs here."""
        cells = {cell.name: cell.deployment.wait_status() for cell in self.cells}
        return {
            "cells": cells,
            "front": self.front.find_status() if (self.folder / FRONT).exists() else None,
            "serving": all(status is not None and status["serving"] for status in cells.values()),
        }

    def down(self, *, reporter: Reporter = LOG) -> tuple[str, ...]:
        """Takes all cells down.

        Args:
            reporter: Recipient of the events with the name of their cell.

        Returns:
            Names of the cells that were deployed.

        Raises:
            StateError: No cell is deployed.
            JigsawError: A cell could not be taken down. The others are.
        """
        ended: list[str] = []
        missing: list[JigsawError] = []
        failures: list[JigsawError] = []
        for cell in self.cells:
            try:
                with _blaming(cell.name):
                    cell.deployment.down(reporter=_Named(cell.name, reporter))
                ended.append(cell.name)
            except JigsawError as error:
                absent = isinstance(error, StateError) and not cell.deployment.running
                (missing if absent else failures).append(error)
        if failures or not ended:
            raise [*failures, *missing][0]
        return tuple(ended)

    def _check_machine(self) -> None:
        """Refuses to deploy several cells that would all use the GPUs of this machine.

        Raises:
            InputError: Several cells would use the GPUs of this machine.
        """
        local = []
        for cell in self.cells:
            entry = spec.load_cluster(cell.folder / CLUSTER).document.spec
            if entry.engine == "local" and entry.driver != "emulated" and not _processors_only(entry):
                local.append(cell)
        if len(self.cells) > 1 and local:
            hint = (
                "write `engine: agents` in cluster.yaml, or `driver: emulated` to try it, or deploy each cell on its "
                "machine with --cell"
            )
            where = str(local[0].folder / CLUSTER)
            raise InputError("several cells cannot use the GPUs of one machine", where=where, hint=hint)


def _processors_only(entry: ClusterSpec) -> bool:
    return all(gpus.model == "cpu" for node in entry.nodes for gpus in node.gpus)


@contextmanager
def _blaming(cell: str) -> Iterator[None]:
    """Adds the name of a cell to an error."""
    try:
        yield
    except JigsawError as error:
        # Diagnostics of files already name the file and line.
        if not isinstance(error, SpecError):
            error.where = f"cell {cell}" + (f": {error.where}" if error.where else "")
        raise


class _Named:
    """A reporter that names a cell in each report.

    Args:
        name: Name of the cell.
        reporter: Recipient of the reports.
    """

    def __init__(self, name: str, reporter: Reporter) -> None:
        self._name = name
        self._reporter = reporter

    def note(self, text: str) -> None:
        """Reports progress or a minor fact."""
        self._reporter.note(f"{self._name}: {text}")

    def warn(self, text: str) -> None:
        """Reports something that should not be overlooked."""
        self._reporter.warn(f"{self._name}: {text}")
