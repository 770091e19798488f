"""Planned latency of a task: from its profile, its queue under load, and the Pareto front of its configurations."""
