"""Measuring: variants for their profiles, running graphs under load."""
