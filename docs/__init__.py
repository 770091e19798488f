"""Documentation of jigsaw-triton, with the scripts that make its pictures."""
