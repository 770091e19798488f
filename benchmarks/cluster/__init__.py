"""Benchmark of clusters of several nodes.

Each module is a part of its own. `python -m benchmarks.cluster` runs them one after the other.
"""
