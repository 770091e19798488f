"""Benchmarks, which measure the performance figures: `python -m benchmarks.NAME`."""
