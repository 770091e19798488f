"""Benchmark of MIG through NVML, on a stand-in for NVIDIA's library: layouts, recovery from kills and faults, reads.

pynvml, the driver and the journal are real. So are the tritonservers that serve while layouts change.
"""

import asyncio
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks import harness, system
from benchmarks.controller.changes import clients, document
from benchmarks.harness import Figure, Progress, figure, spread
from benchmarks.system import System
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import MigError, PlacementError, ServerError
from jigsaw_triton.gpus.catalog import CATALOG, board
from jigsaw_triton.gpus.layouts import fits, maximal_layouts
from jigsaw_triton.gpus.model import Board, Cluster, GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.servers.installation import Installation, find_installation
from tests.fakes.nvml.machine import Action, Machine, enter
from tests.fakes.nvml.transitions import (
    DONE,
    REFUSED,
    Owner,
    Transition,
    fewest_changes,
    plausible_codes,
    transitions,
)

TRANSITIONS = 50
"""Number of random transitions in which the process is killed and calls fail."""

READ_TRANSITIONS = 2
"""Number of transitions in which this is done at every call, including calls that only read."""

SEED = 7
TRIES = 300
"""Placements that are tried on each board in random states."""

BOARDS = tuple(name for name, item in CATALOG.items() if item.nvml_names)
READ_GPUS, READ_ROUNDS = 8, 20
PROCESSES, ROUNDS = 4, 60
CRASHES: tuple[Action, ...] = ("crash before", "crash after")

SERVED = "cpu"
"""Board of the deployment. It is not a GPU, because the stand-in has no CUDA."""

SERVED_RPS = 50.0
SERVED_MS = 2000
"""Latency SLO, so long that no request is refused as late on a busy machine."""

MEMORY = Path("/dev/shm")
GPU = GpuId("n", 0)


def layouts(folder: Path, progress: Progress) -> Figure:
    """Measures the share of layouts and placements that are created or refused as MIG's rule says, on every board."""
    right = wrong = made = 0
    for name in BOARDS:
        item = board(name)
        with entered(Machine(folder / "layouts", [name])):
            driver = NvmlMigDriver(GPU.node, {0: item})
            for layout in maximal_layouts(item):
                made += 1
                for placement in random.Random(SEED + made).sample(layout, len(layout)):
                    driver.create(GPU, placement)
                good = tuple(i.placement for i in driver.instances()) == layout
                right, wrong = right + good, wrong + (not good)
                clear(driver)
            hits = _random_placements(driver, item)
            right, wrong = right + hits, wrong + TRIES - hits
        progress(f"layouts of {name}")
    note = (
        f"{made} maximal layouts of {len(BOARDS)} boards created in random order, and {TRIES} random placements on "
        "each board created or refused as MIG's rule says"
    )
    return figure("mig.layouts", right / (right + wrong), "share", note, at_least=1.0)


def _random_placements(driver: NvmlMigDriver, item: Board) -> int:
    """Counts the random placements, of `TRIES`, that are created or refused as MIG's rule says."""
    chance = random.Random(SEED)
    kinds = [*item.profiles, *(f"{kind}+me" for kind in item.media_profiles)]
    right = 0
    present: list[Placement] = []
    for _ in range(TRIES):
        placement = Placement(chance.randint(0, item.memory_slices), chance.choice(kinds))
        possible = fits(item, [*present, placement]) is None
        try:
            driver.create(GPU, placement)
        except PlacementError:
            right += not possible
            if chance.random() < 0.2:
                clear(driver)
                present = []
        else:
            right += possible
            present.append(placement)
    clear(driver)
    return right


def clear(driver: NvmlMigDriver) -> None:
    """Destroys all instances."""
    for instance in driver.instances():
        driver.destroy(instance.uuid)


@contextmanager
def entered(machine: Machine) -> Iterator[Machine]:
    """Makes this process use the machine inside the `with` block."""
    machine.enter()
    try:
        yield machine
    finally:
        machine.leave()


