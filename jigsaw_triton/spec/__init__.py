"""Schemas, loading and diagnostics of the files that users write."""
