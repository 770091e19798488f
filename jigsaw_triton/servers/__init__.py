"""Tritonservers: finding, starting, speaking to and stopping them."""
