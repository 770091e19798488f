"""An independent check that a plan is consistent and keeps its SLOs."""
