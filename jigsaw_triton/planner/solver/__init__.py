"""Mixed-integer programs, the solvers that run them in a separate process, and deadlines."""
