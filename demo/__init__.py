"""Demonstration of the whole system: `make demo`."""
