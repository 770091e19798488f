"""Output of commands: results, messages, tables and errors."""
