"""Numbers that JSON does not have."""

import math
from typing import Any


def finite(data: Any) -> Any:
    """Returns data with None in place of NaN and infinity, which JSON does not have."""
    match data:
        case float():
            return data if math.isfinite(data) else None
        case dict():
            return {key: finite(value) for key, value in data.items()}
        case list() | tuple():
            return [finite(value) for value in data]
        case _:
            return data
