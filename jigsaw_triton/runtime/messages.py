"""Makes error texts of models and of users' code safe to send to clients."""

LONGEST = 500
"""Largest number of characters of an error text: gRPC drops responses whose message exceeds 8 KB, and a character may
take up to 12 bytes."""


def shortened(text: str) -> str:
    """Returns the text, cut after `LONGEST` characters."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def plain(text: str) -> str:
    """Returns the text in a form that Triton accepts: lone surrogates and null characters are escaped."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
