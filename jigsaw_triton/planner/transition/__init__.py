"""The ordered steps from a running plan to another."""
