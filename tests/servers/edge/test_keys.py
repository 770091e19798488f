import hashlib

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.edge.keys import ApiKey, parse_keys

LONG = "0123456789abcdef"
DIGEST = hashlib.sha256(LONG.encode()).hexdigest()


def test_a_key_and_its_digest_are_equivalent() -> None:
    assert parse_keys(f"# clients\n\nalice {LONG}\n", "keys") == (ApiKey("alice", DIGEST),)
    assert parse_keys(f"alice sha256:{DIGEST}", "keys") == (ApiKey("alice", DIGEST),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alice", "keys:1: the line is not a name and a key"),
        (f"\nal/ice {LONG}", "keys:2: the line is not a name and a key"),
        ("alice short", "keys:1: the key is too short"),
        (f"alice {LONG}\nbob {LONG}", "keys:2: the key is also that of alice"),
    ],
)
def test_mistakes_are_reported_with_their_lines(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_keys(text, "keys")
    assert str(caught.value).startswith(words)
    assert LONG not in str(caught.value)
