"""Checks of the settings of a deployment that say how it follows the load."""

import math

from jigsaw_triton.api.reporting import Wording
from jigsaw_triton.controller.core.forecast import FORECASTS, LEAST_WINDOW_S, WINDOW_S
from jigsaw_triton.controller.core.settings import LEAST_PERIOD_S, PERIOD_S
from jigsaw_triton.errors import InputError
from jigsaw_triton.spec.words import nearest


def check_settings(
    *,
    period_s: float | None = None,
    forecast: str | None = None,
    window_s: float | None = None,
    wording: Wording,
) -> None:
    """Checks the settings that are given.

    Args:
        period_s: Seconds between two reviews of a plan.
        forecast: Name of the forecast of the load.
        window_s: Seconds of load whose peaks the forecast sees.
        wording: Form in which mistakes name an option.

    Raises:
        InputError: There is no such forecast, or a time is too short or not finite.
    """
    if period_s is not None and not LEAST_PERIOD_S <= period_s < math.inf:
        hint = f"give {LEAST_PERIOD_S:g} or more; the default is {PERIOD_S:g}"
        where = wording.name("period" if wording.flags else "period_s")
        raise InputError(f"{period_s:g} is not a period in seconds", where=where, hint=hint)
    if forecast is not None and forecast not in FORECASTS:
        raise InputError(
            f"there is no forecast {forecast!r}", where=wording.name("forecast"), hint=nearest(forecast, FORECASTS)
        )
    if window_s is not None and not LEAST_WINDOW_S <= window_s < math.inf:
        hint = f"give {LEAST_WINDOW_S:g} or more; the default is {WINDOW_S:g}"
        where = wording.name("window" if wording.flags else "window_s")
        raise InputError(f"{window_s:g} is not a window in seconds", where=where, hint=hint)
