"""Placement of replicas on GPUs, and what already runs there."""
