"""Measurements of variants and of running graphs, rehearsals, comparisons of planner features, and a simulator."""
