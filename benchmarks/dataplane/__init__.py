"""Benchmark of the data plane: its cost, its correctness under faults, and its behaviour under overload.

Each module is a part with a deployment of its own. `python -m benchmarks.dataplane` runs them one after the other.
"""
