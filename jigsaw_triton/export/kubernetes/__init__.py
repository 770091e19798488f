"""Manifests of a deployment for Kubernetes: an agent on each node with GPUs, and a controller with the gateway."""
