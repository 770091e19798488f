"""What a command works on: options, files, the machine and its GPUs."""
