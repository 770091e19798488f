"""Lower bounds on slices, by which configurations that no optimum uses are left out of the program."""
