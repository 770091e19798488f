"""Measures the accuracy of variants, and of combinations of them, on a labelled set."""
