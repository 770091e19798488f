"""Lists that an option takes, separated by commas."""

from jigsaw_triton.errors import InputError


def words(text: str) -> tuple[str, ...]:
    """Returns the items of a list."""
    return tuple(item.strip() for item in text.split(","))


def numbers(text: str, flag: str) -> tuple[int, ...]:
    """Returns the whole numbers in a list.

    Args:
        text: The list.
        flag: Option that has the list, for the error.

    Raises:
        InputError: An item is not a whole number.
    """
    try:
        return tuple(int(item) for item in words(text))
    except ValueError as error:
        raise InputError(
            f"'{text}' is not a list of whole numbers", where=flag, hint="separate them by commas: 1,2,4"
        ) from error
