"""GPUs, slices, layouts and the MIG drivers."""
