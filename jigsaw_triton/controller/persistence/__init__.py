"""State of the controller on disk: the journal, checkpoints of the core, the history, the lock."""
