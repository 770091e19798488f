"""Files for programs that start jigsaw-triton: systemd, Compose and Kubernetes. Pure functions that return texts."""
