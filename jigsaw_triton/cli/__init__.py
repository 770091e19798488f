"""The command line: `commands` uses `views`, `views` uses `inputs`, `inputs` uses `io`."""
