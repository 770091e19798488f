"""What the figures on performance come from: `python -m benchmarks.NAME`."""
