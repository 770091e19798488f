"""Tokens of calls: numbers by which the gateway verifies that an answer belongs to its call.

The request id of a call is `<ids>#<token>`: the ids of traced requests, separated by commas, and the token. A model's
process that was slow once may answer a later call with the result of an earlier one; the token reveals this.
"""

from typing import NamedTuple

import numpy as np

from jigsaw_triton.runtime.dtypes import Array

_END = "#"
_BETWEEN = ","


class CallId(NamedTuple):
    """The parts of a call's request id.

    Attributes:
        ids: Ids that clients gave to the traced requests with items in the call.
        token: Token of the call; 0 if the caller gave none.
    """

    ids: tuple[str, ...]
    token: int


def parse_call_id(text: str) -> CallId:
    """Parses a request id; one that does not have the gateway's form gives no ids and the token 0."""
    names, end, number = text.rpartition(_END)
    if not end or not number.isdecimal():
        return CallId((), 0)
    return CallId(tuple(names.split(_BETWEEN)) if names else (), int(number))


def token_of(call: CallId, items: int) -> Array:
    """Returns the token as an output of shape [items, 1]."""
    token = np.empty((items, 1), np.int64)
    token.fill(call.token)  # np.full takes four times as long.
    return token
