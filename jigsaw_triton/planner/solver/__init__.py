"""Programs as values, the solvers that solve them in a process of their own, and deadlines."""
