"""A discrete-event simulator of a plan's servers, with a seed and simulated time; it does no I/O."""
