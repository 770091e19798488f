"""Completes a sweep: adds fitted rows for the configurations that were not measured. This needs scipy."""

from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec

from jigsaw_triton.evaluation.profiling.agenda import configuration
from jigsaw_triton.profiles.design import beyond
from jigsaw_triton.profiles.filling import Rooms, fitted_rows
from jigsaw_triton.profiles.fit import LatencyFit, fit_latency
from jigsaw_triton.profiles.latency_model import Configuration
from jigsaw_triton.profiles.table import Processes, ProfileKey, ProfileTable


def can_fit() -> bool:
    """Returns True if scipy is installed."""
    return find_spec("scipy") is not None


def outdated(
    table: ProfileTable, processes: Processes, digests: Mapping[tuple[str, str], str]
) -> frozenset[ProfileKey]:
    """Returns the configurations that were measured as other instances than those of a cluster, or of another model.

    Args:
        table: Known rows.
        processes: Kind of the cluster's instances.
        digests: (task, variant) -> digest of its present model.
    """
    present = {
        row.key
        for row in table.rows()
        if row.holds_for(processes) and row.model in ("", digests.get((row.key.task, row.key.variant), row.model))
    }
    return frozenset(row.key for row in table.rows() if row.source == "measured" and row.key not in present)


def completed(
    table: ProfileTable,
    keys: Sequence[ProfileKey],
    failed: Collection[ProfileKey],
    rooms: Rooms,
    old: Collection[ProfileKey] = (),
) -> tuple[ProfileTable, Mapping[str, LatencyFit]]:
    """Fits rows for the configurations of a sweep that were not measured. Earlier fitted rows of them are replaced.

    Configurations that failed, and larger ones on the same kind of slice, get no rows.

    Args:
        table: Known rows.
        keys: Configurations of the sweep.
        failed: Configurations that failed.
        rooms: Memory of the slices.
        old: Configurations whose rows are outdated: nothing is fitted to them, and those of the sweep are replaced.

    Returns:
        The table with the fitted rows, and the fits by GPU model.

    Raises:
        MissingDependencyError: Scipy is not installed.
    """
    failures: dict[tuple[str, str, str], list[Configuration]] = {}
    for key in failed:
        failures.setdefault((key.gpu, key.task, key.variant), []).append(configuration(key))
    replaced, gpus = set(keys), {key.gpu for key in keys}
    kept = [row for row in table.rows() if row.source != "fitted" or row.key not in replaced]
    wanted = [key for key in keys if not beyond(configuration(key), failures.get((key.gpu, key.task, key.variant), ()))]
    current = [row for row in kept if row.key not in old]
    fits = fit_latency(row for row in current if row.key.gpu in gpus)
    others = [row for row in kept if row.key in old and row.key not in replaced]
    return ProfileTable([*current, *others, *fitted_rows(ProfileTable(current), fits, wanted, rooms=rooms)]), fits
