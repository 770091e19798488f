"""Differences of the gateway's counters from one measurement to the next."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jigsaw_triton.controller.core.arrivals import arrived
from jigsaw_triton.controller.core.canary import Watch
from jigsaw_triton.controller.core.counters import counted_since
from jigsaw_triton.controller.core.request_counts import CountsByGeneration, read_request_counts, request_counts_since
from jigsaw_triton.controller.core.rows import Counts, read_counts, since
from jigsaw_triton.controller.core.slowness import ServedTimes, read_times, times_since
from jigsaw_triton.servers.metrics import Sample


@dataclass(frozen=True, slots=True)
class Measured:
    """Counts of the gateway since the last measurement.

    Attributes:
        rates_rps: Arrival rate of each graph.
        counts: Rows and branches.
        requests: Requests of each generation during a canary; empty otherwise.
        times: Service times.
    """

    rates_rps: Mapping[str, float]
    counts: Counts
    requests: CountsByGeneration
    times: ServedTimes


NOTHING = Measured({}, {}, {}, {})


class GatewayCounters:
    """Counters of the gateway at the last measurement.

    Args:
        now_s: Time at which the first interval begins, by the monotonic clock.
        adopted: True if the gateway has counted since an earlier controller started it. Its first measurement is
            `NOTHING`.
    """

    def __init__(self, now_s: float, *, adopted: bool) -> None:
        self._at_s = now_s
        self._adopted = adopted
        self._arrived: Mapping[str, float] = {}
        self._counts: Counts = {}
        self._times: ServedTimes = {}
        self._requests: CountsByGeneration | None = None

    def measured(
        self, samples: Sequence[Sample], now_s: float, graphs: Collection[str], watch: Watch | None
    ) -> Measured:
        """Returns what was counted since the last call.

        Args:
            samples: Samples of the gateway's /metrics.
            now_s: Time of the samples, by the monotonic clock.
            graphs: Names of the graphs that are served.
            watch: Comparison of the canary in progress; None without a canary.
        """
        elapsed_s, self._at_s = now_s - self._at_s, now_s
        before, self._arrived = self._arrived, arrived(samples)
        counts, self._counts = self._counts, read_counts(samples)
        times, self._times = self._times, read_times(samples)
        if self._adopted:
            self._adopted = False
            return NOTHING
        came = counted_since(before, self._arrived)
        return Measured(
            {graph: came.get(graph, 0.0) / elapsed_s for graph in graphs},
            since(counts, self._counts),
            self._of_generations(samples, watch),
            times_since(times, self._times),
        )

    def _of_generations(self, samples: Sequence[Sample], watch: Watch | None) -> CountsByGeneration:
        """Returns the requests of each generation since the last measurement, if a canary is in progress."""
        if watch is None or watch.verdict is not None:
            self._requests = None
            return {}
        before, self._requests = self._requests, read_request_counts(samples)
        return request_counts_since(before, self._requests) if before is not None else {}
