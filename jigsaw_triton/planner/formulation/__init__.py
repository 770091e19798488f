"""The mixed-integer program of a problem, and the way from its solution back to budgets and shares."""