def kill_points(folder: Path, progress: Progress, changes: Sequence[Transition]) -> Figure:
    """Measures the share of kills after which another process completes the transition."""
    wrong: list[str] = []
    runs = 0
    for number, transition in enumerate(changes):
        with Owner(folder, transition) as owner:
            points = [("change", nth, action) for nth in range(1, len(owner.changes()) + 1) for action in CRASHES]
            if number < READ_TRANSITIONS:
                points += [("*", nth, CRASHES[0]) for nth in range(1, len(owner.calls()) + 1)]
            found = [owner.killed_at(*point) for point in points]
        runs += len(found)
        wrong += filter(None, found)
        if number % 10 == 9:
            progress(f"killed {runs} times in {number + 1} transitions")
    note = (
        f"{runs} kills before and after each change of {len(changes)} random transitions beside others' instances, in "
        f"{READ_TRANSITIONS} of them before every call; another process completes them{_first(wrong)}"
    )
    return figure("mig.kill_points", 1 - len(wrong) / runs, "share", note, at_least=1.0)


def fault_points(folder: Path, progress: Progress, changes: Sequence[Transition]) -> Figure:
    """Measures the share of failures of single calls that are repaired, for each plausible error of each change."""
    wrong: list[str] = []
    endings: Counter[int] = Counter()
    for number, transition in enumerate(changes):
        with Owner(folder, transition) as owner:
            calls = [call.name for call in owner.calls()] if number < READ_TRANSITIONS else owner.changes()
            which = "*" if number < READ_TRANSITIONS else "change"
            for nth, name in enumerate(calls, 1):
                for code in plausible_codes(name):
                    ending, fault = owner.failed_at(which, nth, code)
                    endings[ending] += 1
                    wrong += filter(None, [fault])
        if number % 10 == 9:
            progress(f"failed {endings.total()} times in {number + 1} transitions")
    note = (
        f"{endings.total()} failures of one change in {len(changes)} transitions, in {READ_TRANSITIONS} of them of any "
        f"call: {endings[DONE]} repaired at once, {endings[REFUSED]} reported and repaired by the next process"
        f"{_first(wrong)}"
    )
    return figure("mig.fault_points", 1 - len(wrong) / endings.total(), "share", note, at_least=1.0)


def _first(wrong: Sequence[str]) -> str:
    return f"; first of {len(wrong)} that went wrong: {wrong[0]}" if wrong else ""


def transition_calls(folder: Path, changes: Sequence[Transition]) -> Figure:
    """Measures the calls that transitions make, relative to the fewest possible."""
    made = 0
    for transition in changes:
        with Owner(folder, transition) as owner:
            made += len(owner.changes())
    fewest = sum(map(fewest_changes, changes))
    note = (
        f"{made} calls with changes in {len(changes)} transitions; the fewest are two to create or destroy an instance"
    )
    return figure("mig.transition_calls", made / fewest, "ratio", note, at_most=1.0)


def read_ms(folder: Path) -> Figure:
    """Measures the time to read full boards."""
    with entered(Machine(folder / "read", ["A100-80GB"] * READ_GPUS)):
        driver = NvmlMigDriver(GPU.node, dict.fromkeys(range(READ_GPUS), board("A100-80GB")))
        for index in range(READ_GPUS):
            for start in range(7):
                driver.create(GpuId(GPU.node, index), Placement(start, "1g"))
        times = []
        for _ in range(READ_ROUNDS):
            began = time.perf_counter()
            found = len(driver.instances())
            times.append(1000 * (time.perf_counter() - began))
    note = (
        f"{found} instances on {READ_GPUS} boards, median of {READ_ROUNDS}, {spread(times)}; the stand-in takes no time"
    )
    return figure("mig.read_ms", median(times), "ms", note, at_most=50)


def concurrent(folder: Path) -> Figure:
    """Counts double owners, and errors without a reason, while several processes change one board."""
    context = multiprocessing.get_context("spawn")
    with entered(Machine(folder / "concurrent", ["A100-80GB"])) as machine:
        with context.Pool(PROCESSES) as pool:
            ended = pool.starmap(
                _compete, [(machine.path, folder / f"owner{number}.sqlite", number) for number in range(PROCESSES)]
            )
        present = Counter(i.uuid for i in NvmlMigDriver(GPU.node, {}).instances())
    owned = Counter(uuid for uuids, _, _ in ended for uuid in uuids)
    unexplained = [text for _, _, texts in ended for text in texts]
    wrong = len(unexplained) + sum(((owned - present) + (present - owned)).values())
    changes = sum(count for _, count, _ in ended)
    note = f"double owners and errors without a reason; {changes} changes of {PROCESSES} processes on one board"
    return figure("mig.concurrent", wrong, "", note + "".join(f"; {text}" for text in unexplained[:1]), at_most=0)


