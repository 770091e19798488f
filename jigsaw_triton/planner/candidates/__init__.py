"""Configurations that a plan may choose from: alone in a slice, sharing one, or fused along a chain of tasks."""
