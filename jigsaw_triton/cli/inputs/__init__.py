"""Inputs of commands: options, demands, MIG layouts, and the GPUs of this machine."""
