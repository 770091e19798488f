"""The servers of a deployment and their MIG instances: starting, loading, draining, watching and ending them."""
