"""The task graph: its domain types, the checks that build it from a document, and drawings of it."""
