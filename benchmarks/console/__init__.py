"""Benchmark of the web console: the pages in Chromium, and what the console costs the controller."""
