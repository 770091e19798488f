"""The search for a plan: which programs to solve, in which order, and what to do where none has a solution."""
