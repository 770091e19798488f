import pytest

from jigsaw_triton.cli.inputs.pairs import pairs
from jigsaw_triton.errors import InputError


def test_names_and_values_are_divided_at_the_first_equals_sign() -> None:
    assert pairs("--sample", ["A=1", "B=x=y"]) == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["A"], "--rename: 'A' is not NAME=VALUE; write a name, '=', and a value"),
        (["A=1", "A=2"], "--rename: 'A' has two values; give it one"),
    ],
)
def test_texts_that_are_not_pairs_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pairs("--rename", texts)
