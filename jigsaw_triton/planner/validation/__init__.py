"""Independent validation of a plan: that it is consistent, fits the cluster and keeps its SLOs."""
