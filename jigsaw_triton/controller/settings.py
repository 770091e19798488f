"""How the controller behaves: every figure in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Figures of the control loop.

    Attributes:
        rise_window_s: Arrivals are averaged over this before a rise is believed: long enough to see past Poisson noise.
        rise_over: A rise is acted on when arrivals exceed what the plan can carry by this factor.
        fall_window_s: The highest average within it counts for a fall, so that a short lull changes nothing.
        fall_under: A fall is acted on when that average is below this share of what is planned for.
        headroom: What is planned for, over what was measured.
        rows_least: Items or requests that must have been counted before the rows made of them are believed.
        rows_half_life_s: What was counted so long ago counts half.
        cooldown_s: Between the end of one change and the next that is not the user's.
        linger_s: Seconds for which routes of an earlier generation stay, so that requests in their queues are answered.
        restart_delay_s: Before a dead server's first restart; doubles with each further one.
        restart_limit: Restarts of one server within restart_window_s before it is given up.
        restart_window_s: See restart_limit; also seconds after which a server that was given up is tried again.
    """

    rise_window_s: float = 4.0
    rise_over: float = 1.0
    fall_window_s: float = 60.0
    fall_under: float = 0.5
    headroom: float = 1.25
    rows_least: float = 200.0
    rows_half_life_s: float = 300.0
    cooldown_s: float = 10.0
    linger_s: float = 30.0
    restart_delay_s: float = 0.5
    restart_limit: int = 5
    restart_window_s: float = 120.0
