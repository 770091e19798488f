"""Status API and traces of a running deployment."""
