import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.runtime.tokens import CallId, parse_call_id, token_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#7", CallId((), 7)),
        ("one#7", CallId(("one",), 7)),
        ("one,two#281474976710656", CallId(("one", "two"), 2**48)),
        ("8#1,two#7", CallId(("8#1", "two"), 7)),
        ("", CallId((), 0)),
        ("one", CallId((), 0)),
        ("one#", CallId((), 0)),
        ("one#two", CallId((), 0)),
        ("one#-7", CallId((), 0)),
    ],
)
def test_a_request_id_is_parsed_into_ids_and_token(text: str, expected: CallId) -> None:
    assert parse_call_id(text) == expected


@given(st.lists(st.text(st.characters(exclude_characters=","), min_size=1)), st.integers(0, 2**49))
def test_ids_of_clients_may_contain_any_character_but_a_comma(ids: list[str], token: int) -> None:
    assert parse_call_id(f"{','.join(ids)}#{token}") == CallId(tuple(ids), token)


@pytest.mark.parametrize("items", [0, 1, 3])
def test_an_output_has_the_token_of_each_item(items: int) -> None:
    output = token_of(CallId((), 2**48), items)
    assert (output.shape, str(output.dtype)) == ((items, 1), "int64")
    assert set(output.ravel().tolist()) <= {2**48}
