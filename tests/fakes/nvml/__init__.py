"""A stand-in for libnvidia-ml.so.1 in C, and the simulated machine that tests create with it."""
