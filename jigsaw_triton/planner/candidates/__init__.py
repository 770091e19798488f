"""Configurations that a plan may choose from: each by itself, sharing a slice, and fused along a chain of tasks."""
