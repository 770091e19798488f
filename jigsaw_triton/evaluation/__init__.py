"""Measurements of variants and of running graphs, comparisons of planner features, and a simulator."""
