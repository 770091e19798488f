"""Plans, graphs, statuses and other values as tables, lines and drawings."""
