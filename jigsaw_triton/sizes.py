"""Sizes in messages, in a unit that suits them."""


def readable(size_bytes: float) -> str:
    """Returns a size for people: `1.5 MiB`."""
    size, unit = size_bytes / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if size >= 1000:
            size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"
