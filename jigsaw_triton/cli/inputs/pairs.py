"""Options that are repeated, each time with NAME=VALUE."""

from collections.abc import Sequence

from jigsaw_triton.errors import InputError


def pairs(option: str, texts: Sequence[str], *, form: str = "NAME=VALUE") -> dict[str, str]:
    """Returns the names and values of an option that may be repeated.

    Args:
        option: The option, for messages.
        texts: Values of the option.
        form: Form of a value, for messages.

    Raises:
        InputError: A text does not have this form, or a name is repeated.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise InputError(f"'{text}' is not {form}", where=option, hint="write a name, '=', and a value")
        if name in found:
            raise InputError(f"'{name}' has two values", where=option, hint="give it one")
        found[name] = value
    return found
