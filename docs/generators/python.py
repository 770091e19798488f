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
    return "\n\n".join(map(_documented, names))


def _documented(name: str) -> str:
    """Returns the block of a name. A class with an asynchronous form has the methods of that, inherited ones too."""
    block = f"::: jigsaw_triton.{name}"
    if f"Async{name}" not in jigsaw_triton.__all__:
        return block
    asynchronous = vars(getattr(jigsaw_triton, f"Async{name}"))
    methods = [method for method in dir(getattr(jigsaw_triton, name)) if method in asynchronous and method[0] != "_"]
    return f"{block}\n    options:\n      inherited_members: true\n      members: [{', '.join(methods)}]"
