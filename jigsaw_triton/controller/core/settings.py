"""Settings of the control loop."""

from dataclasses import dataclass

CANARY_S = 300.0
"""Seconds that a canary takes unless the user says otherwise."""

PERIOD_S = 60.0
"""Seconds between two reviews of the plan unless the user says otherwise."""

LEAST_PERIOD_S = 1.0
"""Shortest period of the reviews in seconds: the controller looks at the load once a second."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Thresholds, windows and delays of the control loop.

    Attributes:
        rise_window_s: Seconds of arrivals to average before a rise is believed: long enough to smooth Poisson noise.
        rise_over: Ratio of arrivals to the plan's capacity above which the controller plans again.
        fall_under: Ratio of the forecast to the planned demand below which a review follows.
        review_saves: Share of the slices in use that a review must save to take effect.
        headroom: Ratio of the demand to plan for to the measured demand.
        demand_step: Ratio of a demand to plan for to the next lower one.
        burst_share: Share of the load up to which bursts are no reason for a reserve; 1 for no reserve. See `bursts`.
        burst_half_life_s: Half-life, in seconds, of the bursts from which the reserve follows.
        learning_s: Seconds of a graph's load that must be seen before a fall counts, since its bursts are unknown.
        rows_least: Number of items or requests that must be counted before a measured ratio replaces an estimate.
        rows_half_life_s: Half-life, in seconds, of the counts of rows and branches.
        slow_over: Ratio of measured to profiled service times above which a model counts as slow.
        slow_over_ms: Milliseconds that a batch of a slow model takes longer than profiled, at least.
        slow_least: Number of recent batches by which a model is judged, at least.
        slow_half_life_s: Half-life, in seconds, of the service times.
        standby_hold_s: Seconds of arrivals that the usual variants must be able to carry before standby variants give
            back.
        cooldown_s: Seconds after a plan that failed, or changed nothing, in which the load triggers no other.
        linger_s: Seconds to keep an earlier generation's routes, so that requests in its queues are answered.
        restart_delay_s: Base of the restart backoff in seconds. The first restart is immediate; the n-th one after it
            waits this delay times 2**n.
        restart_most_s: Longest delay of a restart in seconds. A server is restarted until it serves.
        restart_window_s: Seconds over which a server's restarts are counted.
    """

    rise_window_s: float = 4.0
    rise_over: float = 1.0
    fall_under: float = 0.95
    review_saves: float = 0.05
    headroom: float = 1.045
    demand_step: float = 1.01
    burst_share: float = 0.01
    burst_half_life_s: float = 1800.0
    learning_s: float = 900.0
    rows_least: float = 200.0
    rows_half_life_s: float = 300.0
    slow_over: float = 1.2
    slow_over_ms: float = 2.0
    slow_least: float = 200.0
    slow_half_life_s: float = 30.0
    standby_hold_s: float = 5.0
    cooldown_s: float = 10.0
    linger_s: float = 30.0
    restart_delay_s: float = 0.5
    restart_most_s: float = 30.0
    restart_window_s: float = 300.0

    def backoff_s(self, restarts: int) -> float:
        """Returns the delay in seconds of a server's restart.

        Args:
            restarts: Number of its recent restarts.
        """
        # More than 64 doublings cannot matter, and a thousand would overflow a float.
        return min(self.restart_delay_s * 2.0 ** min(restarts, 64), self.restart_most_s) if restarts else 0.0
