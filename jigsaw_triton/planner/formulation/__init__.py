"""The mixed-integer program of a problem, and the extraction of budgets and shares from its solution."""
