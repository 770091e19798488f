"""From graphs, cluster and profiles to a plan."""
