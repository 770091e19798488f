"""The files users write."""
