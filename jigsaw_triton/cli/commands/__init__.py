"""One module for each command: `jigsaw-triton NAME` runs `command` in `NAME.py`."""
