"""The process that handles models. It is started as `python -m jigsaw_triton.models.worker FD`.

Models are loaded, run and converted in a process of their own because they may crash or hang it.
"""

import sys

from jigsaw_triton.child_process import connected


def main(descriptor: int) -> None:
    """Performs jobs until the other end closes the connection. A job is an object with a method `perform`."""
    connection = connected(descriptor)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(job.perform())


if __name__ == "__main__":
    main(int(sys.argv[1]))
