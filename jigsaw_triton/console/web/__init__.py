"""The web console: a process of its own that shows a deployment to browsers."""
