"""Measures the profiles of variants on live tritonservers."""
