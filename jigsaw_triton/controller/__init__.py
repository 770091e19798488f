"""The loop that keeps what runs as it should be."""
