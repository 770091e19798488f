"""Explanations: what each requirement costs, and which requirements cannot be satisfied together."""
