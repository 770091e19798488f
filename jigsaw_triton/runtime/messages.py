"""What models and users' code say of their errors, as clients can be told it."""

LONGEST = 500
"""Characters of an error's text: gRPC loses answers with messages longer than 8 KB, of up to 12 bytes a character."""


def shortened(text: str) -> str:
    """The beginning of a text that may be of any length."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def plain(text: str) -> str:
    """A text as Triton takes it: without half characters and zero bytes."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
