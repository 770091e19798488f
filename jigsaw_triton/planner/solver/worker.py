"""The process that solves, with requests and answers over connection FD.

It is started as `python -m jigsaw_triton.planner.solver.worker SOLVER FD`.

Solvers run here, apart from whoever plans, because HiGHS prints a banner on stdout that nothing can switch off, holds
its process until it is done, and must not take a controller with it when it crashes.
"""

import importlib
import os
import sys
from multiprocessing.connection import Connection

from jigsaw_triton.planner.solver.solver import Request


def main(solver: str, descriptor: int) -> None:
    """Serves requests until the other end closes."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    # The library alone takes a tenth of a second to bring in: while whoever plans is still at work on the program.
    module = importlib.import_module(f"jigsaw_triton.planner.solver.{solver}")
    connection = Connection(descriptor)
    while True:
        try:
            request: Request = connection.recv()
        except EOFError:
            return
        try:
            connection.send(module.solve(request.program, request.time_limit_s))
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
