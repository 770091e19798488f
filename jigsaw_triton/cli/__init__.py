"""The command line, a thin layer over `api`. `commands` uses `views` and `inputs`, and all of them use `io`."""
