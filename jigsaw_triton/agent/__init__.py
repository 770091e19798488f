"""The agent of a node: a process that starts and watches the workers of one machine for a controller elsewhere."""
