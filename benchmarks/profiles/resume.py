"""Configurations that are measured twice, and rows that are lost, if `profile` is killed at random times."""

import random
import re
import subprocess
import time
from pathlib import Path

from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.profiles.command import LIMIT_S, application, command, environment
from jigsaw_triton.errors import ServerError
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow

APPLICATION = "digits"
SWEEP = ("--points", "all", "--seconds", "0.3", "--variant", "scale")
GRID = ("--variant", "linear", "--instances", "1,2", "--batches", "1,2,4,8")
SMALL_GRID = ("--instances", "1", "--batches", "1,2,4")
"""Sweep of a smoke run."""

KILLS = 10
LIFE_S = (0.0, 4.0)
"""Shortest and longest life of a run after its first measurement has begun."""

SEED = 2603
_POLL_S = 0.05

_BEGUN = re.compile(r"measuring ([\w-]+)\.([\w-]+) on (\w+), ([0-9]+) x batch ([0-9]+)")


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    kills = effort.count(KILLS)
    grid = GRID if effort.load_share == 1 else SMALL_GRID
    rng = random.Random(SEED)
    twice: set[ProfileKey] = set()
    changed = 0
    known: dict[ProfileKey, ProfileRow] = {}
    with application(APPLICATION) as folder:
        file = folder / "profiles.csv"
        for number in range(kills + 1):
            life_s = rng.uniform(*LIFE_S) if number < kills else None
            begun = _run(folder, grid, life_s)
            twice |= known.keys() & begun
            rows = {row.key: row for row in read_profiles(file).rows()} if file.exists() else {}
            changed += sum(rows.get(key) != row for key, row in known.items())
            known = rows
            when = "to its end" if life_s is None else f"killed {life_s:.1f} s after its first measurement began"
            progress(f"resume: run {number + 1} {when}, {len(known)} rows")
    what = f"{kills} kills (SIGKILL) at random times during a sweep of {len(known)} configurations of {APPLICATION}"
    return [
        figure("profiles.resume", len(twice), "points", f"points measured again despite a row; {what}", at_most=0),
        figure("profiles.resume.lost", changed, "rows", f"rows lost or changed; {what}", at_most=0),
    ]


def _run(folder: Path, grid: tuple[str, ...], life_s: float | None) -> set[ProfileKey]:
    """Runs `profile` and kills it after a time, if there is one. Returns the configurations that it began."""
    messages = folder / "messages.txt"
    with messages.open("w") as file:
        process = subprocess.Popen(
            command("profile", str(folder), *SWEEP, *grid),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
        end_s = time.monotonic() + LIMIT_S
        try:
            while process.poll() is None and time.monotonic() < end_s:
                if life_s is not None and _BEGUN.search(messages.read_text()):
                    end_s, life_s = time.monotonic() + life_s, None
                time.sleep(_POLL_S)
            status = process.poll()
        finally:
            process.kill()
            process.wait()
    text = messages.read_text()
    if status not in (None, 0):
        raise ServerError(f"profile exits with {status}: {text}")
    return {
        ProfileKey("cpu", task, variant, kind, int(instances), int(batch))
        for task, variant, kind, instances, batch in _BEGUN.findall(text)
    }
