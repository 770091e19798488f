"""The code that runs inside tritonserver."""
