"""The public names of the package, which mkdocstrings documents from their docstrings."""

import jigsaw_triton


def members(*names: str) -> str:
    """Returns what mkdocstrings replaces by the documentation of public names.

    Args:
        names: Names in the package.

    Raises:
        LookupError: A name is not public.
    """
    unknown = [name for name in names if name not in jigsaw_triton.__all__]
    if unknown:
        raise LookupError(f"jigsaw_triton has no public name {unknown[0]}")
    return "\n\n".join(f"::: jigsaw_triton.{name}" for name in names)
