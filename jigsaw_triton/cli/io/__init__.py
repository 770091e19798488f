"""Where a command writes to, and how it reaches the running deployment."""
