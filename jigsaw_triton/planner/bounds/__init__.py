"""Lower bounds on slices, which exclude configurations that no optimum uses from the program."""
