"""Planning in a process of its own, beside the controller."""
