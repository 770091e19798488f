"""Share of the known-bad rows of the A100 table that `profiles check` finds, and number of other rows that it names."""

from benchmarks import a100
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.api.profiles import check_profiles, import_profiles

TASK = "any"


def measure(progress: Progress, _effort: Effort) -> list[Figure]:
    """Measures all figures."""
    if not a100.TABLE.exists():
        progress(f"no figures of the check: {a100.TABLE} is missing")
        return []
    table = import_profiles([a100.TABLE], gpu=a100.BOARD, task=TASK)
    named = {finding.key for finding in check_profiles(table) if finding.key is not None}
    wrong = {row.key for row in table.rows() if a100.is_wrong(row.key)}
    others = named - wrong
    single = sum(key.variant == "inceptionv3" for key in others)
    note = f"of {len(table)} rows; {single} are of inceptionv3, whose single items take longer than larger batches"
    found = len(named & wrong) / len(wrong)
    return [
        figure("profiles.check.found", found, "share", f"{len(named & wrong)} of {len(wrong)} known-bad rows"),
        figure("profiles.check.others", len(others), "rows", note),
    ]
