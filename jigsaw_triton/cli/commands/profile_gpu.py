"""Measures configurations on one GPU for `jigsaw-triton profile`, and prints the progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from jigsaw_triton.api.reporting import download_progress
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.profiling import sweep_progress, warn_of_failure
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.errors import PlacementError, ServerError
from jigsaw_triton.evaluation.profiling.agenda import Agenda
from jigsaw_triton.evaluation.profiling.budget import Budget
from jigsaw_triton.evaluation.profiling.interference import interference, most_efficient
from jigsaw_triton.evaluation.profiling.measure import Profiler
from jigsaw_triton.evaluation.profiling.sweep import Outcome, Records, sweep
from jigsaw_triton.evaluation.profiling.workers import ProfilingWorkers, profiling_workers
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import ProfileKey
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import find_installation


@dataclass(frozen=True, slots=True)
class GpuProfiling:
    """Measurement of configurations on one GPU.

    Attributes:
        out: Output of the command.
        graph: Graph of the configurations.
        cluster: Cluster with the GPU.
        gpu: GPU to measure on.
        records: Files in which the outcome is kept.
        budget: Time that is left.
        outcome: Outcome of the command, which is extended.
    """

    out: Output
    graph: TaskGraph
    cluster: Cluster
    gpu: Gpu
    records: Records
    budget: Budget
    outcome: Outcome

    async def measure(self, agenda: Agenda, keys: Sequence[ProfileKey], neighbours: int) -> None:
        """Measures the configurations of an agenda, and the best ones of `keys` with neighbours if there are any."""
        out, graph = self.out, self.graph
        with out.working("looking for tritonserver") as report:
            installation = find_installation(download_progress(report))
        async with profiling_workers(installation, self.cluster, self.gpu) as workers:
            for kind in agenda.leave_out(lambda kind: not workers.has_room(kind)):
                out.warn(f"{self.gpu.id} has no room for a {kind} slice beside the instances of others; it is left out")
            if not agenda.kinds:
                return
            profiler = Profiler(graph, workers, load_templates(templates_dir()), out.warn)
            with out.working("computing inputs from the graph's samples") as report:
                await profiler.prepare(agenda.tasks, agenda.kinds[0], report)
            with sweep_progress(out) as begin:
                await sweep(
                    profiler, agenda, self.records, self.budget, self.outcome, begin, partial(warn_of_failure, out)
                )
            if neighbours:
                await self._interference(profiler, workers, keys, neighbours)

    async def _interference(
        self, profiler: Profiler, workers: ProfilingWorkers, keys: Sequence[ProfileKey], neighbours: int
    ) -> None:
        table = self.records.sheet.table
        rows = [row for key in keys if (row := table.get(key)) is not None]
        best = most_efficient(rows, self.graph.slo.latency_ms)
        for number, key in enumerate(best):
            pace = self.budget.pace(2 * (len(best) - number))
            if pace is None:
                self.outcome.complete = False
                return
            self.out.note(f"measuring {key.words} with {neighbours} neighbours, idle and busy")
            try:
                found = await interference(profiler, workers, key, neighbours, pace)
            except (PlacementError, ServerError) as error:
                self.out.warn(f"{key.words} was not measured with neighbours: {error.message}")
                await workers.stop()
                continue
            self.outcome.interference.append(found)
