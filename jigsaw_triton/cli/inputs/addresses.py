"""Addresses to listen on, as options give them."""

from jigsaw_triton.errors import InputError


def read_address(text: str) -> tuple[str, int]:
    """Returns the address and the port of `--listen`.

    Args:
        text: `HOST:PORT`; an address of IPv6 is in brackets.

    Raises:
        InputError: The text is not an address and a port.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        hint = "write --listen 0.0.0.0:7440 for all networks of this machine"
        raise InputError(f"{text!r} is not an address and a port", where="--listen", hint=hint)
    return host.strip("[]"), int(port)
