"""Threads for the controller's blocking calls."""

import threading
from concurrent.futures import ThreadPoolExecutor

THREADS = 8
"""Number of threads. One waits for the planning process. The other calls are short: files and the journal. Creating
and destroying MIG instances has its own threads. Each thread has its own heap, so more threads need more memory."""


def started_pool(count: int = THREADS) -> ThreadPoolExecutor:
    """Returns a pool whose threads are all running, unlike those of a usual one, which start when they are needed.

    A controller runs for months. Its use of the machine does not depend on its busiest moment, and no call of it fails
    because the machine has no thread left.

    Args:
        count: Number of threads.

    Raises:
        RuntimeError: The machine has no thread left.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="blocking")
    together = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            pool.submit(together.wait)
    except BaseException:
        # Threads that still wait at the barrier would keep the process from ending.
        together.abort()
        pool.shutdown()
        raise
    together.wait()
    return pool
