import pytest

from jigsaw_triton.lists import MOST_NAMED, limited


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), ([1], "1"), ([1, 2], "1, 2"), ([1, 2, 3], "1, 2 and 1 more"), ("abcd", "a, b and 2 more")],
)
def test_a_message_names_the_first_items_and_counts_the_others(items: list[int], text: str) -> None:
    assert limited(items, 2) == text


def test_a_list_has_a_limit_by_default() -> None:
    assert limited(range(MOST_NAMED), separator="; ") == "0; 1; 2; 3; 4; 5; 6; 7"
    assert limited(range(2000)).endswith("7 and 1992 more")
