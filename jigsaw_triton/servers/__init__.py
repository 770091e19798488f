"""Finding, starting, calling and stopping tritonservers."""
