"""Canary: a new generation answers a share of the requests, until a rule promotes it or rolls it back. Pure.

The rule compares the requests that were bound to either generation in the same time:

- Errors: the new generation is rolled back if it fails more requests than chance explains (Fisher's exact test,
  one-sided).
- Latency: it is rolled back if more than 1% of its answers take longer than `RATIO` times the running generation's 99th
  percentile, by more than chance explains (binomial test, one-sided).
- At the deadline it is rolled back if it had fewer than `LEAST` requests of a graph, and promoted otherwise.

Both tests run once a second. `LEVEL` bounds the probability that a generation that is as good as the running one is
rolled back by chance: half of it is for the test at the deadline, the other half is divided among the tests before.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from jigsaw_triton.controller.core.generation import Canary, Generation
from jigsaw_triton.controller.core.request_counts import CountsByGeneration, RequestCounts

LEVEL = 0.01
"""Probability that a canary as good as the running generation is rolled back by chance."""

RATIO = 1.5
"""Ratio of the new to the running generation's 99th percentile of latency that is still accepted."""

LEAST = 100
"""Number of requests of each graph that the new generation must have had before it is promoted."""

_PERCENT = 99.0

_ROUNDING = 1e-12
"""Part of a sum up to which a term does not matter."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """End of a canary.

    Attributes:
        promoted: True if the new generation takes over, False if it is rolled back.
        reason: Reason, without the verdict itself.
    """

    promoted: bool
    reason: str

    def __str__(self) -> str:
        return f"{'promoted' if self.promoted else 'rolled back'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Requests of a graph during a canary.

    Attributes:
        running: Requests that were bound to the generation that serves.
        new: Requests that were bound to the new generation.
    """

    running: RequestCounts = field(default_factory=RequestCounts)
    new: RequestCounts = field(default_factory=RequestCounts)


@dataclass(frozen=True, slots=True)
class Watch:
    """A canary, from the beginning of the change to its end.

    Attributes:
        canary: Share and duration that the user asked for.
        running: Number of the generation that serves.
        new: Number of the new generation.
        graphs: Graphs whose requests both generations answer -> their requests so far.
        began_s: Time at which both generations served; None before.
        verdict: End of the canary; None before.
    """

    canary: Canary
    running: int
    new: int
    graphs: Mapping[str, Pair]
    began_s: float | None = None
    verdict: Verdict | None = None

    @classmethod
    def of(cls, canary: Canary, running: Generation, new: Generation) -> "Watch":
        """Returns a canary that has not begun."""
        graphs = {name: Pair() for name in running.bundle.graphs if name in new.bundle.graphs}
        return cls(canary, running.bundle.generation, new.bundle.generation, graphs)

    def begun(self, now_s: float) -> "Watch":
        """Returns the canary from the time on at which both generations serve."""
        return self if self.began_s is not None else replace(self, began_s=now_s)

    def ended(self, verdict: Verdict) -> "Watch":
        """Returns the canary with a verdict; the first one counts."""
        return self if self.verdict is not None else replace(self, verdict=verdict)

    def observed(self, requests: CountsByGeneration, now_s: float) -> "Watch":
        """Returns the canary after a second, with a verdict if the rule has one.

        Args:
            requests: Requests of the last second.
            now_s: Time now.
        """
        if self.began_s is None or self.verdict is not None:
            return self
        nothing = RequestCounts()
        graphs = {
            name: Pair(
                pair.running + requests.get((name, self.running), nothing),
                pair.new + requests.get((name, self.new), nothing),
            )
            for name, pair in self.graphs.items()
        }
        return replace(self, graphs=graphs, verdict=verdict(graphs, self.canary, now_s - self.began_s))


