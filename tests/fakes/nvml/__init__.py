"""A stand-in for libnvidia-ml.so.1 in C, and the machine that tests make with it."""
