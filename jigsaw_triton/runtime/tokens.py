"""Tokens of calls: the number by which the gateway knows that an answer belongs to its call.

A call's request id is `<ids>#<token>`: ids of traced requests, separated by commas, and the token. A model's process
that was slow once may answer a later call with what it made for an earlier one; the token tells them apart.
"""

from typing import NamedTuple

import numpy as np

from jigsaw_triton.runtime.dtypes import Array

_END = "#"
_BETWEEN = ","


class CallId(NamedTuple):
    """What the request id of a call says.

    Attributes:
        ids: Clients' ids of the traced requests that have items in the call.
        token: Number of the call; 0 where whoever calls gives none.
    """

    ids: tuple[str, ...]
    token: int


def parse_call_id(text: str) -> CallId:
    """The parts of a request id; an id that is not of the gateway's form has neither."""
    names, end, number = text.rpartition(_END)
    if not end or not number.isdecimal():
        return CallId((), 0)
    return CallId(tuple(names.split(_BETWEEN)) if names else (), int(number))


def token_of(call: CallId, items: int) -> Array:
    """The token as an output, [items, 1]."""
    return np.full((items, 1), call.token, np.int64)
