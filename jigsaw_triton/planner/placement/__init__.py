"""Placement of replicas on GPUs, with as many as possible kept where they run."""