def verdict(graphs: Mapping[str, Pair], canary: Canary, elapsed_s: float) -> Verdict | None:
    """Returns the verdict of the rule; None while the canary goes on.

    Args:
        graphs: Requests of each graph so far.
        canary: Share and duration that the user asked for.
        elapsed_s: Seconds since both generations serve.
    """
    ends = elapsed_s >= canary.seconds
    looks = 1 if ends else max(1, math.ceil(canary.seconds) - 1)
    level = LEVEL / 2 / looks / (2 * len(graphs))
    for name, pair in graphs.items():
        fault = _more_errors(pair, level) or _slower(pair, level)
        if fault:
            return Verdict(False, f"{name}: {fault}")
    if not ends:
        return None
    for name, pair in graphs.items():
        if pair.new.requests < LEAST:
            return Verdict(
                False,
                f"{name}: only {pair.new.requests:.0f} requests in {canary.seconds:g} s, but a verdict needs {LEAST}; "
                "deploy with a larger share or more time",
            )
    return Verdict(True, "; ".join(f"{name}: {_compared(pair)}" for name, pair in graphs.items()))


def _more_errors(pair: Pair, level: float) -> str:
    """Returns a sentence if the new generation fails more requests than chance explains; else an empty text."""
    new, running = pair.new, pair.running
    requests, failed = round(new.requests + running.requests), round(new.failed + running.failed)
    if not new.failed or _hypergeometric_tail(round(new.failed), round(new.requests), failed, requests) > level:
        return ""
    return f"errors {new.failed_ratio:.1%} against {running.failed_ratio:.1%}, in {new.requests:.0f} requests"


def _slower(pair: Pair, level: float) -> str:
    """Returns a sentence if more than 1% of the new generation's answers are too slow; else an empty text."""
    usual_s = pair.running.percentile_s(_PERCENT)
    if usual_s is None or pair.running.answered < LEAST:
        return ""
    # The counters know how many answers are slower than one of their bounds, so the limit is the next bound.
    limit_s = min((bound for bound in pair.new.within if bound >= usual_s * RATIO), default=math.inf)
    slow, answered = round(pair.new.slower(limit_s)), round(pair.new.answered)
    if not slow or _binomial_tail(slow, answered, 1 - _PERCENT / 100) > level:
        return ""
    return (
        f"{slow / answered:.1%} of {answered} answers took longer than {_ms(limit_s)}, where 99% of the running "
        f"generation's took at most {_ms(usual_s)}"
    )


def _compared(pair: Pair) -> str:
    new, running = pair.new, pair.running
    errors = f"errors {new.failed_ratio:.1%} against {running.failed_ratio:.1%}"
    p99 = f"p99 {_ms(new.percentile_s(_PERCENT))} against {_ms(running.percentile_s(_PERCENT))}"
    return f"{errors}, {p99}, in {new.requests:.0f} requests"


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None or math.isinf(seconds) else f"{seconds * 1000:.3g} ms"


def _hypergeometric_tail(least: int, drawn: int, marked: int, total: int) -> float:
    """Returns the probability that at least `least` of `drawn` requests are among the `marked` of `total`.

    The probability is rounded up to 1 if `least` is at most the expected number.
    """
    if least <= marked * drawn / total:
        return 1.0
    every = _log_choose(total, drawn)
    return _sum(
        math.exp(_log_choose(marked, k) + _log_choose(total - marked, drawn - k) - every)
        for k in range(least, min(drawn, marked) + 1)
    )


def _binomial_tail(least: int, count: int, probability: float) -> float:
    """Returns the probability of at least `least` successes in `count` trials; 1 up to the expected number."""
    if least <= count * probability:
        return 1.0
    log_p, log_q = math.log(probability), math.log1p(-probability)
    return _sum(math.exp(_log_choose(count, k) + k * log_p + (count - k) * log_q) for k in range(least, count + 1))


def _sum(falling: Iterable[float]) -> float:
    """Returns the sum of terms that fall, without those too small to matter."""
    total = 0.0
    for term in falling:
        total += term
        if term <= total * _ROUNDING:
            break
    return total


def _log_choose(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
