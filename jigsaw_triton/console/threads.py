"""Threads for the controller's blocking calls."""

import threading
from concurrent.futures import ThreadPoolExecutor

THREADS = 8
"""Number of threads. Blocking calls are short: files, the journal, the MIG driver. A few may hang with the driver.
Each thread has its own heap, so more threads need more memory."""


def started_pool(count: int = THREADS) -> ThreadPoolExecutor:
    """Returns a pool whose threads are all running, unlike those of a usual one, which start when they are needed.

    A controller runs for months. Its use of the machine does not depend on its busiest moment, and no call of it fails
    because the machine has no thread left.

    Args:
        count: Number of threads.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="blocking")
    together = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(together.wait)
    together.wait()
    return pool
