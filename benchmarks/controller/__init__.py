"""Benchmark of the controller: changes and deaths under load, on real tritonservers with real clients.

Each module is a part with deployments of its own. `python -m benchmarks.controller` runs them one after the other.
"""
