"""Benchmark of profiles: how well few measurements stand for all of them."""
