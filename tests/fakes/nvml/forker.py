"""Runs each job from standard input in a process of its own, and writes its exit status to standard output."""

import base64
import os
import pickle
import sys

from tests.fakes.nvml.transitions import Job, attempt


def main() -> None:
    """Runs jobs until standard input is closed."""
    for line in sys.stdin:
        job: Job = pickle.loads(base64.b64decode(line))
        pid = os.fork()
        if pid == 0:
            os._exit(attempt(*job))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
