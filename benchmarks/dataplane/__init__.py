"""What the data plane costs, and whether it is fair, faithful, and honest under overload.

One part a module, each with a deployment of its own; `python -m benchmarks.dataplane` runs them one after the other.
"""
