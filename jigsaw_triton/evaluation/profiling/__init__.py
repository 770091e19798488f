"""Measures variants on live tritonservers."""
