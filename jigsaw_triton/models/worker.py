"""The process that runs models on samples. It is started as `python -m jigsaw_triton.models.worker FD`.

Models run in a process of their own because they may crash or hang it.
"""

import sys

from jigsaw_triton.child_process import connected
from jigsaw_triton.models.trial import attempt


def main(descriptor: int) -> None:
    """Serves trials until the other end closes the connection."""
    connection = connected(descriptor)
    while True:
        try:
            trial = connection.recv()
        except EOFError:
            return
        connection.send(attempt(trial))


if __name__ == "__main__":
    main(int(sys.argv[1]))
