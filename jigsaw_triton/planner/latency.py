"""From a profile to the latency that a task is planned to take."""

import math

from jigsaw_triton.profiles.table import ProfileRow


def two_p95_ms(row: ProfileRow, rows: float) -> float:
    """Latency of a task for one request by the rule of twice the 95th percentile, extended to fan-out.

    Devata, Singh and Adve (arXiv 2603.08797) plan with 2 x p95: one batch is waited for, one is the request's own. A
    request that brings `rows` rows to a task fills ceil(rows / (batch x instances)) rounds of a replica, all instances
    running at once (the profile is of all of them busy). So it takes p95 x (1 + rounds): with one row the paper's rule.
    That the rows of a request may spread over several replicas is not counted on; that a request may bring more rows
    than expected is not guarded against, beyond what a percentile for every batch leaves in hand. The SLO's own
    percentile does not enter.

    Args:
        row: The configuration's profile.
        rows: Expected rows a request.
    """
    rounds = max(1, math.ceil(rows / (row.key.batch * row.key.instances) - 1e-9))
    return row.latency_p95_ms * (1 + rounds)