def _compete(machine: Path, journal_file: Path, seed: int) -> tuple[list[str], int, list[str]]:
    """Makes random changes as one owner.

    Returns:
        UUIDs of its instances, number of its changes, and errors without a reason.
    """
    enter(machine)
    chance = random.Random(seed)
    item = board("A100-80GB")
    places = [Placement(start, kind) for kind, profile in item.profiles.items() for start in profile.starts]
    changes, unexplained = 0, []
    with closing(Journal(journal_file)) as journal:
        instances = Instances(journal, NvmlMigDriver(GPU.node, {0: item}))
        for _ in range(ROUNDS):
            mine = journal.instances()
            try:
                if mine and chance.random() < 0.4:
                    instances.destroy(chance.choice(mine).uuid)
                else:
                    instances.create(GPU, chance.choice(places))
                changes += 1
            except PlacementError:
                continue
            except MigError as error:
                unexplained.append(str(error))
        return [i.uuid for i in journal.instances()], changes, unexplained


async def untouched(folder: Path, installation: Installation, progress: Progress) -> Figure:
    """Counts failed requests on instances that two layouts have in common, while one layout becomes the other."""
    cluster = replace(system.cluster(SERVED), driver="nvml")
    with entered(Machine(folder / "served", [SERVED])) as machine:
        machine.delays(create_ms=200, destroy_ms=1000)
        async with system.system(installation) as running:
            await running.deploy(_wanted(folder, "1g", cluster))
            before = _uuids(running)
            progress("serving on the first layout")
            with clients(f"127.0.0.1:{cluster.gateway.grpc}") as answers:
                await asyncio.sleep(1.0)
                for kind in ("2g", "3g", "1g"):
                    sent = len(answers)
                    await running.deploy(_wanted(folder, kind, cluster))
                    progress(f"detect moved to {kind}, {len(answers) - sent} requests meanwhile")
                await asyncio.sleep(1.0)
            after = _uuids(running)
    stayed = {uuid: name for uuid, name in before.items() if "classify" in name}
    if not stayed or not stayed.items() <= after.items():
        raise ServerError(
            f"instances that should stay are gone: before {sorted(before.values())}, after {sorted(after.values())}"
        )
    failed = sum(bool(answer.error) for answer in answers)
    note = (
        f"of {len(answers)} requests, through {len(stayed)} instances that stayed while others were destroyed and "
        "created three times; real tritonservers, 200 ms a creation, 1000 ms a destruction"
    )
    return figure("mig.untouched", failed, "failed", note, at_most=0)


def _wanted(folder: Path, kind: str, cluster: Cluster) -> Wanted:
    """Returns a deployment of two tasks in a chain: the first on this kind of slice, the second on 1g."""
    graph = system.read_graph(folder / "app", document(SERVED_MS))
    rows = [_profile("detect", variant, kind, ms) for variant, ms in (("large", 10.0), ("small", 4.0))]
    table = ProfileTable([*rows, _profile("classify", "only", "1g", 40.0)])
    return Wanted({graph.name: graph}, {graph.name: SERVED_RPS}, {graph.name: table}, cluster)


def _profile(task: str, variant: str, kind: str, ms: float) -> ProfileRow:
    return ProfileRow(ProfileKey(SERVED, task, variant, kind, 1, 1), ms, ms, ms, 1000 / ms, 60.0, "assumed")


def _uuids(running: System) -> dict[str, str]:
    """Returns UUID of each worker's instance -> name of the worker and its tasks."""
    generation = running.controller.state.running
    assert generation is not None
    found = {}
    for name, worker in generation.bundle.workers.items():
        server = running.fleet.server(name)
        assert server is not None
        found[server.uuid] = f"{name} {' '.join(model.task for model in worker.models)}"
    return found


def measure(progress: Progress) -> Sequence[Figure]:
    """Measures all figures."""
    installation = find_installation()
    # Keep journals in memory if possible: durability across a crash of the machine is not measured here.
    with tempfile.TemporaryDirectory(prefix="jigsaw-mig-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        figures = [system.run(untouched(folder, installation, progress))]
        with harness.alarm():
            changes = transitions(TRANSITIONS, SEED)
            figures += [read_ms(folder), transition_calls(folder, changes), concurrent(folder)]
            figures.append(layouts(folder, progress))
            figures.append(kill_points(folder, progress, changes))
            figures.append(fault_points(folder, progress, changes))
    return figures


if __name__ == "__main__":
    os.environ.pop("NVML_STANDIN", None)
    sys.exit(harness.main("mig", measure))
